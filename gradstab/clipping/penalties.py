"""L1 and L2 penalties, added to the gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gradstab._tree import is_floating
from gradstab.clipping._arguments import check_number
from gradstab.clipping._scaled import widen
from gradstab.clipping._transformations import map_with_params, stateless

# As Flax, Haiku and Equinox name them: biases, and scales and shifts of normalisations.
_NO_WEIGHTS = ("bias", "b", "scale", "offset", "gamma", "beta")


def add_l1_penalty(
    weight: float, *, mask: Callable[[str, tuple[int, ...]], bool] | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of :math:`\lambda \sum_i |w_i|`, which is :math:`\pm\lambda`.

    It has the sign of :math:`w_i`; at zero the subgradient 0 is taken. Put it before
    the clipping for a penalty that is part of the loss, after it for one that is not
    clipped.

    Args:
        weight: :math:`\lambda \ge 0`, in units of loss per unit of parameter.
        mask: which parameters are penalised, a function of dotted path and shape; all
            if None. `weights_only` leaves out biases and normalisations.

    Raises:
        ValueError: if the weight is negative or NaN; on update, without parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = add_l1_penalty(0.1)
        >>> params = jnp.array([2.0, -3.0, 0.0])
        >>> tx.update(jnp.zeros(3), tx.init(params), params)[0]
        Array([ 0.1, -0.1,  0. ], dtype=float32)
    """
    return _add_penalty("add_l1_penalty", jnp.sign, weight, mask)


def add_l2_penalty(
    weight: float, *, mask: Callable[[str, tuple[int, ...]], bool] | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of :math:`\frac{\lambda}{2} \sum_i w_i^2`: :math:`\lambda w`.

    Mind the half: for :math:`\lambda \sum_i w_i^2`, pass :math:`2 \lambda`. Before an
    adaptive optimiser this is L2 regularisation, not decoupled weight decay
    (`optax.adamw`).

    Args:
        weight: :math:`\lambda \ge 0`, in units of loss per squared unit of parameter.
        mask: which parameters are penalised, a function of dotted path and shape; all
            if None. `weights_only` leaves out biases and normalisations.

    Raises:
        ValueError: if the weight is negative or NaN; on update, without parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = add_l2_penalty(0.1, mask=weights_only)
        >>> params = {"kernel": jnp.full((1, 2), 5.0), "bias": jnp.full(2, 5.0)}
        >>> zeros = {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}
        >>> tx.update(zeros, tx.init(params), params)[0]
        {'bias': Array([0., 0.], dtype=float32),
         'kernel': Array([[0.5, 0.5]], dtype=float32)}
    """
    return _add_penalty("add_l2_penalty", lambda w: w, weight, mask)


def weights_only(path: str, shape: tuple[int, ...], /) -> bool:
    """Whether a parameter is neither a bias nor part of a normalisation.

    Scalars and vectors are not, nor anything of a name that ends in ``bias`` or is one
    of those that normalisations use; names are needed because biases of stacked layers
    are matrices.

    >>> weights_only("dense.kernel", (3, 4)), weights_only("blocks.bias", (8, 4))
    (True, False)
    """
    name = path.rsplit(".", 1)[-1]
    return len(shape) > 1 and name not in _NO_WEIGHTS and not name.endswith("bias")


def _add_penalty(name, slope, weight, mask):
    check_number("weight", weight)

    def one(path, grad: jax.Array, param: jax.Array):
        excluded = mask is not None and not mask(path, jnp.shape(param))
        if excluded or not is_floating(grad):
            return grad
        return _add_scaled(jnp.asarray(grad), weight, slope(jnp.asarray(param)))

    return stateless(
        lambda updates, params: map_with_params(one, name, updates, params)
    )


def _add_scaled(grad: jax.Array, weight, slope):
    # In float32 at least: a weight of 1e-8 is zero in float16.
    wide = widen(grad)
    scaled = jnp.asarray(weight, wide.dtype) * slope.astype(wide.dtype)
    return (wide + scaled).astype(grad.dtype)
