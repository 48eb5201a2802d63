r"""Does a convolutional network of 10,000 layers keep the length of a signal?

Xiao et al. (2018) trained one: a kernel that is an orthogonal matrix at its centre tap
and zero elsewhere (delta-orthogonal) is an isometry, so a linear network of them keeps
the length of every image and of every gradient. Expected: the ratio of norms is 1 to
within 1e-3 after 10,000 layers of 16 channels on images of 8 x 8 in float32. It is why
"no method solves the vanishing gradient completely", as one tutorial has it, is too
strong. Beside it what is often taken for the same: an orthogonal matrix reshaped into a
kernel is no isometry, and Gaussian kernels of the right variance drift like a random
walk. Half a minute on one core.

    python -m experiments.delta_orthogonal
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress
from gradstab import initializers as init

XIAO = "Xiao et al. 2018"
KERNELS = {
    "delta-orthogonal": init.delta_orthogonal(),
    "orthogonal": init.orthogonal(),
    "Gaussian": init.variance_scaling(1.0, "fan_in", "normal"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``kernel`` is the one that must be an isometry."""

    depth: int = 10_000
    shallow: int = 100
    """Layers of the networks that the kernels are compared in."""
    side: int = 8
    """Height and width of the images."""
    channels: int = 16
    """Channels of every layer."""
    kernel: str = "delta-orthogonal"
    """Initialiser that must be an isometry."""
    seed: int = 0


def run(config):
    """Norms of an image on its way and of a gradient on its way back."""
    keys = jax.random.split(jax.random.key(config.seed), 4)
    forward, backward = _norms(config, config.kernel, config.depth, keys[0])
    others = {
        name: _norms(config, name, config.shallow, key)[1]
        for name, key in zip(progress(KERNELS, "kernels"), keys[1:], strict=True)
    }
    return {"forward": forward, "backward": backward, **others}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _norms(config, kernel, depth, key):
    """Norm after each layer, and of a gradient that enters it, over that at the end."""
    key_w, key_x, key_g = jax.random.split(key, 3)
    keys = jax.random.split(key_w, depth)
    shape = config.side, config.side, config.channels
    draw = functools.partial(
        KERNELS[kernel], shape=(3, 3, *shape[2:] * 2), dtype=jnp.float32
    )

    def layer(h, key):
        return _circular(h, draw(key)), jnp.linalg.norm(h)

    def back(g, key):
        _, pull = jax.vjp(lambda h: _circular(h, draw(key)), jnp.zeros(shape))
        return pull(g)[0], jnp.linalg.norm(g)

    x, g = jax.random.normal(key_x, shape), jax.random.normal(key_g, shape)
    _, forward = jax.lax.scan(layer, x, jax.random.clone(keys))
    _, backward = jax.lax.scan(back, g, keys, reverse=True)
    return forward / forward[0], backward / backward[-1]


def _circular(image, kernel):
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="wrap")[None]
    numbers = ("NHWC", "HWIO", "NHWC")
    arguments = padded, kernel, (1, 1), "VALID"
    return jax.lax.conv_general_dilated(*arguments, dimension_numbers=numbers)[0]


def claims(config, arrays):
    """The isometry, both ways, and that the other two kernels are none."""
    isometry = [
        claim(
            f"norm of {what} over {config.depth} delta-orthogonal convolutions",
            arrays[key][end],
            1,
            **{"within": 1e-3, "source": XIAO, "row": "19"},
        )
        for what, key, end in (
            ("a signal", "forward", -1),
            ("a gradient", "backward", 0),
        )
    ]
    others = [
        claim(
            f"scatter of ln(factor per layer) of a gradient, {name} kernels",
            np.diff(np.log(arrays[name])).std(),
            0,
            **{"between": (1e-3, np.inf), "source": XIAO},
        )
        for name in ("orthogonal", "Gaussian")
    ]
    return [*isometry, *others]


def plot(config, arrays):
    """Norms of a gradient on its way back, for each kind of kernel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in KERNELS:
        axes.plot(np.arange(len(arrays[name])), arrays[name], label=name)
    axes.set_title("gradients in deep convolutional networks", fontsize="medium")
    axes.set(yscale="log", xlabel="layer", ylabel="gradient norm / that at the end")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
