"""From a model and a batch to a report."""

from gradstab.analysis.analyze import analyze
from gradstab.analysis.initialization import initializations

__all__ = ["analyze", "initializations"]


def __dir__():
    return __all__
