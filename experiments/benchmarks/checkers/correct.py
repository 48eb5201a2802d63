"""Correct functions that are hard to check: none may be accused.

Kinks, ties, edges of domains, offsets, scales, saturation, long sums, iterations,
random numbers of a fixed key, straight-through estimators, and every activation of
`jax.nn`, loss of optax and layer of Flax NNX.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.lax import stop_gradient

from experiments.benchmarks.checkers.cases import rounded


@dataclasses.dataclass(frozen=True)
class Correct:
    """A function whose derivative is right, and a point.

    Attributes:
        f: the function.
        args: where it is checked.
        expect: the function whose gradient the rule is meant to have, if not f's.
        dtype: ``float64``, or the dtype in which the code exists.
    """

    f: Callable
    args: tuple
    expect: Callable | None = None
    dtype: str = "float64"


def _normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


X = _normal(0, 32)
ROWS = _normal(1, 6, 8)
POSITIVE = np.abs(X) + np.float32(0.1)
TIES = np.where(np.arange(32) % 4 == 0, np.float32(0), X)
LABELS = np.arange(6) % 8


def _of_vector(**functions):
    return {name.replace("_", " "): Correct(f, (X,)) for name, f in functions.items()}


KINKS = {
    "relu at zero": Correct(lambda x: jax.nn.relu(x), (np.zeros(8, np.float32),)),
    "relu with ties": Correct(lambda x: jax.nn.relu(x), (TIES,)),
    "sum of relu with ties": Correct(lambda x: jnp.sum(jax.nn.relu(x)), (TIES,)),
    "leaky relu with ties": Correct(lambda x: jax.nn.leaky_relu(x), (TIES,)),
    "abs at zero": Correct(jnp.abs, (np.float32(0),)),
    "abs with ties": Correct(jnp.abs, (TIES,)),
    "abs near zero": Correct(jnp.abs, (np.float32([1.0, 1e-12, -1e-6]),)),
    "relu near zero": Correct(
        lambda x: jax.nn.relu(x), (np.float32([1e-7, -1e-5, 1]),)
    ),
    "max of equals": Correct(jnp.max, (np.float32([1, 1, 0.5]),)),
    "min of equals": Correct(jnp.min, (np.zeros(5, np.float32),)),
    "max of near equals": Correct(jnp.max, (np.float32([1, 1 - 1e-6, 0.5]),)),
    "maximum of equals": Correct(jnp.maximum, (TIES, np.zeros(32, np.float32))),
    "clip at its border": Correct(
        lambda x: jnp.clip(x, -1, 1), (np.float32([-1, 1, 0.5, 2]),)
    ),
    "median of equals": Correct(jnp.median, (np.float32([1, 1, 1, 2, 0]),)),
    "sort": Correct(jnp.sort, (X,)),
    "sort with ties": Correct(jnp.sort, (TIES,)),
    "sort of 512": Correct(jnp.sort, (_normal(2, 512),)),
    "top four": Correct(lambda x: jax.lax.top_k(x, 4)[0], (X,)),
    "max pool of equals": Correct(
        lambda x: nnx.max_pool(x[None, :, :, None], (2, 2)),
        (np.ones((6, 6), np.float32),),
    ),
    "max pool": Correct(lambda x: nnx.max_pool(x[None, :, :, None], (2, 2)), (ROWS,)),
    "hinge at its corner": Correct(
        lambda x: jnp.maximum(0, 1 - x), (np.float32([1, 1, 0, 2]),)
    ),
    "largest row sum": Correct(lambda x: jnp.max(jnp.sum(jnp.abs(x), axis=1)), (ROWS,)),
    "relu network": Correct(
        lambda x, a, b: jax.nn.relu(x @ a) @ b,
        (_normal(3, 16), _normal(4, 16, 64) / 4, _normal(5, 64, 1) / 8),
    ),
    "sign": Correct(jnp.sign, (X,)),
    "floor": Correct(jnp.floor, (3 * X,)),
    "round to one per cent": Correct(lambda x: jnp.round(100 * x), (X,)),
    "heaviside times x": Correct(lambda x: jnp.heaviside(x, 0.5) * x, (X,)),
    "piecewise polynomial": Correct(lambda x: jnp.where(x > 0, x**3, x**2), (TIES,)),
}

EDGES = {
    "log near zero": Correct(jnp.log, (np.float32([1e-6, 1, 2]),)),
    "log1p near minus one": Correct(jnp.log1p, (np.float32([-1 + 1e-6, 0, 2]),)),
    "sqrt near zero": Correct(jnp.sqrt, (np.float32([1e-8, 1, 4]),)),
    "arcsin near one": Correct(jnp.arcsin, (np.float32([1 - 1e-5, 0, -0.5]),)),
    "arctanh near one": Correct(jnp.arctanh, (np.float32([1 - 1e-5, 0, -0.5]),)),
    "arccosh near one": Correct(jnp.arccosh, (np.float32([1 + 1e-5, 2, 3]),)),
    "xlogy near zero": Correct(
        lambda x: jax.scipy.special.xlogy(x, x), (np.float32([1e-6, 1, 2]),)
    ),
    "entropy near its edge": Correct(
        lambda p: -jnp.sum(p * jnp.log(p)), (np.float32([1e-5, 0.5, 0.499]),)
    ),
    "reciprocal near zero": Correct(lambda x: 1 / x, (np.float32([1e-4, 1, -1e-3]),)),
    "logit near its edges": Correct(
        jax.scipy.special.logit, (np.float32([1e-5, 0.5, 1 - 1e-5]),)
    ),
    "erfinv near one": Correct(
        jax.scipy.special.erfinv, (np.float32([1 - 1e-4, 0, -0.5]),)
    ),
    "power at zero": Correct(lambda x: x**2.5, (np.float32([1e-3, 1, 2]),)),
    "gammaln near zero": Correct(
        jax.scipy.special.gammaln, (np.float32([1e-3, 1, 20]),)
    ),
    "tan near its pole": Correct(jnp.tan, (np.float32([1.57, 0, 1]),)),
    "masked log": Correct(
        lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), 0), (X,)
    ),
    "norm near zero": Correct(jnp.linalg.norm, (np.float32([1e-6, -1e-6, 1e-7]),)),
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
        lambda x: jax.nn.sigmoid(x), (np.float32([40, -40, 0, 1]),)
    ),
    "mean of 1e6 squares": Correct(lambda x: jnp.mean(x**2), (_normal(6, 10**6),)),
    "sum of 1e6 squares": Correct(lambda x: jnp.sum(x**2), (_normal(7, 10**6),)),
    "logsumexp of 1e6": Correct(lambda x: jax.nn.logsumexp(x), (_normal(8, 10**6),)),
    "norm of 1e6": Correct(jnp.linalg.norm, (_normal(9, 10**6),)),
    "cumulative sum of 1e4": Correct(jnp.cumsum, (_normal(10, 10**4),)),
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
    "fixed point": Correct(_fixed_point, (_normal(11, 8, 8), _normal(12, 8))),
    "conjugate gradients": Correct(
        _conjugate_gradients, (_normal(13, 8, 8) / 4, _normal(14, 8))
    ),
    "implicit cubic root": Correct(_custom_root, (X,)),
    "Euler steps": Correct(_ode, (X,)),
    "Sinkhorn": Correct(_sinkhorn, (ROWS[:, :6],)),
    "linear solve": Correct(
        jnp.linalg.solve,
        (_normal(15, 8, 8) + 6 * np.eye(8, dtype=np.float32), _normal(16, 8)),
    ),
    "matrix exponential": Correct(jax.scipy.linalg.expm, (_normal(17, 6, 6) / 2,)),
    "eigenvalues": Correct(
        lambda a: jnp.linalg.eigvalsh(a + a.T), (_normal(18, 6, 6),)
    ),
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
    "implicit gamma": Correct(
        lambda a: jax.random.gamma(jax.random.key(0), a), (POSITIVE + 1,)
    ),
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

ACTIVATIONS = (
    "celu elu gelu glu hard_sigmoid hard_silu log1mexp hard_swish hard_tanh identity "
    "leaky_relu log_sigmoid log_softmax logmeanexp logsumexp mish relu relu6 "
    "selu sigmoid silu soft_sign softmax softplus sparse_plus "
    "sparse_sigmoid squareplus standardize swish tanh"
)


def _activations():
    found = {}
    for name in ACTIVATIONS.split():
        if hasattr(jax.nn, name):
            f = getattr(jax.nn, name)
            found[f"jax.nn.{name}"] = Correct(lambda x, f=f: f(x), (2 * X,))
    return found


def _losses():
    """Every loss of optax, at arguments that it takes."""
    p, q = (np.float32(np.exp(_normal(s, 6, 8))) for s in (20, 21))
    p, q = (a / a.sum(axis=1, keepdims=True) for a in (p, q))
    bits = (ROWS > 0).astype(np.float32)
    signs = np.sign(ROWS)
    times = np.zeros((2, 6), np.float32)
    logits = _normal(22, 2, 6, 5)
    tokens = np.array([[1, 2, 3], [2, 2, 4]])
    blank = np.zeros((2, 3), np.float32)
    other = _normal(23, 6, 8)
    real = {
        "squared_error": (ROWS, other),
        "l2_loss": (ROWS, other),
        "huber_loss": (ROWS, other),
        "log_cosh": (ROWS, other),
        "cosine_distance": (ROWS, other),
        "cosine_similarity": (ROWS, other),
        "safe_softmax_cross_entropy": (ROWS, p),
        "softmax_cross_entropy": (ROWS, p),
        "softmax_cross_entropy_with_integer_labels": (ROWS, LABELS),
        "sigmoid_binary_cross_entropy": (ROWS, bits),
        "sigmoid_focal_loss": (ROWS, bits),
        "hinge_loss": (ROWS, signs),
        "perceptron_loss": (ROWS, signs),
        "kl_divergence": (np.log(q), p),
        "kl_divergence_with_log_targets": (np.log(q), np.log(p)),
        "convex_kl_divergence": (np.log(q), p),
        "ctc_loss": (logits, times[:, :6], tokens, blank),
        "ctc_loss_with_forward_probs": (logits, times[:, :6], tokens, blank),
        "poly_loss_cross_entropy": (ROWS, p),
        "ranking_softmax_loss": (ROWS, bits),
        "multiclass_hinge_loss": (ROWS, LABELS),
        "multiclass_perceptron_loss": (ROWS, LABELS),
        "multiclass_logistic_loss": (ROWS, LABELS),
        "make_fenchel_young_loss": (ROWS, p),
        "multiclass_sparsemax_loss": (ROWS, LABELS),
        "sparsemax_loss": (X, (X > 0).astype(np.int32)),
        "ntxent": (ROWS, np.array([0, 0, 1, 1, 2, 2])),
        "triplet_margin_loss": (ROWS, other, _normal(24, 6, 8)),
        "npairs_loss": (ROWS, other, LABELS),
        "triplet_loss": (ROWS, other, _normal(24, 6, 8)),
        "linear_assignment": (ROWS,),
    }
    found = {}
    for name, args in real.items():
        f = getattr(optax.losses, name, None)
        if f is None or name in ("make_fenchel_young_loss", "linear_assignment"):
            continue
        found[f"optax.{name}"] = Correct(_first_arguments(f), tuple(args))
    fenchel = optax.losses.make_fenchel_young_loss(
        lambda x: jax.nn.logsumexp(x, axis=-1)
    )
    found["optax.make_fenchel_young_loss"] = Correct(fenchel, (ROWS, p))
    return found


def _first_arguments(f):
    return lambda *args: f(*args)


def _layer(make, *args, train=True):
    """A layer of Flax as a function of its parameters and its inputs."""
    module = make(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(params))

    def f(params, *args):
        state = nnx.State(params) if isinstance(params, dict) else params
        model = nnx.merge(graphdef, state, rest, copy=True)
        return model(*args)

    return Correct(f, (params, *args))


def _layers():
    """Every layer of Flax NNX, in training mode where it has one."""
    image = _normal(30, 2, 6, 6, 3)
    sequence = _normal(31, 2, 5, 8)
    tokens = np.array([[0, 3], [3, 1]])
    cell = _normal(32, 2, 4)
    state = _normal(33, 2, 4), _normal(34, 2, 4)
    made = {
        "Linear": (lambda r: nnx.Linear(8, 4, rngs=r), ROWS),
        "LinearGeneral": (lambda r: nnx.LinearGeneral(8, (2, 3), rngs=r), ROWS),
        "Einsum": (lambda r: nnx.Einsum("ij,jk->ik", (8, 4), (4,), rngs=r), ROWS),
        "Conv": (lambda r: nnx.Conv(3, 4, (3, 3), rngs=r), image),
        "ConvTranspose": (lambda r: nnx.ConvTranspose(3, 4, (3, 3), rngs=r), image),
        "Embed": (lambda r: nnx.Embed(4, 8, rngs=r), tokens),
        "BatchNorm": (lambda r: nnx.BatchNorm(8, rngs=r), ROWS),
        "LayerNorm": (lambda r: nnx.LayerNorm(8, rngs=r), ROWS),
        "RMSNorm": (lambda r: nnx.RMSNorm(8, rngs=r), ROWS),
        "GroupNorm": (lambda r: nnx.GroupNorm(8, 2, rngs=r), ROWS),
        "InstanceNorm": (lambda r: nnx.InstanceNorm(3, rngs=r), image),
        "WeightNorm": (
            lambda r: nnx.WeightNorm(nnx.Linear(8, 4, rngs=r), rngs=r),
            ROWS,
        ),
        "SpectralNorm": (_spectral_norm, ROWS),
        "Dropout": (lambda r: nnx.Dropout(0.5, rngs=r), ROWS),
        "PReLU": (lambda r: nnx.PReLU(), ROWS),
        "MultiHeadAttention": (
            lambda r: nnx.MultiHeadAttention(2, 8, decode=False, rngs=r),
            sequence,
        ),
        "LoRA": (lambda r: nnx.LoRA(8, 2, 4, rngs=r), ROWS),
        "LoRALinear": (lambda r: nnx.LoRALinear(8, 4, lora_rank=2, rngs=r), ROWS),
        "SimpleCell": (lambda r: nnx.SimpleCell(4, 4, rngs=r), state[0], cell),
        "GRUCell": (lambda r: nnx.GRUCell(4, 4, rngs=r), state[0], cell),
        "LSTMCell": (lambda r: nnx.LSTMCell(4, 4, rngs=r), state, cell),
        "OptimizedLSTMCell": (
            lambda r: nnx.OptimizedLSTMCell(4, 4, rngs=r),
            state,
            cell,
        ),
        "RNN": (lambda r: nnx.RNN(nnx.GRUCell(8, 4, rngs=r)), sequence),
        "Bidirectional": (
            lambda r: nnx.Bidirectional(
                nnx.RNN(nnx.GRUCell(8, 4, rngs=r)), nnx.RNN(nnx.GRUCell(8, 4, rngs=r))
            ),
            sequence,
        ),
        "Sequential": (
            lambda r: nnx.Sequential(
                nnx.Linear(8, 8, rngs=r), nnx.gelu, nnx.Linear(8, 2, rngs=r)
            ),
            ROWS,
        ),
    }
    found = {
        f"nnx.{name}": _layer(make, *args)
        for name, (make, *args) in made.items()
        if hasattr(nnx, name)
    }
    found["nnx.avg_pool"] = Correct(lambda x: nnx.avg_pool(x, (2, 2)), (image,))
    found["nnx.min_pool"] = Correct(lambda x: nnx.min_pool(x, (2, 2)), (image,))
    found["nnx.dot_product_attention"] = Correct(
        lambda q, k, v: nnx.dot_product_attention(q, k, v),
        tuple(_normal(s, 2, 5, 2, 4) for s in (35, 36, 37)),
    )
    return found


def _spectral_norm(rngs):
    return nnx.SpectralNorm(nnx.Linear(8, 4, rngs=rngs), rngs=rngs)


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
    known = KINKS | EDGES | SCALES | SOLVERS | RANDOM
    return {
        f"{name}, in float32": Correct(
            rounded(known[name].f, "float32"), known[name].args, dtype="float32"
        )
        for name in names
    }


@functools.cache
def correct() -> dict[str, Correct]:
    """All of them, by name."""
    return (
        KINKS
        | EDGES
        | SCALES
        | SOLVERS
        | RANDOM
        | STRAIGHT_THROUGH
        | _activations()
        | _losses()
        | _layers()
        | _in_float32()
    )
