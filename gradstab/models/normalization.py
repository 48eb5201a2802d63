"""Normalisation layers by name, with statistics in at least single precision."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from gradstab.errors import UserKeyError, UserValueError


class MakeNorm(Protocol):
    """A function that makes a normalisation layer for so many features."""

    def __call__(  # noqa: D102 (described by the class)
        self, num_features: int, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> nnx.Module: ...


def batch_norm(*, momentum: float = 0.99, epsilon: float = 1e-5) -> MakeNorm:
    r"""Normalises each feature over the batch and all positions.

    In training mode (``model.train()``) with the statistics of the batch at hand, which
    couples its examples and updates the running averages, :math:`m \leftarrow
    \text{momentum}\, m + (1 - \text{momentum})\, \bar h`; in evaluation mode
    (``model.eval()``) with the averages.

    References:
        Ioffe and Szegedy (2015), Batch Normalization.
    """

    def make(num_features, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        return nnx.BatchNorm(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            # E[h^2] - E[h]^2 cancels when the signal's spread has vanished.
            use_fast_variance=False,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    return make


def layer_norm(*, epsilon: float = 1e-6) -> MakeNorm:
    """Normalises each position over its features (Ba et al. 2016)."""

    def make(num_features, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        return nnx.LayerNorm(
            num_features,
            epsilon=epsilon,
            use_fast_variance=False,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    return make


def group_norm(*, num_groups: int = 32, epsilon: float = 1e-6) -> MakeNorm:
    """Normalises groups of features over all positions of an example.

    Wu and He (2018), who use 32 groups. ``num_groups`` must divide the features.
    """

    def make(num_features, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        if num_features % num_groups:
            raise UserValueError(
                f"group norm cannot split {num_features} features into {num_groups} "
                "equal groups; choose a num_groups that divides the width."
            )
        return nnx.GroupNorm(
            num_features,
            num_groups=num_groups,
            epsilon=epsilon,
            use_fast_variance=False,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    return make


def rms_norm(*, epsilon: float = 1e-6) -> MakeNorm:
    """Divides each position by its root mean square (Zhang and Sennrich 2019)."""

    def make(num_features, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        return nnx.RMSNorm(
            num_features, epsilon=epsilon, param_dtype=param_dtype, rngs=rngs
        )

    return make


NORMALIZATIONS: dict[str, Callable[..., MakeNorm]] = {
    "batch": batch_norm,
    "layer": layer_norm,
    "group": group_norm,
    "rms": rms_norm,
}


def normalization(name: str | MakeNorm, /, **options) -> MakeNorm:
    """The maker of that name (a key of `NORMALIZATIONS`); a callable is returned as is.

    >>> make = normalization("batch", momentum=0.9)
    >>> make(3, param_dtype=jnp.float32, rngs=nnx.Rngs(0)).momentum
    0.9
    """
    if callable(name):
        return name
    if name not in NORMALIZATIONS:
        raise UserKeyError(
            f"no normalisation named {name!r}; known: {', '.join(NORMALIZATIONS)} "
            "(or None, or a function such as batch_norm(momentum=0.9))."
        )
    return NORMALIZATIONS[name](**options)


def make_norm(
    norm, num_features: int, /, *, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Module | None:
    """The layer that a model's ``norm`` option asks for."""
    if norm is None:
        return None
    wide = at_least_float32(param_dtype)
    layer = normalization(norm)(num_features, param_dtype=wide, rngs=rngs)
    # flax keeps running averages in float32 whatever the parameters are.
    stats = nnx.state(layer, nnx.BatchStat)
    nnx.update(layer, jax.tree.map(lambda s: s.astype(wide), stats))
    return layer


def normalize(norm, h: jax.Array, /) -> jax.Array:
    """``norm(h)`` with statistics in at least float32; ``h`` itself without a norm."""
    if norm is None:
        return h
    return norm(h.astype(at_least_float32(h.dtype))).astype(h.dtype)


def at_least_float32(dtype: DTypeLike, /):
    """The dtype, or float32 in place of a narrower one."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype("float32")
