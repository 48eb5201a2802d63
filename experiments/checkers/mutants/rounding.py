"""Classes 21 and 26 to 28: ranges of the input, rounding, overwritten inputs."""

import jax
import jax.numpy as jnp

from experiments.checkers.cases import WIDE
from experiments.checkers.mutants.make import mutant
from experiments.checkers.operations import (
    OPERATIONS,
    normalised,
)


def _stretched_inputs(f):
    """The gradient thirty times further out, where the mistake shows."""
    return lambda x, *rest: f(30 * x, *rest)


def _beyond(limit, change):
    """Right within a limit of the input, wrong where an entry is beyond it."""

    def wrong(args, w, g):
        return (jnp.where(jnp.abs(args[0]) > limit, change(g[0], w), g[0]), *g[1:])

    return wrong


def _from_first_row(f):
    """Statistics of the first row used for all."""

    def wrong(args, w, g):
        x, *rest = args
        first = jnp.broadcast_to(x[:1], x.shape)
        return (jax.vjp(f, first, *rest)[1](w)[0], *g[1:])

    return wrong


INPUTS = [
    mutant(
        21,
        name,
        f"wrong beyond {limit}",
        _beyond(limit, change),
        view=_stretched_inputs,
    )
    for name, limit, change in (
        ("gelu", 8, lambda g, w: 0.9 * w),
        ("softmax", 12, lambda g, w: g + 0.1 * w),
        ("dense", 10, lambda g, w: 0 * g),
        ("layer norm", 10, lambda g, w: 1.1 * g),
    )
] + [
    mutant(
        21,
        name,
        "statistics of the first row for all",
        _from_first_row(OPERATIONS[name].f),
    )
    for name in ("layer norm", "rms norm", "softmax")
]


def _at_rounded(f):
    """The gradient at inputs rounded to bfloat16."""

    def wrong(args, w, g):
        near = [a.astype(jnp.bfloat16).astype(a.dtype) for a in args]
        return jax.vjp(f, *near)[1](w)

    return wrong


ROUNDED = [
    mutant(
        26,
        name,
        "inputs kept in bfloat16",
        _at_rounded(OPERATIONS[name].f),
        dtypes=WIDE,
    )
    for name in ("tanh", "layer norm", "exp", "dense")
]


def _added_in_bfloat16(rows):
    """The sum over the first axis, as a bfloat16 accumulator forms it."""

    def add(total, row):
        return total + row.astype(jnp.bfloat16), None

    start = jnp.zeros(rows.shape[1:], jnp.bfloat16)
    return jax.lax.scan(add, start, rows)[0].astype(rows.dtype)


def _bias_in_bfloat16(args, w, g):
    return (*g[:2], _added_in_bfloat16(w))


def _kernel_in_bfloat16(args, w, g):
    x = args[0]
    return g[0], _added_in_bfloat16(x[:, :, None] * w[:, None, :]), *g[2:]


def _gain_in_bfloat16(args, w, g):
    return (g[0], _added_in_bfloat16(w * normalised(args[0])), *g[2:])


ACCUMULATED = [
    mutant(27, "dense", "bias summed in bfloat16", _bias_in_bfloat16, dtypes=WIDE),
    mutant(
        27,
        "square dense",
        "kernel summed in bfloat16",
        _kernel_in_bfloat16,
        dtypes=WIDE,
    ),
    mutant(27, "layer norm", "gain summed in bfloat16", _gain_in_bfloat16, dtypes=WIDE),
]


def _at_the_output(f):
    """The input was overwritten by the output before it was read."""

    def wrong(args, w, g):
        _, *rest = args
        return (jax.vjp(f, f(*args), *rest)[1](w)[0], *g[1:])

    return wrong


OVERWRITTEN = [
    mutant(28, name, "the saved input overwritten", _at_the_output(OPERATIONS[name].f))
    for name in ("silu", "sin", "rms norm", "softmax")
]


MUTANTS = [
    *INPUTS,
    *ROUNDED,
    *ACCUMULATED,
    *OVERWRITTEN,
]
