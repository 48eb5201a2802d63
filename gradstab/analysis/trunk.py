"""The part of a network along which growth is measured."""

import numpy as np

from gradstab.report import GrowthPair
from gradstab.spectra import fit_growth


def trunk_growth(signals, trunk, /) -> GrowthPair:
    """The growth of both signals along the trunk of a network.

    Args:
        signals: of all layers.
        trunk: positions of the layers, from `find_trunk`.
    """
    names = [signals.names[i] for i in trunk]
    rows = list(trunk)
    return GrowthPair(
        forward=fit_growth(np.asarray(signals.forward_rms)[rows], names),
        backward=fit_growth(np.asarray(signals.gradient_norms)[rows], names),
    )


def find_trunk(network, /) -> range:
    """The longest run of layers with one output shape.

    A stem or a head of another shape would bend the law of the layers between. In a
    network that narrows from layer to layer no run is long; then all layers are taken,
    if they have one kind of shape: fan-in scaling keeps norms comparable over widths.

    Args:
        network: from `find_layers`.

    Returns:
        Positions of the layers.
    """
    shapes = [place.out_shape[1:] for place in network.layers]
    runs, start = [], 0
    for end in range(1, len(shapes) + 1):
        if end == len(shapes) or shapes[end] != shapes[start]:
            runs.append(range(start, end))
            start = end
    longest = max(runs, key=len)
    same_rank = len(set(map(len, shapes))) == 1
    return range(len(shapes)) if len(longest) < 3 and same_rank else longest
