"""Does it transfer? Coordinate checks over size, and parametrisations of width."""

from gradstab.scaling.parametrize import (
    ParameterScale,
    Parametrization,
    parametrize,
)
from gradstab.scaling.roles import Role
from gradstab.scaling.schemes import OPTIMIZERS, SCHEMES, Exponents, exponents

__all__ = [
    "OPTIMIZERS",
    "SCHEMES",
    "Exponents",
    "ParameterScale",
    "Parametrization",
    "Role",
    "exponents",
    "parametrize",
]


def __dir__():
    return __all__
