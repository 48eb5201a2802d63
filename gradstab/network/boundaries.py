"""Boundaries that a user draws: where a program is cut, even across skips.

Between two equations of a program several arrays can be live: the trunk and the skips
of a U-Net. At a boundary all of them are packed into one array, example by example, and
unpacked behind it. The program computes what it did, to the last bit, and the packed
array is a variable that every path passes through: layers end and begin there like
anywhere else.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gradstab import _compat, _tree
from gradstab.errors import UserTypeError, UserValueError
from gradstab.network import flow as flows
from gradstab.program.trace import Program
from gradstab.program.walk import environment, outputs, retraced, walk

_OURS = "gradstab "
_MARK = f"{_OURS}boundary"
_PACKED = f"{_OURS}boundary of several arrays "


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """Regular expressions, and the parameter paths that they are about.

    Attributes:
        patterns: compiled regular expressions.
        paths: dotted path of every parameter leaf.
    """

    patterns: tuple[re.Pattern, ...]
    paths: tuple[str, ...]

    def group(self, leaves: Collection[Any], /) -> str | None:
        """The part of these parameters' paths that an expression matches."""
        found = (p.search(self.paths[i]) for i in sorted(leaves) for p in self.patterns)
        return next((match.group() for match in found if match), None)

    def names(self, eqn: _compat.JaxprEqn, /) -> bool:
        """Whether the equation gives a variable a name that an expression matches."""
        name = _compat.given_name(eqn)
        return name is not None and any(p.fullmatch(name) for p in self.patterns)


def as_boundaries(boundaries: Any, program: Program, /) -> Boundaries:
    """Compile what a user gives.

    Args:
        boundaries: a regular expression or several.
        program: from `trace_program`.

    Raises:
        TypeError: if it is none of these.
        ValueError: if an expression is none, or matches no path and no name.
    """
    given = (boundaries,) if isinstance(boundaries, str) else tuple(boundaries)
    if not all(isinstance(pattern, str) for pattern in given):
        raise UserTypeError(
            f"boundaries must be regular expressions, got {boundaries!r}"
        )
    try:
        patterns = tuple(map(re.compile, given))
    except re.error as error:
        raise UserValueError(f"boundaries={boundaries!r}: {error}") from error
    names = sorted(set(_names(program.eqns)))
    for pattern in patterns:
        matched = any(map(pattern.search, program.param_names))
        if not matched and not any(map(pattern.fullmatch, names)):
            raise UserValueError(
                f"boundaries: {pattern.pattern!r} matches no parameter path "
                f"({_some(program.param_names)}) and no name given by checkpoint_name "
                f"({_some(names)})"
            )
    return Boundaries(patterns, tuple(program.param_names))


def is_boundary(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether a layer must end where this equation ends."""
    return (_compat.given_name(eqn) or "").startswith(_MARK)


def packs_several(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether the equation makes one array of several, at a boundary."""
    return (_compat.given_name(eqn) or "").startswith(_PACKED)


def trunk_among(eqn: _compat.JaxprEqn, /) -> int | None:
    """How many arrays the equation packs, if but one of them is a trunk."""
    number = (_compat.given_name(eqn) or "").removeprefix(_PACKED)
    return int(number) if packs_several(eqn) and number else None


def divide(
    closed: _compat.ClosedJaxpr,
    flow: flows.Flow,
    out_var,
    boundaries: Boundaries,
    num_examples: int,
    /,
):
    """The program with all that is live packed into one array at every boundary.

    Args:
        closed: a flat program, or a flat body of a scan.
        flow: its flow.
        out_var: where the data leave it.
        boundaries: from `as_boundaries`.
        num_examples: length of the example axis.

    Returns:
        A flat program of the same inputs and outputs. Cost: a trace.
    """
    eqns = flows.needed_equations(closed.jaxpr.eqns, out_var, flow)
    live = live_after(eqns, flow, out_var)
    ends = _named_ends(eqns, boundaries) | _group_ends(eqns, flow, boundaries, live)
    # Behind the last equation nothing is left to be cut off.
    ends = [i for i in ends if i < len(eqns) - 1 and live[i]]
    return cut_behind(closed, {id(eqns[i]): live[i] for i in ends}, num_examples)


def cut_behind(closed: _compat.ClosedJaxpr, packs, num_examples: int, /):
    """The program with these variables packed into one behind these equations.

    Args:
        closed: a flat program, or a flat body of a scan.
        packs: by the id of an equation the variables, all that are live there.
        num_examples: length of the example axis.

    Returns:
        A flat program of the same inputs and outputs. Cost: a trace, if there is
        something to pack.
    """
    if not packs:
        return closed

    def run(*values):
        env = environment(closed, values)

        def pack(eqn: _compat.JaxprEqn):
            held = packs.get(id(eqn), ())
            if held:
                passed = _passed([env[v] for v in held], num_examples)
                env.update(zip(held, passed, strict=True))

        return outputs(closed, walk(closed.jaxpr.eqns, env, after=pack))

    return retraced(closed, run)


def packed(arrays, num_examples: int, /, *, still: int = 0):
    """One array that holds several, example by example; the array itself if it is one.

    Args:
        arrays: the arrays, of any floating dtypes.
        num_examples: length of the example axis.
        still: how many of them pass a whole stack of layers unchanged.

    Returns:
        Shape ``(num_examples, entries of one example)``; one row for all where an array
        does not have the examples in front.
    """
    if len(arrays) < 2:
        return checkpoint_name(arrays[0], _MARK)
    num = num_examples if _are_apart(arrays, num_examples) else 1
    rows = [_tree.real_view(array).reshape(num, -1) for array in arrays]
    wide = _tree.widest(*(row.dtype for row in rows))
    whole = jnp.concatenate([row.astype(wide) for row in rows], axis=1)
    trunk = still and still == len(arrays) - 1
    return checkpoint_name(whole, f"{_PACKED}{len(arrays)}" if trunk else _PACKED)


def unpacked(whole, shapes, num_examples: int, /) -> list:
    """The arrays that `packed` put together.

    Args:
        whole: from `packed`.
        shapes: their shapes and dtypes.
        num_examples: length of the example axis.
    """
    if len(shapes) < 2:
        return [whole]
    rows = num_examples if _are_apart(shapes, num_examples) else 1
    found, start = [], 0
    for like in shapes:
        parts = 2 if jnp.issubdtype(like.dtype, jnp.complexfloating) else 1
        size = parts * math.prod(like.shape) // rows
        found.append(_tree.from_real(whole[:, start : start + size], like))
        start += size
    return found


def lead_with_examples(variable: _compat.Var, num_examples: int, /) -> bool:
    """Whether the leading axis of a variable is that of the examples."""
    return _compat.shape_of(variable)[:1] == (num_examples,)


def _are_apart(arrays, num_examples: int):
    return all(array.shape[:1] == (num_examples,) for array in arrays)


def _passed(arrays, num_examples: int):
    """The arrays, by way of one array that holds them all."""
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    return unpacked(packed(arrays, num_examples), shapes, num_examples)


def live_after(
    eqns: Sequence[_compat.JaxprEqn], flow: flows.Flow, out_var, /
) -> list[tuple]:
    """For each equation the data that a later one needs, in order of their making."""
    live, needed = [], {out_var: None}
    for eqn in reversed(eqns):
        live.append(tuple(needed))
        for variable in eqn.outvars:
            needed.pop(variable, None)
        needed.update({v: None for v in eqn.invars if flow.is_data(v)})
    made = {v: i for i, eqn in enumerate(eqns) for v in eqn.outvars}
    return [tuple(sorted(vs, key=lambda v: made.get(v, -1))) for vs in live[::-1]]


def _named_ends(eqns: Sequence[_compat.JaxprEqn], boundaries: Any):
    return {i for i, eqn in enumerate(eqns) if boundaries.names(eqn)}


def _group_ends(
    eqns: Sequence[_compat.JaxprEqn], flow: flows.Flow, boundaries: Any, live
):
    """Where one group of parameters ends and another begins: least is live there."""
    products = [
        (i, boundaries.group(leaves))
        for i, eqn in enumerate(eqns)
        if (leaves := flows.contracts_parameter(eqn, flow))
    ]
    ends = set()
    for (start, before), (end, after) in itertools.pairwise(products):
        if before == after:
            continue
        uses = [
            (i, boundaries.group(frozenset().union(*map(flow.params_of, eqn.invars))))
            for i, eqn in enumerate(eqns[start : end + 1], start)
            if any(map(flow.params_of, eqn.invars))
        ]
        first = max(i for i, group in uses[:-1] if group == before)
        last = min(i for i, group in uses if group == after and i > first)
        ends.add(min(range(first, last), key=lambda i: (_entries(live[i]), -i)))
    return ends


def _entries(variables):
    return sum(math.prod(_compat.shape_of(v)) for v in variables)


def _names(eqns: Sequence[_compat.JaxprEqn]):
    """Names given by `checkpoint_name`, those inside scans among them.

    Bodies that are never entered (branches, unbounded loops) could not be cut there.
    """
    for eqn in eqns:
        name = _compat.given_name(eqn)
        if name is not None and not name.startswith(_OURS):
            yield name
        if _compat.inlined_body(eqn) is not None or _compat.scan_parts(eqn) is not None:
            for body in _compat.inner_programs(eqn):
                yield from _names(body.eqns)


def _some(names: Sequence[str]):
    names = list(names)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"
