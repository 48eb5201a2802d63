"""What the first, the second and an unknown analysis of a network cost.

Each model is analysed three times in one process, with other parameters and inputs each
time; the second and the third compile nothing. Times are of the processor, on one BLAS
thread; counted are the programs that JAX's back end compiles within `gs.analyze`.

    python -m experiments.benchmarks.analyses
"""

import dataclasses
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is measured is compiling.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gradstab as gs
from experiments._run import print_table, progress

COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        only: names of models; all by default.
    """

    only: tuple[str, ...] = ()


class Linen(nn.Module):
    """Dense layers with normalisation."""

    @nn.compact
    def __call__(self, x):
        """The outputs."""
        for _ in range(4):
            x = nn.LayerNorm()(nn.tanh(nn.Dense(16)(x)))
        return nn.Dense(3)(x)


def _readme(seed):
    """The network of the README."""
    data = gs.data.load("digits")
    x, y = data.x_train[seed:][:64], data.y_train[seed:][:64]
    model = gs.models.MLP(
        64,
        10,
        widths=(100,) * 20,
        activation="relu",
        kernel_init=gs.initializers.lecun_normal(),
        rngs=nnx.Rngs(seed),
    )

    def loss(logits):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses)

    return (model, x), {"loss": loss}


def _own(kind, in_shape, **options):
    def made(seed):
        model = gs.models.build(
            kind, in_shape=in_shape, num_outputs=3, seed=seed, **options
        )
        x = jax.random.normal(jax.random.key(seed), (8, *in_shape))
        return (model, x), {}

    return made


def _equinox(seed):
    keys = jax.random.split(jax.random.key(seed))
    model = eqx.nn.MLP(5, 3, 16, 4, key=keys[0])
    return (model, jax.random.normal(keys[1], (8, 5))), {"batched": False}


def _linen(seed):
    keys = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(keys[0], (8, 5))
    return ((Linen(), Linen().init(keys[1], x)), x), {}


MODELS = {
    "README": _readme,
    "LSTM": _own("lstm", (12, 5), depth=2, width=16),
    "transformer": _own("transformer", (8, 5), depth=3, width=16),
    "convolutional ResNet": _own("resnet", (8, 8, 3), depth=3, width=8),
    "Equinox MLP": _equinox,
    "linen": _linen,
}


def run(config: Config) -> str:
    """The table, as text."""
    compiled = []

    def listen(event, duration_secs, **_):
        if event == COMPILED:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    rows = [
        "| model | first, s | programs | second, of the first | programs |",
        "|---|---|---|---|---|",
    ]
    chosen = config.only or tuple(MODELS)
    for name in progress(chosen, "models"):
        counts, times = [], []
        for seed in range(3):
            args, options = MODELS[name](seed)
            compiled.clear()
            began = time.process_time()
            gs.analyze(*args, progress=False, **options)
            times.append(time.process_time() - began)
            counts.append(len(compiled))
        later = f"{min(times[1:]) / times[0]:.3f} | {max(counts[1:])}"
        rows.append(f"| {name} | {times[0]:.1f} | {counts[0]} | {later} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(Config, run)
