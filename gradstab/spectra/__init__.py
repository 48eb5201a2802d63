"""Linear maps, their singular values, and the law by which signals grow."""

from gradstab.spectra.along_time import layer_recurrences
from gradstab.spectra.coupling import find_examples, mixes_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.growth import MOST_OF_CONSTANT, fit_growth
from gradstab.spectra.linear_map import LinearMap, jacobian_map
from gradstab.spectra.of_layers import (
    LayerSpectrum,
    Leading,
    alignment,
    layer_spectrum,
)
from gradstab.spectra.placement import checked_place, on_device
from gradstab.spectra.products import ProductExponents, product_exponents
from gradstab.spectra.workers import num_workers, one_blas_thread

__all__ = [
    "MOST_OF_CONSTANT",
    "LayerSpectrum",
    "Leading",
    "LinearMap",
    "ProductExponents",
    "alignment",
    "checked_place",
    "dense_jacobian",
    "dense_spectrum",
    "find_examples",
    "fit_growth",
    "jacobian_map",
    "layer_recurrences",
    "layer_spectrum",
    "mixes_examples",
    "num_workers",
    "on_device",
    "one_blas_thread",
    "product_exponents",
]
