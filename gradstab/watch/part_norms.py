"""Norms of the gradients of parts of a batch: of replicas, or of micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _checked, _tree
from gradstab.errors import UserValueError
from gradstab.records import record, static
from gradstab.watch.models import is_array
from gradstab.watch.norms import norm_of_norms
from gradstab.watch.pure_loss import pure_loss
from gradstab.watch.scalars import GradientNoise, gradient_noise


@record
class PartNorms:
    """Norms of the gradients of equal parts of a batch, beside that of the batch.

    Attributes:
        by_param: norm of the gradient of the batch, ``(params,)``.
        parts_by_param: that of each part, ``(parts, params)``.
        names: of the parameters, by their paths.
        batch_size: examples in the batch.
    """

    by_param: jax.Array
    parts_by_param: jax.Array
    names: tuple[str, ...] = static()
    batch_size: int = static()

    @property
    def norm(self) -> jax.Array:
        """The global norm of the gradient of the batch, ``()``."""
        return norm_of_norms(self.by_param)

    @property
    def parts(self) -> jax.Array:
        """The global norm of the gradient of each part, ``(parts,)``."""
        return norm_of_norms(self.parts_by_param)

    @property
    def noise(self) -> GradientNoise:
        """Signal and noise of the gradient of this batch: see `gradient_noise`."""
        return gradient_noise(self.norm, self.parts, batch_size=self.batch_size)


def part_norms(
    loss_fn: Callable,
    params: Any,
    /,
    *batch: Any,
    num_parts: int,
    has_aux: bool = False,
) -> PartNorms:
    r"""The norm of the gradient of every part of a batch, and of the batch.

    Part :math:`i` of :math:`k` has the examples from :math:`i B / k` on. With as many
    parts as devices, and a batch whose leading axis is spread over them, part
    :math:`i` is what device :math:`i` has: the norm is that of its gradient before the
    replicas' gradients are averaged, and no part leaves its device. One replica far
    above the others has data, or a device, that is not like theirs. The norm of the
    mean falls behind the parts' with the noise: `PartNorms.noise`, of which
    `noise_scale` of many steps makes the gradient noise scale.

    It costs a gradient, and memory for one gradient per part: take it every so many
    steps. It works inside of `jax.jit`.

    Args:
        loss_fn: ``loss_fn(params, *batch)``, the mean over the examples of a batch. In
            it, what is common to a batch (the statistics of batch normalisation) is
            that of a part.
        params: a pytree of arrays, an `flax.nnx.Module`, or an Equinox module.
        batch: arrays, or pytrees of them, whose leading axis is that of the examples.
        num_parts: in how many parts the batch is taken, :math:`k`; it divides the
            number of examples.
        has_aux: whether the loss returns a pair of itself and anything else.

    Raises:
        TypeError: the loss is no function, or its value no real scalar.
        ValueError: the arrays of the batch have not the same number of examples, or it
            has not so many equal parts.

    Examples:
        >>> import jax.numpy as jnp
        >>> def loss(w, x):
        ...     return jnp.mean(x @ w)
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> norms = part_norms(loss, jnp.ones(2), x, num_parts=2)
        >>> norms.parts.tolist(), round(float(norms.norm), 3)
        ([1.0, 2.0], 1.118)

    References:
        McCandlish, Kaplan, Amodei and OpenAI Dota Team (2018), An empirical model of
        large-batch training, appendix A.1.
    """
    _checked.whole_number(num_parts, "num_parts", least=2)
    batch_size = _batch_size(batch, num_parts)
    tree, loss = pure_loss(loss_fn, params, has_aux)
    size = batch_size // num_parts
    parts = jax.tree.map(lambda x: x.reshape(num_parts, size, *x.shape[1:]), batch)

    grads = jax.vmap(lambda part: jax.grad(loss)(tree, *part))(parts)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0, keepdims=True), grads)
    names = tuple(_tree.paths(tree))
    return PartNorms(_norms(mean)[0], _norms(grads), names, batch_size)


def _norms(grads):
    """``(parts, leaves)``: the norms of arrays of parts, in the widest dtype."""
    leaves = jax.tree.leaves(grads)
    norms = [_tree.safe_norm(x, axes=tuple(range(1, x.ndim))) for x in leaves]
    wide = _tree.widest(*(norm.dtype for norm in norms))
    return jnp.stack([norm.astype(wide) for norm in norms], axis=-1)


def _batch_size(batch, num_parts):
    leaves = jax.tree.leaves(batch)
    shapes = [x.shape if is_array(x) else () for x in leaves]
    sizes = sorted({shape[0] if shape else None for shape in shapes}, key=str)
    if len(sizes) != 1 or sizes[0] is None:
        raise UserValueError(
            "the arrays of a batch have the examples on their leading axis, as many in "
            f"each; got the shapes {', '.join(map(str, shapes)) or 'of no array'}. "
            "Close over what is no part of the batch: lambda params, x: "
            "loss(params, x, key)"
        )
    (size,) = sizes
    if size % num_parts or not size:
        raise UserValueError(
            f"a batch of {size} examples has no {num_parts} equal parts"
        )
    return size
