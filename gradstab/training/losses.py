"""Losses and metrics of a batch: ``loss(output, y)``, a scalar."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstab.errors import UserTypeError, UserValueError


def main_output(output: Any, /) -> jax.Array:
    """The model's own output, without those of its auxiliary heads.

    Args:
        output: an array, or ``(array, auxiliary outputs)``.

    >>> main_output(("logits", ("first head", "second head")))
    'logits'
    """
    return output[0] if isinstance(output, tuple) else output


def cross_entropy(output: Any, y: Any, /) -> jax.Array:
    r"""Mean cross-entropy of integer labels, in nats.

    .. math:: -\frac{1}{n} \sum_i \ln \mathrm{softmax}(z_i)_{y_i}

    computed in float32 or wider.

    Args:
        output: logits :math:`z`, ``(..., classes)``; of a tuple, its first entry.
        y: integer labels of the leading axes of the logits.

    Returns:
        A scalar. :math:`\ln C` for uninformed logits over C classes.

    Raises:
        TypeError: the labels are not integers.
        ValueError: the shape of the labels is not that of the logits less one axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(cross_entropy(jnp.zeros((3, 10)), jnp.array([0, 4, 9]))), 4)
        2.3026
    """
    logits = _logits(output, y)
    losses = optax.softmax_cross_entropy_with_integer_labels(_widened(logits), y)
    return jnp.mean(losses)


def mean_squared_error(output: Any, y: Any, /) -> jax.Array:
    r"""Mean of :math:`(\hat y - y)^2` over every entry, in float32 or wider.

    Args:
        output: predictions; of a tuple, its first entry.
        y: targets of the same shape.

    Raises:
        ValueError: the shapes differ. They are not broadcast: ``(n, 1)`` against
            ``(n,)`` would compare every prediction with every target.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(mean_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
        2.0
    """
    output = main_output(output)
    if jnp.shape(output) != jnp.shape(y):
        raise UserValueError(
            f"predictions have shape {jnp.shape(output)} and targets {jnp.shape(y)}; "
            "mean_squared_error needs equal shapes. Reshape one of them."
        )
    return jnp.mean(jnp.square(_widened(output) - _widened(y)))


def accuracy(output: Any, y: Any, /) -> jax.Array:
    """The share of labels that have the largest logit.

    Args:
        output: logits ``(..., classes)``; of a tuple, its first entry.
        y: integer labels of the leading axes of the logits.

    Raises:
        TypeError: the labels are not integers.
        ValueError: the shape of the labels is not that of the logits less one axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(accuracy(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1])))
        0.5
    """
    return jnp.mean(jnp.argmax(_logits(output, y), axis=-1) == y, dtype=jnp.float32)


def with_auxiliary(loss: Callable[..., Any], /, *, weight: float = 0.3):
    r"""A loss that adds the losses of auxiliary heads: deep supervision.

    .. math:: L(z, y) + w \sum_k L(a_k, y)

    Args:
        loss: ``loss(output, y)`` of one head.
        weight: :math:`w` for each auxiliary head.

    Returns:
        ``loss(output, y)`` for ``output = (z, (a_1, ...))``. An output that is not a
        tuple has no auxiliary heads (as in evaluation) and gets the loss alone.

    References:
        Szegedy et al. (2015), Going deeper with convolutions, section 5 (weight 0.3);
        Lee et al. (2015), Deeply-supervised nets.

    Examples:
        >>> import jax.numpy as jnp
        >>> loss = with_auxiliary(mean_squared_error, weight=0.5)
        >>> one, three = jnp.array([1.0]), jnp.array([3.0])
        >>> float(loss((three, (one, one)), jnp.array([0.0])))
        10.0
    """

    def summed(output: Any, y: Any, /):
        if not isinstance(output, tuple):
            return loss(output, y)
        main, heads = output
        return loss(main, y) + weight * sum(loss(head, y) for head in heads)

    return summed


def metrics_for(y: Any, metrics, /) -> tuple[tuple[str, Callable], ...]:
    """Names and functions of the metrics asked for: of integer targets, the accuracy.

    Args:
        y: the targets, or a tracer of them.
        metrics: functions by name, or None.
    """
    if metrics is not None:
        return tuple(metrics.items())
    is_label = jnp.issubdtype(jnp.result_type(y), jnp.integer)
    return (("accuracy", accuracy),) if is_label else ()


def _logits(output: Any, y: Any):
    logits = main_output(output)
    if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise UserTypeError(
            f"labels have dtype {jnp.result_type(y)}; cross_entropy and accuracy need "
            "integer class labels. For real targets use mean_squared_error."
        )
    if jnp.shape(logits)[:-1] != jnp.shape(y):
        raise UserValueError(
            f"logits have shape {jnp.shape(logits)} and labels {jnp.shape(y)}; "
            f"expected labels of shape {jnp.shape(logits)[:-1]}, one for each row."
        )
    return logits


def _widened(x: jax.Array):
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
