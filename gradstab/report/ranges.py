"""Where a signal leaves the range of a dtype.

It overflows with its largest entry. It underflows when half of its entries that are not
zero are rounded to zero (Micikevicius et al. 2018, Mixed precision training, section
3.2): at half the smallest subnormal number of a dtype that keeps subnormals, at the
smallest normal one of the dtypes whose subnormals CPUs and TPUs take for zero.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradstab.network.underflow import last_before_zero, num_clear_steps
from gradstab.records import Growth, Range, Recurrence, root_mean_square
from gradstab.report.forecast import Course, course, crossing

DTYPES = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32")

# Those with the exponents of float32, in which they are computed.
_FLUSHED = ("bfloat16", "float32", "float64")

# A tie rounds to even, which is zero; this much above it is no other number.
_TIE = 1e-8


def ranges(
    layers: Sequence[Any],
    growth,
    /,
    *,
    dtypes: Sequence[str] = DTYPES,
    precision: str = "float32",
) -> tuple[Range, ...]:
    """Where the signals of a network leave the range of each dtype.

    What counts is the largest and the median magnitude of the activations, from the
    input on, and of their gradient, from the loss back. If they stay in range, the law
    of their growth says how deep the network would have to be. A gradient is
    proportional to the loss: one that starts out of range may only need another scale
    of the loss.

    Args:
        layers: records of the layers, in depth order, computed in a wider dtype.
        growth: forward and backward growth of the layers.
        dtypes: names of floating dtypes.
        precision: the dtype in which the layers were computed, whose own underflow
            shows in zeros.

    Returns:
        For each direction one `Range` per dtype.

    Examples:
        >>> from types import SimpleNamespace
        >>> from gradstab.records import Growth
        >>> names = ("rms", "max", "median")
        >>> halved = [
        ...     SimpleNamespace(
        ...         name=f"blocks.{i}",
        ...         **{f"forward_{name}": 0.5**i for name in names},
        ...         **{f"gradient_{name}": 1.0 for name in names},
        ...     )
        ...     for i in range(20)
        ... ]
        >>> forward = Growth(-math.log(2), 0.0, 0.5**19, law="exponential", depth=20)
        >>> backward = Growth(0.0, 0.0, 1.0, law="constant", depth=20)
        >>> growth = SimpleNamespace(forward=forward, backward=backward)
        >>> found = ranges(halved, growth, dtypes=["float8_e5m2", "bfloat16"])
        >>> [(end.direction, end.layer, end.depth) for end in found[:2]]
        [('forward', 'blocks.17', 18.0), ('forward', '', 128.0)]
    """
    names = [layer.name for layer in layers]
    forward, backward = (
        _Sizes(*(_column(layers, f"{side}_{name}") for name in _Sizes._fields))
        for side in ("forward", "gradient")
    )
    backward = _Sizes(*(column[::-1] for column in backward))
    return (
        *_journey(forward, names, growth.forward, "forward", dtypes, precision),
        *_journey(
            backward, names[::-1], growth.backward, "backward", dtypes, precision
        ),
    )


def ranges_along_time(
    recurrence: Recurrence, /, *, dtypes: Sequence[str] = DTYPES
) -> tuple[Range, ...]:
    """The same along the time steps of a recurrent layer, by the growth of its state.

    Args:
        recurrence: its record. Steps are counted from 0 and named by their number.
        dtypes: names of floating dtypes.

    Returns:
        For each direction one `Range` per dtype.
    """
    names = [str(step) for step in range(len(recurrence.state_rms))]
    norms = recurrence.gradient_norms
    rms = root_mean_square(norms, 1) / math.sqrt(recurrence.state_size)
    forward = _sizes(
        recurrence.state_rms, recurrence.state_max, recurrence.state_median
    )
    backward = _sizes(rms, recurrence.gradient_max, recurrence.gradient_median)
    backward = _Sizes(*(column[::-1] for column in backward))
    made = dtypes, recurrence.dtype
    return (
        *_journey(forward, names, recurrence.forward, "forward", *made),
        *_journey(backward, names[::-1], recurrence.backward, "backward", *made),
    )


class _Sizes(NamedTuple):
    """Three measures of size, in the order in which the signal travels."""

    rms: np.ndarray
    max: np.ndarray
    median: np.ndarray


def _column(layers: Sequence[Any], name: str) -> np.ndarray:
    return np.array([getattr(layer, name) for layer in layers], np.float64)


def _sizes(
    rms: np.ndarray, largest: np.ndarray | None, median: np.ndarray | None
) -> _Sizes:
    """Of a record without extremes the root mean square stands for them."""
    rms = np.asarray(rms, np.float64)
    pair = (rms if x is None else np.asarray(x, np.float64) for x in (largest, median))
    return _Sizes(rms, *pair)


def _journey(
    sizes: _Sizes,
    names: list[str],
    growth: Growth,
    direction: str,
    dtypes: Sequence[str],
    precision: str,
) -> list[Range]:
    """The ranges of one direction."""
    # A record of an older gradstab knows the root mean square alone.
    pair = (np.where(np.isnan(x), sizes.rms, x) for x in (sizes.max, sizes.median))
    top, middle = map(_levels, pair)
    middle[_cut_off(sizes.rms, precision)] = math.nan
    rms = _levels(sizes.rms)
    if growth.law == "exponential":
        # Near underflow the entries that are left do not stand for those that are not.
        clear = num_clear_steps(sizes.rms, precision)
        rate = -growth.rate if direction == "backward" else growth.rate
        top, middle, rms = (_continued(x, clear, rate) for x in (top, middle, rms))
    going = _course(rms, names, growth, direction == "backward")
    rising = going.of_largest(top, rms)
    falling = going._replace(start=float(middle[going.last]))
    ways = (top, rising), (middle, falling)
    return [_range(ways, names, direction, str(dtype)) for dtype in dtypes]


def _levels(sizes: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(sizes)


def _continued(levels: np.ndarray, clear: int, rate: float) -> np.ndarray:
    """The levels, from the clear ones on by their law."""
    if not 0 < clear < len(levels):
        return levels
    further = 1.0 + np.arange(len(levels) - clear)
    return np.append(levels[:clear], levels[clear - 1] + rate * further)


def _course(
    levels: np.ndarray, names: list[str], growth: Growth, backward: bool
) -> Course:
    """How a signal goes on from the last layer of the fit that it reaches."""
    order = slice(None, None, -1) if backward else slice(None)
    fitted = [names.index(name) for name in growth.layers[order]]
    first, last = (fitted[0], fitted[-1]) if fitted else (0, len(names) - 1)
    compared = levels[first : last + 1]
    compared = compared[np.isfinite(compared)]
    return course(compared, growth, last=last, backward=backward)


def _cut_off(sizes: np.ndarray, precision: str) -> np.ndarray:
    """Zeros that no underflow in the dtype of the analysis explains."""
    least = last_before_zero(precision)
    before, found = math.inf, np.zeros(len(sizes), bool)
    for place, size in enumerate(sizes):
        found[place] = size == 0 and before > least
        before = size or before
    return found


def _range(
    ways: tuple[tuple[np.ndarray, Course], ...],
    names: list[str],
    direction: str,
    dtype: str,
) -> Range:
    limits = jnp.finfo(dtype)
    (top, rising), (middle, falling) = ways
    high = crossing(top, rising, math.log(float(limits.max)), 1)
    low = crossing(middle, falling, _lost(limits, dtype), -1)
    end, found = ("overflow", high) if high.depth <= low.depth else ("underflow", low)
    earliest = found.earliest
    if math.isinf(found.depth):
        end, earliest = "", min(high.earliest, low.earliest)
    return Range(
        found.depth,
        dtype,
        direction,
        end,
        names[int(found.depth) - 1] if found.inside else "",
        extrapolated=not found.inside,
        earliest=earliest,
        latest=found.latest,
    )


def _lost(limits: np.finfo, dtype: str) -> float:
    """The logarithm of the number below which an entry becomes zero."""
    if dtype in _FLUSHED:
        return math.log(float(limits.smallest_normal))
    return math.log(float(limits.smallest_subnormal) / 2) + _TIE
