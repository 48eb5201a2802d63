"""Recurrent scans inside a layer: the state after each step and its gradient.

A scan is recurrent if data enter at every step. Its state is the floating part of its
carry that has an example axis, all parts together: (c, h) of an LSTM is one state of
twice the width. If no part has one, it is the part that depends on the data: one joint
state of the whole batch.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab.network.blocks import Block, Context
from gradstab.program.cache import Cache
from gradstab.program.trace import flatten_body
from gradstab.program.walk import environment, evaluate, read, split_operands, walk


@dataclasses.dataclass(frozen=True, eq=False)
class RecurrentScan:
    """A recurrent scan of a block.

    Attributes:
        block: the block.
        eqn: the scan equation in it.
        parts: its body and counts.
        body: the body, flat.
        state: positions of the state in the carry.
        joint: whether the state has no example axis: it is that of the whole batch.
        programs: what was compiled for it once.
    """

    block: Block
    eqn: _compat.JaxprEqn
    parts: _compat.ScanParts
    body: Any
    state: tuple[int, ...]
    joint: bool = False
    programs: Cache = dataclasses.field(default_factory=Cache, init=False, repr=False)

    @property
    def eqns(self):
        """The scan equation."""
        return (self.eqn,)

    def step(self, others, state: Any):
        """One step: the state after it.

        Args:
            others: the step's other operands, from `Trajectory.operands`.
            state: tuple of arrays, the state before.
        """
        consts, carry, xs = others
        carry = list(carry)
        for position, value in zip(self.state, state, strict=True):
            carry[position] = value
        env = _body(self, [*consts, *carry, *xs])
        outvars = self.body.jaxpr.outvars
        return tuple(read(env, outvars[position]) for position in self.state)


class Trajectory(NamedTuple):
    """What happens along the time axis, in order of time.

    Attributes:
        before: tuple of (steps, ...) states that enter each step.
        after: tuple of (steps, ...) states that leave it.
        gradients: tuple of (steps, ...) d loss / d state after it.
        consts: the scan's constants, without a step axis.
        carries: list of (steps, ...) carries that enter each step, state included.
        xs: list of (steps, ...) inputs of each step.
    """

    before: Any
    after: Any
    gradients: Any
    consts: Any
    carries: Any
    xs: Any

    def operands(self, step, /):
        """Constants, carry and inputs of one step, for `RecurrentScan.step`."""
        carries = [array[step] for array in self.carries]
        return self.consts, carries, [array[step] for array in self.xs]


def find_recurrent_scans(
    block: Block, num_examples: int, /
) -> tuple[RecurrentScan, ...]:
    """The recurrent scans of a block, in the order of evaluation.

    Args:
        block: the block.
        num_examples: length of the example axis, by which a state is known.
    """
    found = []
    # Without data that enter, what moves is the integers that pick rows.
    data = set(block.in_vars or filter(_is_integer, block.varying_vars))
    for eqn in block.eqns:
        moving = [_is_in(v, data) for v in eqn.invars]
        if not any(moving):
            continue
        data.update(eqn.outvars)
        parts = _compat.scan_parts(eqn)
        if parts is None or not any(moving[parts.num_consts + parts.num_carry :]):
            continue
        body = flatten_body(parts.body)
        floating = [
            position
            for position, v in enumerate(eqn.outvars[: parts.num_carry])
            if jnp.issubdtype(_compat.dtype_of(v), jnp.inexact)
        ]
        shapes = [_compat.shape_of(v)[:1] for v in eqn.outvars]
        state = tuple(p for p in floating if shapes[p] == (num_examples,))
        joint = not state
        if joint:
            reached = _reached(body, parts, moving)
            state = tuple(p for p in floating if reached[p])
        if state:
            found.append(RecurrentScan(block, eqn, parts, body, state, joint))
    return tuple(found)


def _reached(body: _compat.ClosedJaxpr, parts: _compat.ScanParts, moving):
    """Which parts of the carry the data reach, at the first step or a later one."""
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    moving = list(moving)
    for _ in range(parts.num_carry + 1):  # a step reaches one more part, or none
        pairs = zip(body.jaxpr.invars, moving, strict=True)
        data = {variable for variable, moves in pairs if moves}
        for eqn in body.jaxpr.eqns:
            if any(_is_in(v, data) for v in eqn.invars):
                data.update(eqn.outvars)
        carry = [_is_in(v, data) for v in body.jaxpr.outvars[: parts.num_carry]]
        pairs = zip(moving[first:last], carry, strict=True)
        moving[first:last] = [before or after for before, after in pairs]
    return moving[first:last]


def _is_in(atom: _compat.Var | _compat.Literal, variables):
    return not isinstance(atom, _compat.Literal) and atom in variables


def follow_state(
    scan: RecurrentScan,
    context: Context,
    data: Sequence[jax.Array],
    cotangent: jax.Array,
    /,
):
    """Run a block and send a gradient back through the time steps of its scan.

    Args:
        scan: from `find_recurrent_scans`.
        context: the block's context.
        data: tuple of the data that enter the block.
        cotangent: d loss / d (data that leave the block).

    Returns:
        A `Trajectory`: the states and their gradients. The parts of a state are taken
        for independent: d loss / d c of an LSTM holds h of the same step fixed. Cost:
        one gradient of the block.
    """
    variables = [scan.eqn.outvars[i] for i in scan.state]
    taps = [
        jnp.zeros((scan.parts.length, *_compat.shape_of(v)), _compat.dtype_of(v))
        for v in variables
    ]
    _, pull, (consts, moving) = jax.vjp(
        lambda taps: _run(scan, context, data, taps), taps, has_aux=True
    )
    (gradients,) = pull(cotangent)
    moving = (*moving, tuple(gradients))
    if scan.parts.reverse:
        moving = jax.tree.map(lambda array: array[::-1], moving)
    before, after, carries, xs, gradients = moving
    return Trajectory(before, after, gradients, consts, carries, xs)


def _run(scan: RecurrentScan, context: Context, data: Sequence[jax.Array], taps: Any):
    block = scan.block
    seen: Any = (None, ())

    def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]):
        nonlocal seen
        if eqn is not scan.eqn:
            return evaluate(eqn, operands)
        results, seen = _run_scan(scan, operands, taps)
        return results

    env = walk(block.eqns, block.environment(context, data), rule)
    return env[block.out_var], seen


def _run_scan(scan: RecurrentScan, operands: Sequence[Any], taps: Any):
    parts = scan.parts
    consts, carry, xs = split_operands(parts, operands)

    def step(carry: Any, slices):
        xs, taps = slices
        results = _tapped_body(scan, [*consts, *carry, *xs], taps)
        following, ys = results[: parts.num_carry], results[parts.num_carry :]
        before = tuple(carry[i] for i in scan.state)
        after = tuple(following[i] for i in scan.state)
        return following, (ys, before, after, list(carry))

    # Taps and records lie in order of the steps' slices, like xs and ys.
    carry, (ys, before, after, carries) = jax.lax.scan(
        step, carry, (xs, taps), length=parts.length, reverse=parts.reverse
    )
    return [*carry, *ys], (consts, (before, after, carries, xs))


def _tapped_body(scan: RecurrentScan, operands: Sequence[Any], taps: Any):
    """The body's results with a tap on every part of the state that leaves it.

    The parts of a state can depend on each other (h on c), and outputs on both. A tap
    on one part must reach the outputs but not the other parts. So the state is found
    first; then what follows from it is found again, with the tapped state given. What
    does not follow from it is not: drawing random numbers again would reuse their key.
    """
    outvars = scan.body.jaxpr.outvars
    made = {v for eqn in scan.body.jaxpr.eqns for v in eqn.outvars}
    env = _body(scan, operands)
    results, given = {}, {}
    for position, tap in zip(scan.state, taps, strict=True):
        variable = outvars[position]
        results[position] = read(env, variable) + tap
        # A part that only hands an input on is no part of what this step computes.
        if not isinstance(variable, _compat.Literal) and variable in made:
            given.setdefault(variable, results[position])
    env.update(given)
    changed, following = set(given), []
    for eqn in scan.body.jaxpr.eqns:
        if any(not isinstance(v, _compat.Literal) and v in changed for v in eqn.invars):
            following.append(eqn)
            changed.update(eqn.outvars)
    walk(following, env, after=lambda eqn: env.update(given))
    return [results[i] if i in results else read(env, v) for i, v in enumerate(outvars)]


def _body(scan: RecurrentScan, operands: Sequence[Any]):
    """The values of all variables of the body."""
    operands = _tree.fresh_keys(operands)  # steps are run again, with equal draws
    return walk(scan.body.jaxpr.eqns, environment(scan.body, operands))


def _is_integer(variable: _compat.Var):
    return jnp.issubdtype(_compat.dtype_of(variable), jnp.integer)
