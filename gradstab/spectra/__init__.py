"""Linear maps, their singular values, and the law by which signals grow."""

from gradstab.spectra.along_time import layer_recurrences
from gradstab.spectra.coupling import coupled_layers, mixes_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.growth import fit_growth
from gradstab.spectra.linear_map import LinearMap, jacobian_map
from gradstab.spectra.of_layers import layer_spectrum

__all__ = [
    "LinearMap",
    "coupled_layers",
    "dense_jacobian",
    "dense_spectrum",
    "fit_growth",
    "jacobian_map",
    "layer_recurrences",
    "layer_spectrum",
    "mixes_examples",
]
