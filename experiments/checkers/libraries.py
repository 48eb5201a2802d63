"""Every activation of `jax.nn`, loss of optax and layer of Flax NNX, as correct cases.

Making a layer takes a while, so each case is made when it is judged.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx


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


def normal(seed, *shape):
    """Standard normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


X = normal(0, 32)
ROWS = normal(1, 6, 8)
LABELS = np.arange(6) % 8


def functions() -> dict[str, Callable[[], Correct]]:
    """All of them by name, as functions without arguments that make them."""
    return _activations() | _losses() | _layers()


def _case(f, args):
    return functools.partial(Correct, f, args)


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
            x = np.abs(X) + 0.1 if name == "log1mexp" else 2 * X  # where it is defined
            found[f"jax.nn.{name}"] = _case(lambda x, f=f: f(x), (x,))
    return found


def _losses():
    """Every loss of optax, at arguments that it takes."""
    p, q = (np.float32(np.exp(normal(s, 6, 8))) for s in (20, 21))
    p, q = (a / a.sum(axis=1, keepdims=True) for a in (p, q))
    bits = (ROWS > 0).astype(np.float32)
    signs = np.sign(ROWS)
    logits = normal(22, 2, 6, 5)
    other = normal(23, 6, 8)
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
        "poly_loss_cross_entropy": (ROWS, p),
        "ranking_softmax_loss": (ROWS, bits),
        "multiclass_hinge_loss": (ROWS, LABELS),
        "multiclass_perceptron_loss": (ROWS, LABELS),
        "multiclass_logistic_loss": (ROWS, LABELS),
        "make_fenchel_young_loss": (ROWS, p),
        "multiclass_sparsemax_loss": (ROWS, LABELS),
        "sparsemax_loss": (X, (X > 0).astype(np.int32)),
        "dice_loss": (ROWS, bits),
        "binary_dice_loss": (ROWS, bits),
        "multiclass_generalized_dice_loss": (ROWS[None], p[None]),
        "generalized_kl_divergence": (np.log(q), p),
        "smooth_labels": (p, 0.1),
        "ntxent": (ROWS, np.array([0, 0, 1, 1, 2, 2])),
        "triplet_margin_loss": (ROWS, other, normal(24, 6, 8)),
        "npairs_loss": (ROWS, other, LABELS),
        "triplet_loss": (ROWS, other, normal(24, 6, 8)),
        "linear_assignment": (ROWS,),
    }
    found = {}
    for name, args in real.items():
        f = getattr(optax.losses, name, None)
        if f is None or name in ("make_fenchel_young_loss", "linear_assignment"):
            continue
        found[f"optax.{name}"] = _case(_first_arguments(f), tuple(args))
    for name in ("ctc_loss", "ctc_loss_with_forward_probs"):
        f = getattr(optax.losses, name)
        found[f"optax.{name}"] = _case(functools.partial(_with_lengths, f), (logits,))
    fenchel = optax.losses.make_fenchel_young_loss(_logsumexp)
    found["optax.make_fenchel_young_loss"] = _case(fenchel, (ROWS, p))
    return found


def _with_lengths(f, logits):
    """A loss of sequences of given lengths: their masks are not differentiated."""
    tokens = np.array([[1, 2, 3], [2, 2, 4]])
    no_padding = np.zeros((2, 6), logits.dtype), np.zeros((2, 3), logits.dtype)
    return f(logits, no_padding[0], tokens, no_padding[1])


def _logsumexp(scores, *args, **kwargs):
    return jax.nn.logsumexp(scores, axis=-1)


def _first_arguments(f):
    return lambda *args: f(*args)


def _layer(make, *args):
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
    image = normal(30, 2, 6, 6, 3)
    sequence = normal(31, 2, 5, 8)
    tokens = np.array([[0, 3], [3, 1]])
    cell = normal(32, 2, 4)
    state = normal(33, 2, 4), normal(34, 2, 4)
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
        f"nnx.{name}": functools.partial(_layer, make, *args)
        for name, (make, *args) in made.items()
        if hasattr(nnx, name)
    }
    found["nnx.avg_pool"] = _case(lambda x: nnx.avg_pool(x, (2, 2)), (image,))
    found["nnx.min_pool"] = _case(lambda x: nnx.min_pool(x, (2, 2)), (image,))
    found["nnx.dot_product_attention"] = _case(
        lambda q, k, v: nnx.dot_product_attention(q, k, v),
        tuple(normal(s, 2, 5, 2, 4) for s in (35, 36, 37)),
    )
    return found


def _spectral_norm(rngs):
    # The singular vectors are held constant, which is right where they have converged.
    return nnx.SpectralNorm(nnx.Linear(8, 4, rngs=rngs), n_steps=200, rngs=rngs)
