"""Errors for inputs and options of the wrong shape, raised while JAX traces."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstab.errors import UserTypeError, UserValueError


def expect_shape(
    x: jax.Array, expected: Sequence[str | int], /, *, model: str
) -> jax.Array:
    """``x`` as an array, if its shape is as expected.

    Args:
        x: the input.
        expected: an entry per axis: a length, or the name of an axis of any length.
        model: named in the message.

    >>> expect_shape(jnp.zeros((2, 5)), ("batch", "time", 4), model="LSTM")
    Traceback (most recent call last):
    gradstab.errors.UserValueError: LSTM expects inputs of shape (batch, time, 4), ...
    """
    x = jnp.asarray(x)
    fits = x.ndim == len(expected) and all(
        isinstance(e, str) or e == n for e, n in zip(expected, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected))
        raise UserValueError(
            f"{model} expects inputs of shape ({wanted}), got {x.shape}."
        )
    return x


def expect_examples(x: jax.Array, features: int, /, *, model: str) -> jax.Array:
    """``x`` as a matrix ``(batch, features)``: axes after the first are flattened."""
    x = jnp.asarray(x)
    found = math.prod(x.shape[1:])
    if x.ndim < 2 or found != features:
        raise UserValueError(
            f"{model} expects a batch of examples with {features} features each, as "
            f"(batch, {features}) or with more axes that are flattened; got {x.shape}"
            + (f", {found} features each." if x.ndim > 1 else ", which has no batch.")
        )
    return x.reshape(x.shape[0], features)


def expect_floating(
    x: jax.Array, /, *, model: str, dtype: DTypeLike | None = None
) -> jax.Array:
    """``x`` in ``dtype`` (or its own), if it is floating; scale pixels first."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserTypeError(
            f"{model} expects floating inputs, got {x.dtype}; scale and convert them, "
            "for example x.astype('float32') / 255."
        )
    return x if dtype is None else x.astype(dtype)


def expect_layers(indices: Sequence[int], num_layers: int, /, *, option: str) -> tuple:
    """``indices`` as a tuple, if each names one of the layers counted from 0."""
    bad = [i for i in indices if not 0 <= i < num_layers]
    if bad:
        raise UserValueError(
            f"{option} names the layers {bad}, but there are {num_layers}, "
            f"counted from 0 to {num_layers - 1}."
        )
    return tuple(indices)


def expect_positive(**counts: int) -> None:
    """An error unless every count is an integer above 0."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise UserValueError(f"{name} must be a positive integer, got {count!r}.")
