"""Linear maps, their singular values, and the law by which signals grow."""

from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.growth import fit_growth
from gradstab.spectra.linear_map import LinearMap, jacobian_map

__all__ = [
    "LinearMap",
    "dense_jacobian",
    "dense_spectrum",
    "fit_growth",
    "jacobian_map",
]
