"""Initialisation that looks at data."""

from gradstab.calibration.lsuv import Calibration, lsuv

__all__ = ["Calibration", "lsuv"]


def __dir__():
    return __all__
