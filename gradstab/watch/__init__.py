"""Gradients with a view: statistics of every layer, of every step, from any loop."""

from gradstab.watch.differentiating import value_and_grad
from gradstab.watch.history import History
from gradstab.watch.statistics import Statistics

__all__ = ["History", "Statistics", "value_and_grad"]


def __dir__():
    return __all__
