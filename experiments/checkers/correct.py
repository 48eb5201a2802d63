"""Correct functions that are hard to check: none may be accused.

Kinks, ties, edges of domains, offsets, scales, saturation, long sums, iterations,
random numbers of a fixed key, straight-through estimators; with those of `libraries`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.lax import stop_gradient

from experiments.checkers import libraries
from experiments.checkers.cases import rounded
from experiments.checkers.libraries import Correct, normal

X = normal(0, 32)
ROWS = normal(1, 6, 8)
POSITIVE = np.abs(X) + np.float32(0.1)
TIES = np.where(np.arange(32) % 4 == 0, np.float32(0), X)
LABELS = np.arange(6) % 8


def _of_vector(**functions):
    return {name.replace("_", " "): Correct(f, (X,)) for name, f in functions.items()}


def _vector(entries):
    return np.array(entries, np.float32)


KINKS = {
    "relu at zero": Correct(lambda x: jax.nn.relu(x), (np.zeros(8, np.float32),)),
    "relu with ties": Correct(lambda x: jax.nn.relu(x), (TIES,)),
    "sum of relu with ties": Correct(lambda x: jnp.sum(jax.nn.relu(x)), (TIES,)),
    "leaky relu with ties": Correct(lambda x: jax.nn.leaky_relu(x), (TIES,)),
    "abs at zero": Correct(jnp.abs, (np.float32(0),)),
    "abs with ties": Correct(jnp.abs, (TIES,)),
    "abs near zero": Correct(jnp.abs, (_vector([1.0, 1e-12, -1e-6]),)),
    "relu near zero": Correct(lambda x: jax.nn.relu(x), (_vector([1e-7, -1e-5, 1]),)),
    "max of equals": Correct(jnp.max, (_vector([1, 1, 0.5]),)),
    "min of equals": Correct(jnp.min, (np.zeros(5, np.float32),)),
    "max of near equals": Correct(jnp.max, (_vector([1, 1 - 1e-6, 0.5]),)),
    "maximum of equals": Correct(jnp.maximum, (TIES, np.zeros(32, np.float32))),
    "clip at its border": Correct(
        lambda x: jnp.clip(x, -1, 1), (_vector([-1, 1, 0.5, 2]),)
    ),
    "median of equals": Correct(jnp.median, (_vector([1, 1, 1, 2, 0]),)),
    "sort": Correct(jnp.sort, (X,)),
    "sort with ties": Correct(jnp.sort, (TIES,)),
    "sort of 512": Correct(jnp.sort, (normal(2, 512),)),
    "top four": Correct(lambda x: jax.lax.top_k(x, 4)[0], (X,)),
    "max pool of equals": Correct(
        lambda x: nnx.max_pool(x[None, :, :, None], (2, 2)),
        (np.ones((6, 6), np.float32),),
    ),
    "max pool": Correct(lambda x: nnx.max_pool(x[None, :, :, None], (2, 2)), (ROWS,)),
    "hinge at its corner": Correct(
        lambda x: jnp.maximum(0, 1 - x), (_vector([1, 1, 0, 2]),)
    ),
    "largest row sum": Correct(lambda x: jnp.max(jnp.sum(jnp.abs(x), axis=1)), (ROWS,)),
    "relu network": Correct(
        lambda x, a, b: jax.nn.relu(x @ a) @ b,
        (normal(3, 16), normal(4, 16, 64) / 4, normal(5, 64, 1) / 8),
    ),
    "sign": Correct(jnp.sign, (X,)),
    "floor": Correct(jnp.floor, (3 * X,)),
    "round to one per cent": Correct(lambda x: jnp.round(100 * x), (X,)),
    "heaviside times x": Correct(lambda x: jnp.heaviside(x, 0.5) * x, (X,)),
    "piecewise polynomial": Correct(lambda x: jnp.where(x > 0, x**3, x**2), (TIES,)),
}

EDGES = {
    "log near zero": Correct(jnp.log, (_vector([1e-6, 1, 2]),)),
    "log1p near minus one": Correct(jnp.log1p, (_vector([-1 + 1e-6, 0, 2]),)),
    "sqrt near zero": Correct(jnp.sqrt, (_vector([1e-8, 1, 4]),)),
    "arcsin near one": Correct(jnp.arcsin, (_vector([1 - 1e-5, 0, -0.5]),)),
    "arctanh near one": Correct(jnp.arctanh, (_vector([1 - 1e-5, 0, -0.5]),)),
    "arccosh near one": Correct(jnp.arccosh, (_vector([1 + 1e-5, 2, 3]),)),
    "xlogy near zero": Correct(
        lambda x: jax.scipy.special.xlogy(x, x), (_vector([1e-6, 1, 2]),)
    ),
    "entropy near its edge": Correct(
        lambda p: -jnp.sum(p * jnp.log(p)), (_vector([1e-5, 0.5, 0.499]),)
    ),
    "reciprocal near zero": Correct(lambda x: 1 / x, (_vector([1e-4, 1, -1e-3]),)),
    "logit near its edges": Correct(
        jax.scipy.special.logit, (_vector([1e-5, 0.5, 1 - 1e-5]),)
    ),
    "erfinv near one": Correct(
        jax.scipy.special.erfinv, (_vector([1 - 1e-4, 0, -0.5]),)
    ),
    "power at zero": Correct(lambda x: x**2.5, (_vector([1e-3, 1, 2]),)),
    "gammaln near zero": Correct(jax.scipy.special.gammaln, (_vector([1e-3, 1, 20]),)),
    "tan near its pole": Correct(jnp.tan, (_vector([1.57, 0, 1]),)),
    "masked log": Correct(
        lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), 0), (X,)
    ),
    "norm near zero": Correct(jnp.linalg.norm, (_vector([1e-6, -1e-6, 1e-7]),)),
}

SCALES = {
    "offset of 1e6": Correct(lambda x: 1e6 + jnp.sin(x), (X,)),
    "offset of -1e6": Correct(lambda x: jnp.tanh(x) - 1e6, (X,)),
    "cancelled offset": Correct(lambda x: (x + 1e6) - 1e6, (X,)),
    "argument near 1e6": Correct(jnp.sin, (1e6 + X,)),
    "argument times 1e4": Correct(jnp.sin, (1e4 * X,)),
    "variance of offset data": Correct(jnp.var, (1e3 + X,)),
    "value of 1e-6": Correct(lambda x: 1e-6 * jnp.sum(x**2), (X,)),
    "value of 1e6": Correct(lambda x: 1e6 * jnp.tanh(x), (X,)),
    "argument of 1e-6": Correct(lambda x: jnp.tanh(1e6 * x), (1e-6 * X,)),
    "argument of 1e6": Correct(lambda x: jnp.tanh(1e-6 * x), (1e6 * X,)),
    "arguments of unlike scales": Correct(
        lambda x, y: jnp.sin(1e6 * x) + jnp.cos(1e-6 * y), (1e-6 * X, 1e6 * X)
    ),
    "entries of unlike scales": Correct(
        lambda x: jnp.tanh(x), (np.float32(10.0) ** np.arange(-6, 1),)
    ),
    "outputs of unlike scales": Correct(
        lambda x: (1e-6 * jnp.sin(x), 1e6 * jnp.cos(x)), (X,)
    ),
    "an argument of small weight": Correct(
        lambda x, y: jnp.sum(jnp.sin(x)) + 1e-6 * jnp.sum(jnp.cos(y)), (X, X)
    ),
    "oscillation": Correct(lambda x: jnp.sin(100 * x), (X,)),
    "flat to first order": Correct(jnp.cos, (np.zeros(3, np.float32),)),
    "constant": Correct(lambda x: jnp.ones(3), (X,)),
    "constant in one argument": Correct(lambda x, y: 2 * x, (X, X)),
    "sums to one": Correct(lambda x: jnp.sum(jax.nn.softmax(x)), (X,)),
    "logsumexp of hundreds": Correct(lambda x: jax.nn.logsumexp(x), (100 * X,)),
    "nearly saturated sigmoid": Correct(lambda x: jax.nn.sigmoid(x), (12 + X,)),
    "nearly saturated softmax": Correct(lambda x: jax.nn.softmax(x), (10 * X,)),
    "nearly saturated tanh": Correct(jnp.tanh, (6 + X / 4,)),
    "sharp softplus": Correct(lambda x: jax.nn.softplus(1000 * x) / 1000, (X,)),
    "saturated in part": Correct(
        lambda x: jax.nn.sigmoid(x), (_vector([40, -40, 0, 1]),)
    ),
    "cumulative sum of 1e4": Correct(jnp.cumsum, (normal(10, 10**4),)),
}


LONG = {
    "mean of 1e6 squares": Correct(lambda x: jnp.mean(x**2), (normal(6, 10**6),)),
    "sum of 1e6 squares": Correct(lambda x: jnp.sum(x**2), (normal(7, 10**6),)),
    "logsumexp of 1e6": Correct(lambda x: jax.nn.logsumexp(x), (normal(8, 10**6),)),
    "norm of 1e6": Correct(jnp.linalg.norm, (normal(9, 10**6),)),
}


def _newton(x):
    return jax.lax.fori_loop(0, 20, lambda _, y: (y + x / y) / 2, jnp.ones_like(x))


def _fixed_point(a, b):
    step = lambda h: jnp.tanh(a @ h / 12 + b)  # noqa: E731

    def body(h, _):
        return step(h), None

    return jax.lax.scan(body, jnp.zeros_like(b), None, length=50)[0]


def _conjugate_gradients(a, b):
    matrix = a.T @ a + jnp.eye(8, dtype=a.dtype)
    return jax.scipy.sparse.linalg.cg(lambda v: matrix @ v, b, tol=1e-12)[0]


def _custom_root(x):
    f = lambda y: y**3 + y - x  # noqa: E731
    solve = lambda f, y: jax.lax.fori_loop(  # noqa: E731
        0, 60, lambda _, y: y - f(y) / (3 * y**2 + 1), y
    )
    return jax.lax.custom_root(
        f, jnp.zeros_like(x), solve, lambda g, y: y / g(jnp.ones_like(y))
    )


def _ode(x):
    def step(y, _):
        return y + 0.05 * jnp.sin(3 * y), None

    return jax.lax.scan(step, x, None, length=100)[0]


def _sinkhorn(x):
    def step(k, _):
        k = k / jnp.sum(k, axis=1, keepdims=True)
        return k / jnp.sum(k, axis=0, keepdims=True), None

    return jax.lax.scan(step, jnp.exp(x), None, length=20)[0]


SOLVERS = {
    "square root by Newton": Correct(_newton, (POSITIVE,)),
    "fixed point": Correct(_fixed_point, (normal(11, 8, 8), normal(12, 8))),
    "conjugate gradients": Correct(
        _conjugate_gradients, (normal(13, 8, 8) / 4, normal(14, 8))
    ),
    "implicit cubic root": Correct(_custom_root, (X,)),
    "Euler steps": Correct(_ode, (X,)),
    "Sinkhorn": Correct(_sinkhorn, (ROWS[:, :6],)),
    "linear solve": Correct(
        jnp.linalg.solve,
        (normal(15, 8, 8) + 6 * np.eye(8, dtype=np.float32), normal(16, 8)),
    ),
    "matrix exponential": Correct(jax.scipy.linalg.expm, (normal(17, 6, 6) / 2,)),
    "eigenvalues": Correct(lambda a: jnp.linalg.eigvalsh(a + a.T), (normal(18, 6, 6),)),
    "singular values": Correct(lambda a: jnp.linalg.svd(a, compute_uv=False), (ROWS,)),
}


def _dropped(x):
    kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(kept, 2 * x, 0)


def _reparametrised(mean, log_scale):
    noise = jax.random.normal(jax.random.key(0), mean.shape, mean.dtype)
    return mean + jnp.exp(log_scale) * noise


def _gumbel(x):
    noise = jax.random.gumbel(jax.random.key(0), x.shape, x.dtype)
    return jax.nn.softmax((x + noise) / 0.5)


RANDOM = {
    "dropout of a fixed key": Correct(_dropped, (X,)),
    "dropout, then tanh": Correct(
        lambda x: jnp.tanh(_dropped(x) @ ROWS.T[:, :2]), (ROWS,)
    ),
    "reparametrised normal": Correct(_reparametrised, (X, X / 4)),
    "gumbel softmax": Correct(_gumbel, (X,)),
}


def _straight_through(hard):
    return lambda x: x + stop_gradient(hard(x) - x)


def _hard_softmax(x):
    soft = jax.nn.softmax(x)
    hard = jax.nn.one_hot(jnp.argmax(x), x.size, dtype=x.dtype)
    return soft + stop_gradient(hard - soft)


def _clipped_straight_through(x):
    soft = jnp.clip(x, -1, 1)
    return soft + stop_gradient(jnp.sign(x) - soft)


STRAIGHT_THROUGH = {
    "rounding, straight through": Correct(
        _straight_through(jnp.round), (3 * X,), expect=lambda x: x
    ),
    "sign, straight through": Correct(
        _straight_through(jnp.sign), (X,), expect=lambda x: x
    ),
    "sign, clipped straight through": Correct(
        _clipped_straight_through, (X,), expect=lambda x: jnp.clip(x, -1, 1)
    ),
    "argmax, straight through": Correct(
        _hard_softmax, (X,), expect=lambda x: jax.nn.softmax(x)
    ),
    "quantised, straight through": Correct(
        _straight_through(lambda x: jnp.round(8 * x) / 8), (X,), expect=lambda x: x
    ),
    "gradient reversal": Correct(
        lambda x: -x + stop_gradient(2 * x), (X,), expect=lambda x: -x
    ),
    "gradient times ten": Correct(
        lambda x: 10 * x - stop_gradient(9 * x), (X,), expect=lambda x: 10 * x
    ),
}


def _in_float32():
    """Some of the above as code that exists in float32 only."""
    names = (
        "relu with ties",
        "sort",
        "log near zero",
        "entries of unlike scales",
        "oscillation",
        "sums to one",
        "logsumexp of hundreds",
        "square root by Newton",
        "dropout of a fixed key",
        "nearly saturated softmax",
        "mean of 1e6 squares",
        "relu network",
        "value of 1e-6",
        "value of 1e6",
    )
    known = KINKS | EDGES | SCALES | LONG | SOLVERS | RANDOM
    return {
        f"{name}, in float32": Correct(
            rounded(known[name].f, "float32"), known[name].args, dtype="float32"
        )
        for name in names
    }


@functools.cache
def correct() -> dict[str, Callable[[], Correct]]:
    """All of them by name, as functions without arguments that make them."""
    known = KINKS | EDGES | SCALES | SOLVERS | RANDOM | STRAIGHT_THROUGH | _in_float32()
    made = {name: functools.partial(_itself, case) for name, case in known.items()}
    last = {name: functools.partial(_itself, case) for name, case in LONG.items()}
    return made | libraries.functions() | last


def _itself(case):
    return case
