"""The report of an analysis and its views."""

from gradstab.report.ensembles import Ensemble, OverSeeds
from gradstab.report.ranges import ranges, ranges_along_time
from gradstab.report.report import GrowthPair, Report, load
from gradstab.report.verdict import VERDICTS, Expected, judge

__all__ = [
    "VERDICTS",
    "Ensemble",
    "Expected",
    "GrowthPair",
    "OverSeeds",
    "Report",
    "judge",
    "load",
    "ranges",
    "ranges_along_time",
]


def __dir__():
    return __all__
