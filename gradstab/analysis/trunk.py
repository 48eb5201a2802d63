"""The part of a network along which growth is measured."""

import numpy as np

from gradstab.report import GrowthPair
from gradstab.spectra import fit_growth


def trunk_growth(layers, /) -> GrowthPair:
    """The growth of both signals along the trunk of a network.

    Args:
        layers: records of all layers, in depth order.
    """
    trunk = find_trunk(layers)
    names = [layer.name for layer in trunk]
    return GrowthPair(
        forward=fit_growth([layer.forward_rms for layer in trunk], names),
        backward=fit_growth(np.stack([layer.gradient_norm for layer in trunk]), names),
    )


def find_trunk(layers, /):
    """The longest run of layers with one output shape.

    A stem or a head of another shape would bend the law of the layers between. In a
    network that narrows from layer to layer no run is long; then all layers are taken,
    if they have one kind of shape: fan-in scaling keeps norms comparable over widths.
    """
    runs, start = [], 0
    for end in range(1, len(layers) + 1):
        if end == len(layers) or layers[end].out_shape != layers[start].out_shape:
            runs.append(layers[start:end])
            start = end
    longest = max(runs, key=len)
    same_rank = len({len(layer.out_shape) for layer in layers}) == 1
    return layers if len(longest) < 3 and same_rank else longest
