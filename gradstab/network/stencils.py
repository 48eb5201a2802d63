"""Which entries of the data that leave a block depend on which that enter.

An entry of an image depends on the entries within a window of the image before, whose
size convolutions and poolings add up to. This is read off the block's equations; what
they do to numbers does not matter. So it holds for derivatives of any order too.
"""

from typing import NamedTuple

from gradstab import _compat
from gradstab.network.activations import is_elementwise
from gradstab.program import reads


class Stencil(NamedTuple):
    """Windows of the array that enters a block, by axis of the one that leaves.

    Attributes:
        in_shape: of the array that enters.
        out_shape: of the array that leaves.
        reaches: for each axis of the latter the axis of the former on which it depends
            in part, and how; None where it may depend on all of it.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    reaches: tuple[reads.Reach | None, ...]


def find_stencil(block, /) -> Stencil | None:
    """What a block reads of the array that enters, for every entry that leaves.

    Args:
        block: a `Block`.

    Returns:
        None if several arrays enter, or if every entry may depend on all of them.
        Nothing is evaluated.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gradstab.network import find_layers
        >>> def smooth(w, x):  # (examples, length, channels)
        ...     return jax.lax.conv_general_dilated(
        ...         x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        >>> network = find_layers(smooth, jnp.ones((3, 2, 4)), (jnp.ones((1, 9, 2)),))
        >>> find_stencil(network.blocks[0]).reaches[1]
        Reach(axis=1, stride=1, low=-1, high=1)
    """
    if len(block.in_vars) != 1:
        return None
    (x,) = block.in_vars
    shape = _compat.shape_of(x)
    known = {x: tuple(map(reads.Reach, range(len(shape))))}
    for eqn in block.eqns:
        _spread(known, eqn)
    reaches = known.get(block.out_var, ())
    if not any(reach is not None and shape[reach.axis] > 1 for reach in reaches):
        return None
    return Stencil(shape, _compat.shape_of(block.out_var), reaches)


def _spread(known, eqn: _compat.JaxprEqn):
    """Adds what the results of an equation depend on, if they depend on the data."""
    moving = [
        (i, known[v])
        for i, v in enumerate(eqn.invars)
        if not isinstance(v, _compat.Literal) and v in known
    ]
    if not moving:
        return
    for out in eqn.outvars:
        found = [_of_operand(eqn, i, before, out) for i, before in moving]
        known[out] = tuple(map(_joined, zip(*found, strict=True)))


def _of_operand(eqn: _compat.JaxprEqn, position: int, before, out):
    """How the axes of a result depend on the data, by way of one operand."""
    to, shape = _compat.shape_of(out), _compat.shape_of(eqn.invars[position])
    if is_elementwise(eqn) and len(shape) == len(to):
        # An axis of length one is repeated as often as need be.
        pairs = zip(before, shape, to, strict=True)
        return tuple(reach if size == n else None for reach, size, n in pairs)
    if len(eqn.outvars) != 1:
        return (None,) * len(to)
    return tuple(_after(before, step) for step in reads.reads(eqn, position))


def _after(before, step):
    if step is None or before[step.axis] is None:
        return None
    return step.through(before[step.axis])


def _joined(reaches):
    """What is read by way of any operand."""
    first = reaches[0]
    if any(r is None or r[:2] != first[:2] for r in reaches):
        return None
    low, high = min(r.low for r in reaches), max(r.high for r in reaches)
    return first._replace(low=low, high=high)
