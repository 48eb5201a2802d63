"""Theory of wide random networks, computed for any activation and never tabulated.

>>> import jax
>>> from gradstab import theory
>>> field = theory.mean_field(jax.nn.relu, sigma_w=2**0.5)
>>> field.phase, field.gradient_rate < 1e-12
('critical', True)
"""

from gradstab.theory.batch_norm import batch_norm_gain, batch_norm_square
from gradstab.theory.density import singular_value_density
from gradstab.theory.depth_scales import (
    CriticalPoint,
    critical_sigma_w,
    depth_scale,
    half_stable_point,
)
from gradstab.theory.finite_width import (
    JacobianMoments,
    LogLaw,
    jacobian_moments,
    relu_log_law,
    sample_relu_log_law,
)
from gradstab.theory.mean_field import MeanField, mean_field
from gradstab.theory.of_network import predict
from gradstab.theory.residual import Residual, residual
from gradstab.theory.spectral_density import SingularValues, singular_values
from gradstab.theory.structure import ends_in_norm, is_linear

__all__ = [
    "CriticalPoint",
    "JacobianMoments",
    "LogLaw",
    "MeanField",
    "Residual",
    "SingularValues",
    "batch_norm_gain",
    "batch_norm_square",
    "critical_sigma_w",
    "depth_scale",
    "ends_in_norm",
    "half_stable_point",
    "is_linear",
    "jacobian_moments",
    "mean_field",
    "predict",
    "relu_log_law",
    "residual",
    "sample_relu_log_law",
    "singular_value_density",
    "singular_values",
]


def __dir__():
    return __all__
