"""Are forecasts of underflow and overflow what a run in that dtype shows?

Level full of `gradstab.value_and_grad` says of a float32 step which share of the data
and gradients of every layer is below and above the range of a smaller dtype. Here the
same step is taken in that dtype, on the device at hand, and the shares are counted: of
the entries that are not zero in float32 those that are zero or less than the smallest
normal number, and those that are infinite. What comes after the first infinity, in the
order of the computation, is infinity times zero, and is not compared. Expected: within
two points for every layer.

CPUs take subnormal numbers of float32 and bfloat16 for zero, in both runs: the share
below the range of bfloat16, which is that of float32, is 0 there, and what is lost is
seen among the zeros. Those of float16 they keep. What is no forecast of a range is what
rounding makes zero: of saturated units 1 - tanh^2, once tanh is rounded to 1; the last
network shows it.

    python -m experiments.benchmarks.number_ranges
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._run import print_table
from experiments.benchmarks.watched_networks import NETWORKS
from gradstab.watch import measures as m


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    depth: int = 10
    width: int = 64
    batch_size: int = 128


def stack(activation, scale, sizes, loss_scale=1.0, input_scale=1.0):
    """A loss of a network of equal layers, its parameters and a batch.

    Args:
        activation: of every layer.
        scale: standard deviation of the weights times the root of the width.
        sizes: depth, width and examples.
        loss_scale: what the loss is multiplied with.
        input_scale: what the inputs are multiplied with.
    """
    depth, width, batch_size = sizes
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(depth, width, width)) * scale / np.sqrt(width)
    params = [jnp.asarray(w, jnp.float32) for w in draws]
    x, y = (
        jnp.asarray(rng.normal(size=(batch_size, width)), jnp.float32) for _ in "xy"
    )

    def loss(params, x, y):
        for w in params:
            x = activation(x @ w)
        return jnp.mean((x - y) * y) * jnp.asarray(loss_scale, x.dtype)

    return loss, params, (x * input_scale, y)


# Here 1 - tanh^2 is rounded to zero, which is no matter of the range.
SATURATED = "tanh, saturated"


def cases(config):
    """Networks whose data or gradients leave a range, by name."""
    sizes = config.depth, config.width, config.batch_size
    relu, tanh = jax.nn.relu, jnp.tanh
    return {
        "sigmoid, vanishing": stack(jax.nn.sigmoid, 1.0, sizes),
        "tanh, small weights": stack(tanh, 0.3, sizes),
        "tanh, tiny weights": stack(tanh, 1e-4, sizes),
        "relu, growing data": stack(relu, 5.0, sizes),
        "relu, growing gradients": stack(relu, 6.0, sizes, 2.0**12, 1e-4),
        "transformer": NETWORKS["transformer"](width=32, times=8, batch_size=4),
        SATURATED: stack(tanh, 6.0, sizes),
    }


def counted(loss, params, batch, dtype):
    """The measures of a step in a dtype, ``(names, 2, measures)``, and the names."""
    cast = jax.tree.map(
        lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a,
        (params, *batch),
    )
    (_, stats), _ = jax.jit(gs.value_and_grad(loss, level="full"))(*cast)
    return np.asarray(stats.measures, float), stats


def shares(measured, reference, dtype):
    """The shares of a run that left the range of its dtype, ``(2, names, 2)``.

    Args:
        measured: of the run in the dtype.
        reference: of that in float32.
        dtype: which.
    """
    first = int(np.log2(float(jnp.finfo(dtype).smallest_normal))) + 127
    zeros, lost = reference[..., m.ZEROS], reference[..., m.BINS][..., -1]
    number = np.maximum(reference[..., m.ENTRIES] - zeros - lost, 1)
    bins = measured[..., m.BINS]
    below = np.sum(bins[..., :first], axis=-1) - zeros
    return np.stack([below / number, (bins[..., -1] - lost) / number])


def comparable(measured):
    """Which rows come before the first infinity, or are it, ``(names, 2)``."""
    lost = measured[..., m.BINS][..., -1] > 0
    rows, kept = range(len(lost)), np.zeros(lost.shape, bool)
    for place in [*((i, 0) for i in rows), *((i, 1) for i in reversed(rows))]:
        kept[place] = True
        if lost[place]:
            break
    return kept & (measured[..., m.ENTRIES] > 0)


def compare(loss, params, batch, dtype):
    """Forecast and actual shares, each ``(2, names, 2)``, and what to compare."""
    reference, stats = counted(loss, params, batch, jnp.float32)
    forecast = np.stack([np.asarray(part) for part in stats.shares_outside(dtype)])
    measured, _ = counted(loss, params, batch, dtype)
    kept = comparable(measured)
    return forecast, shares(measured, reference, dtype), kept


def table(config):
    """A row per network and dtype: the largest shares, and the largest difference."""
    lines = [
        "| network | dtype | rows | below, forecast | above, forecast | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, (loss, params, batch) in cases(config).items():
        for dtype in (jnp.float16, jnp.bfloat16):
            forecast, actual, kept = compare(loss, params, batch, dtype)
            largest = np.max(np.where(kept, forecast, 0), axis=(1, 2))
            off = np.max(np.where(kept, np.abs(forecast - actual), 0))
            lines.append(
                f"| {name} | {jnp.dtype(dtype)} | {kept.sum()} | {largest[0]:.1%} "
                f"| {largest[1]:.1%} | {100 * off:.2f} points |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
