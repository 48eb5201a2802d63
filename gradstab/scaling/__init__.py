"""Does it transfer? Coordinate checks over size, and parametrisations of width."""

from gradstab.scaling.blocks import BlockSlopes
from gradstab.scaling.causes import Cause
from gradstab.scaling.coordinates import (
    LayerSlopes,
    ParameterSlopes,
    Transfer,
    load,
)
from gradstab.scaling.depths import DepthParametrization, DepthScale, Place
from gradstab.scaling.learning_rates import learning_rate_transfer
from gradstab.scaling.optima import LearningRates, load_learning_rates
from gradstab.scaling.parametrization import ParameterScale, Parametrization
from gradstab.scaling.parametrize import parametrize
from gradstab.scaling.roles import Role
from gradstab.scaling.schemes import (
    BRANCH_POWERS,
    DEPTH_SCHEMES,
    OPTIMIZERS,
    SCHEMES,
    Exponents,
    depth_exponents,
    exponents,
)
from gradstab.scaling.slopes import Slope, Trend
from gradstab.scaling.transfer import transfer

__all__ = [
    "BRANCH_POWERS",
    "DEPTH_SCHEMES",
    "OPTIMIZERS",
    "SCHEMES",
    "BlockSlopes",
    "Cause",
    "DepthParametrization",
    "DepthScale",
    "Exponents",
    "LayerSlopes",
    "LearningRates",
    "ParameterScale",
    "ParameterSlopes",
    "Parametrization",
    "Place",
    "Role",
    "Slope",
    "Transfer",
    "Trend",
    "depth_exponents",
    "exponents",
    "learning_rate_transfer",
    "load",
    "load_learning_rates",
    "parametrize",
    "transfer",
]


def __dir__():
    return __all__
