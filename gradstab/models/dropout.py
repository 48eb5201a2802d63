"""Dropout that is absent where its rate is zero."""

import jax
from flax import nnx

from gradstab.errors import UserValueError


def make_dropout(rate: float, /, *, rngs: nnx.Rngs) -> nnx.Dropout | None:
    """The layer that a model's ``dropout`` option asks for; none at rate 0.

    Active after ``model.train()``, off after ``model.eval()``. Every layer has a random
    stream of its own, which advances with every call.
    """
    if not 0 <= rate < 1:
        raise UserValueError(
            f"dropout is the share set to zero, in [0, 1); got {rate}."
        )
    return nnx.Dropout(rate, rngs=rngs) if rate else None


def drop(dropout: nnx.Dropout | None, h: jax.Array, /) -> jax.Array:
    """``h`` through the layer, if there is one."""
    return h if dropout is None else dropout(h)
