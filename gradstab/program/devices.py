"""Along which axes of a mesh the numbers of a `jax.shard_map` differ between devices.

Types say that where they are checked, but for what all devices gather; without the
check nothing does. Here it is followed through the program: parts of what is sharded
differ, sums over an axis do not, and what is made of both differs.
"""

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.primitives import Kind
from gradstab.program.rewrite import counting, num_inside, programs_inside
from gradstab.program.walk import as_closed, called, evaluated

_NOTHING: frozenset[str] = frozenset()


def differing(program, given, notes: dict, /, *, first: int = 0) -> list[frozenset]:
    """For each result of a program the axes along which devices have other numbers.

    Copies that devices send one by one (``ppermute``) are taken for different numbers.

    Args:
        program: closed or open.
        given: the same for its inputs.
        notes: takes up the same for results of all numbered equations inside of it, by
            number and position.
        first: the number of its first equation.
    """

    def one(eqn, operands, start):
        sets = list(map(_as_set, operands))
        found = _of_equation(eqn, sets, start, notes)
        notes.update({(start, i): axes for i, axes in enumerate(found)})
        return found

    found = evaluated(as_closed(program), given, counting(one, first))
    return list(map(_as_set, found))


def _as_set(value):
    # Constants and literals are the same everywhere.
    return value if isinstance(value, frozenset) else _NOTHING


def _of_equation(eqn, sets, start, notes):
    if (body := _compat.inlined_body(eqn)) is not None:
        return differing(body, sets, notes, first=start)
    if (parts := _compat.scan_parts(eqn)) is not None:
        return _of_scan(parts, sets, start, notes)
    if _compat.cond_branches(eqn) is not None:
        inside = programs_inside(eqn, start)
        each = [differing(b, sets[1:], notes, first=n) for n, b in inside]
        return [sets[0].union(*some) for some in zip(*each, strict=True)]
    if (parts := _compat.shard_map_parts(eqn)) is not None:
        given = [s | _axes_in(p) for s, p in zip(sets, parts.in_specs, strict=True)]
        found = differing(parts.body, given, notes, first=start + 1)
        return [axes - parts.axis_names for axes in found]
    if (body := called(eqn)) is not None and num_inside(eqn) == 1:
        return differing(body, sets, {})
    union = _NOTHING.union(*sets)
    if primitives.is_a(eqn, Kind.COMBINES) and not eqn.params.get("axis_index_groups"):
        union = union - _axes_of(eqn)
    elif primitives.is_a(eqn, Kind.EXCHANGES) or primitives.is_named(eqn, "axis_index"):
        union = union | _axes_of(eqn)
    return [union] * len(eqn.outvars)


def _of_scan(parts, sets, start, notes):
    kept = slice(parts.num_consts, parts.num_consts + parts.num_carry)
    while True:
        found = differing(parts.body, sets, notes, first=start + 1)
        carry = [a | b for a, b in zip(sets[kept], found, strict=False)]
        if carry == sets[kept]:
            return found
        sets = [*sets[: kept.start], *carry, *sets[kept.stop :]]


def _axes_in(spec):
    """The axes of a mesh that a layout names."""
    parts = [part if isinstance(part, tuple) else (part,) for part in spec]
    return frozenset(name for part in parts for name in part if name is not None)


def _axes_of(eqn):
    """The axes of a mesh that an equation goes over."""
    found = eqn.params.get("axes", eqn.params.get("axis_name", ()))
    found = found if isinstance(found, tuple) else (found,)
    return frozenset(axis for axis in found if isinstance(axis, str))
