"""Classes 42, 43, 45, 49 and 51: special points, masks, eps, overflow, branches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant
from experiments.checkers.operations import (
    OPERATIONS,
    cosine,
    norm,
    normalised,
    rms_norm,
)


def _with_one(value, shape):
    """A vector in which one entry is a special point."""
    (x,) = points.vector(shape)
    x[1] = value
    return (x,)


def _at(value, change):
    def wrong(args, w, g):
        return (jnp.where(args[0] == value, change(w), g[0]),)

    return wrong


def _log_sigmoid(x):
    return jax.nn.log_sigmoid(x)


def _cosh_root(x):
    """Smooth at zero: sqrt(1 + x^2) + x / 2."""
    return jnp.sqrt(1 + x**2) + x / 2


SPECIAL = [
    mutant(
        42,
        "log sigmoid",
        "zero at zero",
        _at(0.0, lambda w: 0 * w),
        truth=_log_sigmoid,
        point=functools.partial(_with_one, 0.0),
    ),
    mutant(
        42,
        "expm1",
        "zero at zero",
        _at(0.0, lambda w: 0 * w),
        truth=jnp.expm1,
        point=functools.partial(_with_one, 0.0),
    ),
    mutant(
        42,
        "tanh",
        "one at one",
        _at(1.0, lambda w: w),
        point=functools.partial(_with_one, 1.0),
    ),
    mutant(
        42,
        "root of one and square",
        "zero at zero",
        _at(0.0, lambda w: 0 * w),
        truth=_cosh_root,
        point=functools.partial(_with_one, 0.0),
    ),
]


def _log_where(x):
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), x)


def _log_where_unsafe(x):
    return jnp.where(x > 0, jnp.log(x * (x > 0)), x)


def _root_where(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), -x)


def _root_where_unsafe(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.maximum(x, 0)), -x)


def _inverse_where(x):
    big = jnp.abs(x) > 0.5
    return jnp.where(big, 1 / jnp.where(big, x, 1.0), x)


def _inverse_where_unsafe(x):
    big = jnp.abs(x) > 0.5
    return jnp.where(big, 1 / (x * big), x)


def _one_below(shape):
    """At least one entry is below zero, and none is near it."""
    (x,) = points.vector(shape)
    x = np.where(np.abs(x) < 0.1, 0.2, x)
    x[0] = -0.3
    return (x,)


MASKED = [
    mutant(43, name, "infinite under the mask", of=unsafe, truth=safe, point=_one_below)
    for name, safe, unsafe in (
        ("log of the positive", _log_where, _log_where_unsafe),
        ("root of the positive", _root_where, _root_where_unsafe),
        ("inverse of the large", _inverse_where, _inverse_where_unsafe),
    )
]


def _layer_norm_with(eps):
    return lambda x, gain, bias: normalised(x, eps) * gain + bias


def _layer_norm_outside(eps):
    def f(x, gain, bias):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True))
        return centred / (deviation + eps) * gain + bias

    return f


def _cosine_with_eps(x, y):
    return jnp.sum(x * y, axis=-1) / (norm(x, 0.1) * norm(y, 0.1))


EPSILONS = [
    mutant(
        45,
        "layer norm of eps 0.1",
        "eps outside the root",
        of=_layer_norm_outside(0.1),
        truth=_layer_norm_with(0.1),
        point=points.rows_scale_shift,
    ),
    mutant(
        45,
        "layer norm of eps 0.01",
        "eps outside the root",
        of=_layer_norm_outside(0.01),
        truth=_layer_norm_with(0.01),
        point=points.rows_scale_shift,
    ),
    mutant(
        45,
        "rms norm of eps 0.1",
        "eps missing",
        of=lambda x, gain: rms_norm(x, gain, 0.0),
        truth=lambda x, gain: rms_norm(x, gain, 0.1),
        point=points.rows_and_scale,
    ),
    mutant(
        45,
        "norm of eps 0.1",
        "eps missing",
        of=norm,
        truth=lambda x: norm(x, 0.1),
        point=points.rows,
    ),
    mutant(
        45,
        "cosine of eps 0.1",
        "eps missing",
        of=cosine,
        truth=_cosine_with_eps,
        point=points.two_rows,
    ),
]


def _far_out(shape):
    """One entry at which an exponential overflows in every dtype."""
    return _with_one(800.0, shape)


def _tiny_below_zero(shape):
    """Negative numbers, one of which is next to nothing."""
    (x,) = points.negative_vector(shape)
    x[1] = -1e-9
    return (x,)


def _saturated(name, mistake, truth, wrong, point=_far_out):
    return mutant(49, name, mistake, wrong, truth=truth, point=point)


SATURATED = [
    _saturated(
        "softplus",
        "overflows",
        lambda x: jax.nn.softplus(x),
        lambda a, w, g: (w * jnp.exp(a[0]) / (1 + jnp.exp(a[0])),),
    ),
    _saturated(
        "silu",
        "overflows",
        lambda x: jax.nn.silu(x),
        lambda a, w, g: (
            w * (jnp.exp(a[0]) * (1 + jnp.exp(a[0]) + a[0])) / (1 + jnp.exp(a[0])) ** 2,
        ),
    ),
    _saturated(
        "logsumexp",
        "overflows",
        lambda x: jax.nn.logsumexp(x),
        lambda a, w, g: (w * jnp.exp(a[0]) / jnp.sum(jnp.exp(a[0])),),
    ),
    _saturated(
        "log of expm1",
        "loses the derivative",
        lambda x: jnp.log(-jnp.expm1(x)),
        lambda a, w, g: (-w * jnp.exp(a[0]) / (1 - jnp.exp(a[0]) + 1e-8),),
        _tiny_below_zero,
    ),
]


def _energy_forces(energy):
    """Minus the gradient of an energy, as molecular dynamics writes it."""

    def forces(r):
        return -jax.grad(lambda r: jnp.sum(energy(r)))(r)

    return forces


def _piecewise_energy(r):
    """Quadratic near, an exponential tail beyond one."""
    return jnp.where(r < 1, (r - 1) ** 2 - 1, -jnp.exp(1 - r))


def _spline(r):
    """A cubic within one, its tangent beyond."""
    return jnp.where(r < 1, r**3, 3 * r - 2)


def _branch(name, f, test, factor):
    return mutant(
        51,
        name,
        "one branch wrong",
        lambda a, w, g: (jnp.where(test(a[0]), factor * g[0], g[0]),),
        truth=f,
        point=points.vector,
    )


BRANCHES = [
    _branch("energy", _piecewise_energy, lambda r: r >= 1, 0.5),
    _branch("spline", _spline, lambda r: r >= 1, 1.1),
    _branch("huber", OPERATIONS["huber"].f, lambda r: r < -1, 0.8),
    _branch(
        "forces",
        _energy_forces(lambda r: jnp.log(jnp.cosh(r)) + r**4 / 8),
        lambda r: r > 1,
        0.9,
    ),
]


MUTANTS = [
    *SPECIAL,
    *MASKED,
    *EPSILONS,
    *SATURATED,
    *BRANCHES,
]
