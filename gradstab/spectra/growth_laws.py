r"""The laws of growth that are tried, as curves over the layers.

A network does not begin at its law: lengths relax to their fixed point first, and the
steps with them. So a constant and an exponential may begin with steps that die out like
:math:`\exp(-l / \tau)` (Schoenholz et al. 2017), and a power counts its layers from
:math:`l = -d`: the length of a critical tanh network is :math:`1 / (2 (l + d))`, with d
given by the length of its input.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Shorter sequences do not show their bend.
_BENT_STEPS = 8

# How far offsets and transients reach, in layers, and from where on in shares of depth:
# critical tanh networks of inputs down to a mean square of 0.1 have offsets up to five.
_LONG_OFFSET = 5.0
_LONG_SHARE = 12

# As many values of a shape are tried before the search closes in on the best.
_NUM_SHAPES = 24


class Law(NamedTuple):
    """Curves g with as many coefficients, and the values that their shape may take.

    ``curves(layer, shapes)`` has shape (shapes, layers, curves). The first curve is the
    law's own, but for a constant, which has none: what there is, is its transient's.
    """

    name: str
    curves: Callable
    num_curves: int = 1
    shapes: np.ndarray = np.zeros(1)

    @property
    def shaped(self):
        """Whether the curves have a shape to be found: an offset or a length."""
        return len(self.shapes) > 1


def laws_for(layer: np.ndarray, from_end: bool) -> list[Law]:
    """The laws that a sequence of norms may follow.

    Args:
        layer: (layers,) their positions, ascending.
        from_end: whether a transient may be at the last layer too.
    """
    num = len(layer) - 1
    laws = [
        Law("constant", _nothing, 0),
        Law("exponential", _line),
        Law("power", _shifted(np.log)),
        Law("exp-sqrt", _shifted(np.sqrt)),
    ]
    if num < _BENT_STEPS:
        return laws
    # A law is known by its bend: a power that begins beyond a third of the network is
    # straight, and a transient of more than a sixth of it may as well be a bent law. In
    # a deep network either could pass for an exponential of the root: at 60 residual
    # tanh layers a power with an offset of 10 to 17 fits no worse.
    shifts = np.geomspace(0.1, _longest(num, num / 3), _NUM_SHAPES)
    lengths = np.geomspace(0.5, _longest(num, num / 6), _NUM_SHAPES)
    transients = [_transient, _last_transient] if from_end else [_transient]
    return [
        *laws,
        *(law._replace(shapes=shifts) for law in laws[2:]),
        *(Law("constant", curve, 1, lengths) for curve in transients),
        *(Law("exponential", _and_line(curve), 2, lengths) for curve in transients),
    ]


def _longest(num: int, share: float):
    """A share of the steps, above five of them no more than one in twelve."""
    return max(min(share, _LONG_OFFSET), num / _LONG_SHARE)


def _nothing(layer: np.ndarray, shapes: np.ndarray):
    return np.zeros((len(shapes), len(layer), 0))


def _line(layer: np.ndarray, shapes: np.ndarray):
    return np.broadcast_to(layer[:, None], (len(shapes), len(layer), 1))


def _shifted(g):
    return lambda layer, shifts: g(layer + shifts[:, None])[..., None]


def _transient(layer: np.ndarray, lengths: np.ndarray):
    """Sums of the steps 1, q, q^2, ... with q = exp(-1 / length)."""
    q = np.exp(-1 / lengths)[:, None]
    return ((1 - q ** (layer - layer[0])) / (1 - q))[..., None]


def _last_transient(layer: np.ndarray, lengths: np.ndarray):
    from_last = _transient((layer[-1] - layer)[::-1], lengths)
    return -from_last[:, ::-1]


def _and_line(transient):
    def curves(layer: np.ndarray, lengths: np.ndarray):
        both = _line(layer, lengths), transient(layer, lengths)
        return np.concatenate(both, axis=2)

    return curves
