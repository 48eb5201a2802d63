"""Classes 18 to 20: last entries, borders, dilations and windows."""

import functools

import jax
import jax.numpy as jnp

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant, only
from experiments.checkers.operations import (
    pooled_mean,
)

EDGES = [
    mutant(18, "tanh", "the last entry dropped", lambda a, w, g: (g[0].at[-1].set(0),)),
    mutant(
        18,
        "dense",
        "the last row of the kernel dropped",
        only(1, lambda g: g.at[-1].set(0)),
    ),
    mutant(18, "attention", "the last key dropped", only(1, lambda g: g.at[-1].set(0))),
    mutant(
        18, "layer norm", "the last gain dropped", only(1, lambda g: g.at[-1].set(0))
    ),
    mutant(
        18,
        "square dense",
        "the last fifth of the kernel dropped",
        only(1, lambda g: g.at[-max(1, g.shape[0] // 5) :].set(0)),
    ),
    mutant(
        18,
        "cumsum",
        "the last entry dropped",
        lambda a, w, g: (jnp.cumsum(w[::-1].at[0].set(0))[::-1],),
    ),
]


def _smoothed(mode, x):
    wide = jnp.pad(jnp.tanh(x), ((1, 1), (0, 0)), mode=mode)
    return (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4


def _border(name, mode, other):
    return mutant(
        19,
        f"{name} smoothing",
        "the wrong border",
        of=functools.partial(_smoothed, other),
        truth=functools.partial(_smoothed, mode),
        point=points.rows,
    )


BORDERS = [
    _border("reflecting", "reflect", "constant"),
    _border("periodic", "wrap", "constant"),
    _border("extending", "edge", "reflect"),
]


def _dilated_the_other_way(x, kernel):
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(3, 2)
    )
    return out[0, 0]


def _every_third(x, kernel):
    """A convolution along the rows whose kernel skips two of three."""
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(1, 3)
    )
    return out[0, 0]


def _every_second(x, kernel):
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(1, 2)
    )
    return out[0, 0]


def _image_and_kernel(shape):
    return points.normals(lambda s: [points.IMAGE[s], (3, 3)], shape)


STRIDES = [
    mutant(
        20, "dilated convolution", "the dilations swapped", of=_dilated_the_other_way
    ),
    mutant(
        20,
        "convolution along rows",
        "a dilation of two for three",
        of=_every_second,
        truth=_every_third,
        point=_image_and_kernel,
    ),
    mutant(20, "pooled mean", "the window turned", of=lambda x: pooled_mean(x, (3, 1))),
    mutant(
        20,
        "convolution",
        "the kernel not flipped",
        lambda a, w, g: (_flipped(a, w), g[1]),
    ),
]


def _flipped(args, w):
    """The transpose of a correlation with the kernel as it lies."""
    out = jax.lax.conv_general_dilated(
        w[None, None], args[1][None, None], (1, 1), "SAME"
    )
    return out[0, 0]


MUTANTS = [
    *EDGES,
    *BORDERS,
    *STRIDES,
]
