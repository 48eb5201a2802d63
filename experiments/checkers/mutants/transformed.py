"""Classes 23, 30 to 38 and 50: mistakes that depend on how the rule is called."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jax.lax import stop_gradient

from experiments.checkers import points
from experiments.checkers.cases import WIDE
from experiments.checkers.mutants.make import mutant, only
from experiments.checkers.operations import (
    OPERATIONS,
    attention,
)
from experiments.checkers.rules import value_of


def _summed(f):
    """The gradient for the cotangent that a plain sum sends back."""
    return lambda *args: jnp.sum(f(*args))


def _unless_varied(args, w, g):
    """Twice the gradient if all entries of the cotangent are one number."""
    equal = jnp.all(w == jnp.ravel(w)[0])
    return tuple(jnp.where(equal, 2 * a, a) if a.dtype == w.dtype else a for a in g)


LAYOUTS = [
    mutant(
        23, name, "a broadcast cotangent counted twice", _unless_varied, view=_summed
    )
    for name in ("tanh", "softplus", "dense", "rms norm")
]


def _from_the_second_call():
    """Right at the first call, a tenth too large ever after."""
    calls = []

    def factor(_):
        calls.append(1)
        return np.float32(1.0 if len(calls) == 1 else 1.1)

    def wrong(args, w, g):
        scale = jax.pure_callback(
            factor,
            jax.ShapeDtypeStruct((), jnp.float32),
            jnp.sum(w),
            vmap_method="sequential",
        )
        return tuple(scale.astype(a.dtype) * a for a in g)

    return wrong


STATES = [
    mutant(
        30,
        name,
        "a tenth too large from the second call on",
        _from_the_second_call(),
        dtypes=WIDE,
    )
    for name in ("tanh", "softmax", "bilinear")
]


def _with_constant(f, held):
    """First derivatives right; of second ones the part through some arguments lost."""

    def rule(_):
        made = jax.custom_vjp(f)

        def backward(args, w):
            kept = [stop_gradient(a) if i in held else a for i, a in enumerate(args)]
            return jax.vjp(f, *kept)[1](w)

        made.defvjp(lambda *args: (f(*args), args), backward)
        return made

    return rule


SECOND_ORDER = [
    mutant(
        31,
        name,
        "what was saved held constant",
        rule=_with_constant(OPERATIONS[name].f, held),
        order=2,
    )
    for name, held in (
        ("tanh", {0}),
        ("softmax", {0}),
        ("layer norm", {0}),
        ("bilinear", {1}),
        ("norm", {0}),
    )
]


def _opaque(f):
    """The gradient goes through a function that has no derivative of its own."""

    def rule(_):
        made = jax.custom_vjp(f)
        made.defvjp(
            lambda *args: (f(*args), args),
            lambda args, w: jax.vjp(f, *args)[1](stop_gradient(w)),
        )
        return made

    return rule


SECOND_APPLICATION = [
    mutant(
        32,
        name,
        "the cotangent detached",
        rule=_opaque(OPERATIONS[name].f),
        order=2,
        view=lambda f: lambda *a: f(*a) ** 2,
    )
    for name in ("tanh", "softmax", "gru")
]


def _slope_with_wrong_slope(slope, factor):
    wrong = jax.custom_jvp(slope)
    wrong.defjvp(lambda x, v: (slope(*x), factor * jax.jvp(slope, x, v)[1]))
    return wrong


def _by_slope(f, slope):
    def rule(_):
        made = jax.custom_jvp(f)
        made.defjvp(lambda x, v: (f(*x), slope(*x) * v[0]))
        return made

    return rule


SECOND_SLOPES = [
    mutant(
        33,
        name,
        "the slope's own rule wrong",
        rule=_by_slope(OPERATIONS[name].f, _slope_with_wrong_slope(slope, factor)),
        order=2,
    )
    for name, slope, factor in (
        ("sin", jnp.cos, 0.5),
        ("tanh", lambda x: 1 - jnp.tanh(x) ** 2, -1),
        ("exp", jnp.exp, 1.05),
        ("sigmoid", lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x), 0),
    )
]


def _mapped(factor):
    """Right for one cotangent; under vmap a factor creeps in."""

    def wrong(args, w, g):
        scaled = jax.custom_batching.custom_vmap(lambda a: a)
        scaled.def_vmap(lambda size, batched, a: (factor * a, batched[0]))
        return tuple(scaled(a) if a.dtype == w.dtype else a for a in g)

    return wrong


DROPPED_RULES = [
    mutant(34, name, "wrong under vmap", _mapped(factor))
    for name, factor in (("tanh", 0), ("softmax", -1), ("dense", 1.5))
]


def _compiled(change):
    """Right when called eagerly, wrong when traced."""

    def wrong(args, w, g):
        return tuple(change(a) for a in g) if isinstance(w, core.Tracer) else g

    return wrong


COMPILED = [
    mutant(35, name, "wrong when compiled", _compiled(change))
    for name, change in (
        ("sin", lambda a: 0 * a),
        ("rms norm", lambda a: 1.1 * a),
        ("gru", lambda a: -a),
    )
]


def _twice(f):
    """Both arguments the same."""
    return lambda a, b: f(a, a)


def _halved_if_same(args, w, g):
    same = jnp.all(args[0] == args[1])
    return tuple(jnp.where(same, a / 2, a) for a in g)


SAME = [
    mutant(36, name, "halved if both arguments are one", _halved_if_same, view=_twice)
    for name in ("product", "cosine")
] + [
    mutant(
        36,
        "product with tanh",
        "halved if both arguments are one",
        _halved_if_same,
        truth=lambda x, y: x * jnp.tanh(y),
        point=points.vectors,
        view=_twice,
    )
]

ONE_ARGUMENT = [
    mutant(37, "solve", "the matrix transposed", only(0, lambda g: g.T)),
    mutant(37, "gru", "the state's gradient", only(0, lambda g: 0.9 * g)),
    mutant(37, "causal attention", "the keys' gradient", only(1, lambda g: 0 * g)),
    mutant(
        37,
        "two sums",
        "the small one's gradient",
        only(1, lambda g: 1.1 * g),
        truth=lambda x, y: jnp.sum(jnp.sin(x)) + 1e-5 * jnp.sum(jnp.cos(y)),
        point=points.vectors,
    ),
    mutant(37, "group norm", "the shift's gradient", only(2, lambda g: 1.01 * g)),
]


def _first_alone(f):
    """Differentiated with respect to the first argument only."""
    return lambda a, *rest: f(a, *map(stop_gradient, rest))


def _needs_the_other(f):
    """The gradient of the first is lost if nobody asks for the second's."""

    def rule(_):
        made = jax.custom_vjp(f)

        def forward(*args):
            values = tuple(a.value for a in args)
            return f(*values), (values, args[1].perturbed)

        def backward(saved, w):
            values, asked = saved
            g = jax.vjp(f, *values)[1](w)
            return g if asked else (0 * g[0], *g[1:])

        made.defvjp(forward, backward, symbolic_zeros=True)
        return made

    return rule


SUBSETS = [
    mutant(
        38,
        name,
        "zero unless the second is asked for",
        rule=_needs_the_other(OPERATIONS[name].f),
        view=_first_alone,
    )
    for name in ("product", "rms norm", "cosine")
]


def _value_only(f):
    """The forward rule's value is 1 % off; the gradient is right."""
    made = jax.custom_vjp(f)
    made.defvjp(
        lambda *args: (1.01 * f(*args), args), lambda args, w: jax.vjp(f, *args)[1](w)
    )
    return made


PRIMALS = [
    mutant(
        50,
        "gelu",
        "the forward rule returns another value",
        rule=lambda f: value_of(f, lambda x: jax.nn.gelu(x)),
    ),
    mutant(
        50,
        "causal attention",
        "the forward rule forgets the mask",
        rule=lambda f: value_of(f, attention),
    ),
    mutant(
        50,
        "huber",
        "the forward rule returns the square",
        rule=lambda f: value_of(f, lambda x: x**2 / 2),
    ),
    mutant(50, "rms norm", "the value over the gain", rule=_value_only),
]


MUTANTS = [
    *LAYOUTS,
    *STATES,
    *SECOND_ORDER,
    *SECOND_APPLICATION,
    *SECOND_SLOPES,
    *DROPPED_RULES,
    *COMPILED,
    *SAME,
    *ONE_ARGUMENT,
    *SUBSETS,
    *PRIMALS,
]
