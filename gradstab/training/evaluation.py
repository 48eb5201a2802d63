"""Loss and metrics of a model on held-out examples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from gradstab.training.losses import cross_entropy, metrics_for


def evaluate(
    model: Any,
    x: Any,
    y: Any,
    /,
    *,
    loss: Callable = cross_entropy,
    metrics: dict[str, Callable] | None = None,
    batch_size: int = 1000,
) -> dict[str, float]:
    """Mean loss and metrics over examples, with the model in evaluation mode.

    Args:
        model: an `flax.nnx.Module`; it is not changed.
        x: inputs ``(examples, ...)``.
        y: targets ``(examples, ...)``.
        loss: ``loss(output, y)``, the mean over a batch.
        metrics: as the loss, by name; `accuracy` where the targets are integers if
            None.
        batch_size: of the evaluation; it bounds the memory and changes no value beyond
            rounding.

    Returns:
        ``{"loss": ..., "accuracy": ...}``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> zeros = nnx.initializers.zeros
        >>> model = nnx.Linear(2, 3, kernel_init=zeros, rngs=nnx.Rngs(0))
        >>> result = evaluate(model, jnp.ones((5, 2)), jnp.array([0, 0, 1, 2, 2]))
        >>> round(result["loss"], 4), round(result["accuracy"], 4)
        (1.0986, 0.4)
    """
    copy = nnx.clone(model)
    copy.eval()
    graphdef, params, model_state = nnx.split(copy, nnx.Param, ...)
    function = make_evaluation(
        graphdef, loss=loss, metrics=metrics, batch_size=batch_size
    )
    values = function(
        nnx.to_pure_dict(params), nnx.to_pure_dict(model_state), *jax.device_put((x, y))
    )
    return {name: float(value) for name, value in values.items()}


def make_evaluation(
    graphdef, /, *, loss: Callable[..., Any], metrics, batch_size: int = 1000
) -> Callable:
    """A compiled ``evaluation(params, model_state, x, y) -> {name: mean}``.

    Args:
        graphdef: of the model in evaluation mode.
        loss: ``loss(output, y)``, the mean over a batch.
        metrics: functions like the loss, by name; see `evaluate`.
        batch_size: examples in memory at a time.
    """

    def on_batch(params: Any, model_state: Any, batch: Any):
        x, y = batch
        output = nnx.merge(graphdef, params, model_state, copy=True)(x)
        values = {name: metric(output, y) for name, metric in metrics_for(y, metrics)}
        return {"loss": loss(output, y)} | values

    @jax.jit
    def evaluation(params: Any, model_state: Any, x, y):
        one = functools.partial(on_batch, params, model_state)
        num = len(x)
        whole = num // batch_size
        totals = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, (x[:1], y[:1])))
        if whole:
            batches = jax.tree.map(
                lambda a: a[: whole * batch_size].reshape(
                    whole, batch_size, *a.shape[1:]
                ),
                (x, y),
            )
            means = lax.map(one, batches)
            totals = jax.tree.map(lambda m: batch_size * jnp.sum(m), means)
        rest = num - whole * batch_size
        if rest:
            last = one((x[-rest:], y[-rest:]))
            totals = jax.tree.map(lambda total, m: total + rest * m, totals, last)
        return jax.tree.map(lambda total: total / num, totals)

    return evaluation
