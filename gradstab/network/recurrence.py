"""Recurrent scans inside a layer: the state after each step and its gradient.

A scan is recurrent if data enter at every step. Its state is the floating part of its
carry, all parts together: (c, h) of an LSTM is one state of twice the width.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.network.layers import Block
from gradstab.network.program import evaluate, flatten_body


@dataclasses.dataclass(frozen=True, eq=False)
class RecurrentScan:
    """A recurrent scan of a block.

    Attributes:
        block: the block.
        eqn: the scan equation in it.
        parts: its body and counts.
        body: the body, flat.
        state: positions of the state in the carry.
    """

    block: Block
    eqn: _compat.JaxprEqn
    parts: _compat.ScanParts
    body: Any
    state: tuple[int, ...]

    def step(self, others, state):
        """One step: the state after it.

        Args:
            others: the step's other operands: constants, the rest of the carry, inputs.
            state: tuple of arrays, the state before.
        """
        consts, rest, xs = others
        carry = list(rest)
        for position, value in zip(self.state, state, strict=True):
            carry[position] = value
        results = _body(self, [*consts, *carry, *xs])
        return tuple(results[position] for position in self.state)


class Trajectory(NamedTuple):
    """What happens along the time axis, in order of time.

    Attributes:
        before: tuple of (steps, ...) states that enter each step.
        after: tuple of (steps, ...) states that leave it.
        gradients: tuple of (steps, ...) d loss / d state after it.
        others: per step the step's other operands, see `RecurrentScan.step`; constants
            without a step axis.
    """

    before: tuple
    after: tuple
    gradients: tuple
    others: tuple


def find_recurrent_scan(block, /) -> RecurrentScan | None:
    """The first recurrent scan of a block, or None."""
    data = set(block.in_vars)
    for eqn in block.eqns:
        moving = [not isinstance(v, _compat.Literal) and v in data for v in eqn.invars]
        if not any(moving):
            continue
        data.update(eqn.outvars)
        parts = _compat.scan_parts(eqn)
        if parts is None:
            continue
        first, last = parts.num_consts, parts.num_consts + parts.num_carry
        floating = [
            i - first
            for i in range(first, last)
            if jnp.issubdtype(_compat.dtype_of(eqn.outvars[i - first]), jnp.inexact)
        ]
        if floating and any(moving[last:]):
            body = flatten_body(parts.body)
            return RecurrentScan(block, eqn, parts, body, tuple(floating))
    return None


def follow_state(scan: RecurrentScan, context, data, cotangent, /) -> Trajectory:
    """Run a block and send a gradient back through the time steps of its scan.

    Args:
        scan: from `find_recurrent_scan`.
        context: values of the block's context variables.
        data: tuple of the data that enter the block.
        cotangent: d loss / d (data that leave the block).

    Returns:
        The states and their gradients. Cost: one gradient of the block.
    """
    shapes = [_compat.shape_of(scan.eqn.outvars[i]) for i in scan.state]
    dtypes = [_compat.dtype_of(scan.eqn.outvars[i]) for i in scan.state]
    taps = [
        jnp.zeros((scan.parts.length, *shape), dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    _, pull, (before, after, others) = jax.vjp(
        lambda taps: _run(scan, context, data, taps), taps, has_aux=True
    )
    (gradients,) = pull(cotangent)
    return Trajectory(before, after, tuple(gradients), others)


def _run(scan, context, data, taps):
    block = scan.block
    env = dict(zip(block.context_vars, context, strict=True))
    env.update(zip(block.in_vars, data, strict=True))
    seen = ((), (), ())
    for eqn in block.eqns:
        operands = [_read(env, atom) for atom in eqn.invars]
        if eqn is scan.eqn:
            results, seen = _run_scan(scan, operands, taps)
        else:
            results = evaluate(eqn, operands)
        env.update(zip(eqn.outvars, results, strict=True))
    return env[block.out_var], seen


def _run_scan(scan, operands, taps):
    parts = scan.parts
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    consts, carry, xs = operands[:first], operands[first:last], operands[last:]

    def step(carry, slices):
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
    seen = (before, after, (consts, carries, xs))
    return [*carry, *ys], seen


def _tapped_body(scan, operands, taps):
    """The body's results with a tap on every part of the state that leaves it.

    The parts of a state can depend on each other (h on c), and outputs on both. A tap
    on one part must reach the outputs but not the other parts. So the state is found
    first; then what follows from it is found again, with the tapped state given.
    """
    outvars = scan.body.jaxpr.outvars
    untapped = _body(scan, operands)
    given = {
        outvars[position]: untapped[position] + tap
        for position, tap in zip(scan.state, taps, strict=True)
    }
    env = dict(_compat.constants(scan.body))
    env.update(zip(scan.body.jaxpr.invars, operands, strict=True))
    env.update(given)
    for eqn in scan.body.jaxpr.eqns:
        results = evaluate(eqn, [_read(env, atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, results, strict=True))
        env.update(given)
    return [_read(env, atom) for atom in outvars]


def _body(scan, operands):
    env = dict(_compat.constants(scan.body))
    env.update(zip(scan.body.jaxpr.invars, operands, strict=True))
    run = _compat.program_function(
        list(env), scan.body.jaxpr.outvars, scan.body.jaxpr.eqns
    )
    return run(*env.values())


def _read(env, atom):
    return atom.val if isinstance(atom, _compat.Literal) else env[atom]
