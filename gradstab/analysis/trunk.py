"""The layers that vote on the law of growth, and what theory expects of them."""

import math
from typing import NamedTuple

import numpy as np

from gradstab.network.blocks import Block
from gradstab.network.replay import Network
from gradstab.records import Prediction, Signals
from gradstab.report import Expected, GrowthPair
from gradstab.spectra import fit_growth
from gradstab.theory import ends_in_norm, is_linear


class Trunk(NamedTuple):
    """The layers along which growth is measured.

    Attributes:
        layers: their positions.
        notes: which layers at the ends were left out, and why.
    """

    layers: range
    notes: tuple[str, ...]


def find_trunk(network: Network, /) -> Trunk:
    """All layers but a head and lone normalisations at the ends.

    Under fan-in scaling the root mean square entry of the data and the norm of the
    gradient are comparable over layers of any shape, so stages of several widths are
    fitted as one network. Two things at an end are no layers of it: a head, which is a
    last layer of another shape than the one before, or one that is linear while none
    of the layers between the first and itself is: what they do to a signal besides the
    weights, it does not; and a layer that ends in a normalisation while most others do
    not, as the last block of a pre-norm transformer does: its data have the size that
    the normalisation gives them, not the network.

    Args:
        network: from `find_layers`.
    """
    places = network.layers
    shapes = [place.out_shape[1:] for place in places]
    blocks = [network.blocks[place.block] for place in places]
    normed = list(map(ends_in_norm, blocks))
    start, end, notes = 0, len(places), []
    if end > 1 and (shapes[-1] != shapes[-2] or _reads_out(blocks)):
        notes.append(f"{places[-1].name} (taken for the head)")
        end -= 1
    lone = 2 * sum(normed) < end
    if end - start > 2 and lone and normed[end - 1]:
        end -= 1
        notes.append(f"{places[end].name} (it ends in a normalisation)")
    if end - start > 2 and lone and normed[start]:
        notes.append(f"{places[start].name} (it ends in a normalisation)")
        start += 1
    said = (f"the law of growth is that of all layers but {' and '.join(notes)}",)
    return Trunk(range(start, end), said if notes else ())


def _reads_out(blocks: list[Block]) -> bool:
    """Whether the last layer lacks what all layers before it, but the first, have.

    A first layer may be linear as well: it embeds the input.
    """
    between = blocks[1:-1]
    return bool(between) and is_linear(blocks[-1]) and not any(map(is_linear, between))


def trunk_growth(signals: Signals, trunk: Trunk, /) -> GrowthPair:
    """The growth of both signals along the trunk of a network.

    Args:
        signals: of all layers.
        trunk: from `find_trunk`.
    """
    names = [signals.names[i] for i in trunk.layers]
    rows = list(trunk.layers)
    return GrowthPair(
        forward=fit_growth(np.asarray(signals.forward_rms)[rows], names),
        backward=fit_growth(np.asarray(signals.gradient_norms)[rows], names),
    )


def expected_growth(
    prediction: Prediction | None, trunk: Trunk, /
) -> tuple[Expected | None, Expected | None]:
    """What theory expects of both signals from the first to the last layer of a trunk.

    Args:
        prediction: from `predict`; None if there is no theory.
        trunk: from `find_trunk`.

    Returns:
        Two `Expected`, forward and backward, or None in place of either.
    """
    if prediction is None or len(trunk.layers) < 2:
        return None, None
    rows, between = list(trunk.layers), list(trunk.layers)[1:]
    rms = np.asarray(prediction.forward_rms)[rows]
    # Of a layer through which nothing comes theory expects zero: no growth is left.
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (np.asarray(prediction.forward_error)[rows] / rms)[[0, -1]]
        levels = np.log(rms)
        factors = np.log(np.asarray(prediction.gradient_factor)[between])
    # The gradient at the last layer is one; counted back, a layer multiplies it.
    norms = np.append(np.cumsum(factors[::-1])[::-1], 0.0)
    errors = np.asarray(prediction.gradient_error)[between]
    return (
        _expected(levels, np.hypot(*error)),
        _expected(norms, np.sqrt(np.sum(errors**2))),
    )


def _expected(logarithms: np.ndarray, error: float) -> Expected | None:
    if not (np.isfinite(logarithms).all() and math.isfinite(error)):
        return None
    growth = fit_growth(np.exp(logarithms - logarithms.max()))
    return Expected(float(logarithms[-1] - logarithms[0]), float(error), growth)
