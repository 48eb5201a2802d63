"""The nouns of gradstab: frozen records of arrays, each a pytree.

Arrays come first, with their shapes beside them; names and other static facts last, as
tuples in depth order.
"""

from gradstab.records._record import record, static
from gradstab.records.growth import NORMAL_95, Growth, Range, Recurrence
from gradstab.records.layers import Layer, Prediction, Signals
from gradstab.records.spectrum import Estimate, Spectrum, root_mean_square

__all__ = [
    "NORMAL_95",
    "Estimate",
    "Growth",
    "Layer",
    "Prediction",
    "Range",
    "Recurrence",
    "Signals",
    "Spectrum",
    "record",
    "root_mean_square",
    "static",
]


def __dir__():
    return __all__
