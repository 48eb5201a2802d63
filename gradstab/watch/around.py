"""Results of a program that are watched, and what runs them several times."""

from typing import Any, NamedTuple

from gradstab import _compat
from gradstab.program.devices import differing
from gradstab.program.rewrite import Ring, numbered


class Spot(NamedTuple):
    """A result of a numbered equation."""

    number: int
    position: int


class Around(NamedTuple):
    """What runs a spot several times, and what is there.

    Attributes:
        rings: scans and axes of meshes, the outermost first.
        dtype: of the array.
        copies: axes of meshes along which all devices have the same numbers.
        partial: those of them along which each device has a part of the gradient.
        varying: axes of meshes around the whole loss along which the array varies.
        examples: length of the leading axis, if what lies on it is measured apart.
    """

    rings: tuple[Ring, ...]
    dtype: Any
    copies: frozenset = frozenset()
    partial: frozenset = frozenset()
    varying: frozenset = frozenset()
    examples: int | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many times each of the rings runs it."""
        return tuple(ring.length for ring in self.rings)


def all_around(closed, spots, /, *, examples) -> dict[Spot, Around]:
    """What runs each of the spots several times.

    Args:
        closed: the program.
        spots: in it.
        examples: whether what lies on the leading axis is measured apart.
    """
    equations = {one.number: one for one in numbered(closed)}
    notes: dict = {}
    if any(r.axis for spot in spots for r in equations[spot.number].around):
        differing(closed, [frozenset()] * len(closed.jaxpr.invars), notes)
    known = notes, examples
    return {spot: _around(equations[spot.number], spot, *known) for spot in spots}


def _around(one, spot, notes, examples):
    variable = one.eqn.outvars[spot.position]
    shape = _compat.shape_of(variable)
    axes = frozenset(ring.axis for ring in one.around if ring.axis)
    typed = all(ring.typed for ring in one.around)
    varying = _compat.varying(variable)
    copies = axes - notes.get(tuple(spot), frozenset())
    return Around(
        rings=one.around,
        dtype=_compat.dtype_of(variable),
        copies=copies,
        partial=copies & varying if typed else copies,
        varying=varying - axes,
        examples=shape[0] if examples and shape else None,
    )
