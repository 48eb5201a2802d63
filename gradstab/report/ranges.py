"""Where a signal leaves the range of a dtype.

The range ends at the smallest normal number, below which digits are lost one by one and
many devices round to zero, and at the largest finite one.
"""

import math

import jax.numpy as jnp
import numpy as np

from gradstab.records import Range

DTYPES = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32")

# A zero after anything larger than this did not get there by underflow.
_CUT_OFF = 1e-30


def ranges(layers, growth, /, *, dtypes=DTYPES) -> tuple[Range, ...]:
    """Where the signals of a network leave the range of each dtype.

    What counts is the root mean square entry of the activations, from the input on, and
    of their gradient, from the loss back. If it stays in range, the law of its growth
    says how deep the network would have to be. A gradient is proportional to the loss:
    one that starts out of range may only need another scale of the loss.

    Args:
        layers: records of the layers, in depth order, computed in a wider dtype.
        growth: forward and backward growth of the layers.
        dtypes: names of floating dtypes.

    Returns:
        For each direction one record per dtype.

    Examples:
        >>> from types import SimpleNamespace
        >>> from gradstab.records import Growth
        >>> halved = [
        ...     SimpleNamespace(name=f"blocks.{i}", forward_rms=0.5**i, gradient_rms=1)
        ...     for i in range(20)
        ... ]
        >>> forward = Growth(-math.log(2), 0.0, 0.5**19, law="exponential", depth=20)
        >>> backward = Growth(0.0, 0.0, 1.0, law="constant", depth=20)
        >>> growth = SimpleNamespace(forward=forward, backward=backward)
        >>> found = ranges(halved, growth, dtypes=["float16", "bfloat16"])
        >>> [(end.direction, end.layer, end.depth) for end in found[:2]]
        [('forward', 'blocks.15', 16.0), ('forward', '', 128.0)]
    """
    names = [layer.name for layer in layers]
    forward = [layer.forward_rms for layer in layers]
    backward = [layer.gradient_rms for layer in reversed(layers)]
    return (
        *_journey(forward, names, growth.forward, "forward", dtypes),
        *_journey(backward, names[::-1], growth.backward, "backward", dtypes),
    )


def ranges_along_time(recurrence, /, *, dtypes=DTYPES) -> tuple[Range, ...]:
    """The same along the time steps of a recurrent layer, by the growth of its state.

    Args:
        recurrence: its record. Steps are counted from 0 and named by their number.
        dtypes: names of floating dtypes.

    Returns:
        For each direction one record per dtype.
    """
    names = [str(step) for step in range(len(recurrence.state_rms))]
    size = math.sqrt(recurrence.state_size)
    norms = np.sqrt(np.mean(np.square(recurrence.gradient_norms / size), axis=1))
    forward, backward = recurrence.state_rms, norms[::-1]
    return (
        *_journey(forward, names, recurrence.forward, "forward", dtypes),
        *_journey(backward, names[::-1], recurrence.backward, "backward", dtypes),
    )


def _journey(sizes, names, growth, direction, dtypes):
    return [_range(sizes, names, growth, direction, str(dtype)) for dtype in dtypes]


def _range(sizes, names, growth, direction, dtype):
    limits = jnp.finfo(dtype)
    low, high = float(limits.smallest_normal), float(limits.max)
    before = math.inf
    for depth, (size, name) in enumerate(zip(sizes, names, strict=True), 1):
        cut_off = size == 0 and before > _CUT_OFF
        if (size < low and not cut_off) or size > high:
            end = "overflow" if size > high else "underflow"
            return Range(float(depth), dtype, direction, end, name)
        before = size or before
    return _extrapolated(sizes, names, growth, direction, dtype, (low, high))


def _extrapolated(sizes, names, growth, direction, dtype, limits):
    """From the last layer of the fit that the signal reaches."""
    last = len(sizes) - 1
    if growth.layers:
        last = names.index(growth.layers[-1 if direction == "forward" else 0])
    rate = growth.rate if direction == "forward" else -growth.rate
    if growth.law in ("constant", "unknown") or not rate or not sizes[last] > 0:
        return Range(math.inf, dtype, direction, "", "", extrapolated=True)
    end = "overflow" if rate > 0 else "underflow"
    distance = math.log(limits[rate > 0]) - math.log(sizes[last])
    # The first layer beyond the limit, where rounding cannot tell: beyond a tie.
    depth = last + 2 + math.floor(_layers(growth, distance / rate) + 1e-9)
    return Range(float(depth), dtype, direction, end, "", extrapolated=True)


def _layers(growth, distance):
    """How many more layers the law takes to go on by a distance on its own axis."""
    here = growth.depth + growth.offset
    if growth.law == "power":
        return here * math.expm1(min(distance, 600))
    if growth.law == "exp-sqrt":
        return (math.sqrt(here) + distance) ** 2 - here
    return distance
