"""What a run says when its loss or its update is not finite."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from gradstab import _tree, network
from gradstab.errors import UserError
from gradstab.training.step import State


class NonFiniteLossError(UserError, FloatingPointError):
    """The loss, or the update that the optimiser made, was not finite.

    Attributes:
        step: number of the step that was not taken, counted from 1.
        layer: name of the first layer concerned; 'loss' if the layers are finite, but
            not the loss; None if it is the optimiser.
        where: 'forward' (the loss), 'backward' (the gradient of a finite loss) or
            'update' (the optimiser's update for a finite gradient).
        state: the `State` before that step.
        run: the `Run` up to that step.
    """

    def __init__(self, message: str, *, step, layer, where, state: Any):
        super().__init__(message)
        self.step, self.layer, self.where, self.state = step, layer, where, state
        self.run: Any = None


def nonfinite_loss_error(
    graphdef,
    loss: Callable[..., Any],
    state: State,
    x,
    y,
    /,
    *,
    value: float,
    kept: str,
) -> NonFiniteLossError:
    """The error for a failed state and the batch it failed on.

    Args:
        graphdef: of the model in training mode.
        loss: ``loss(output, y)``.
        state: with ``failed`` set: the one before the step.
        x: inputs of the batch.
        y: targets of the batch.
        value: the loss that the step found.
        kept: what is left of the run, a sentence.
    """
    apply = _apply(graphdef, state)

    def gradient_is_finite():
        gradient = jax.jit(jax.grad(lambda params: loss(apply(params, x), y)))
        return bool(_tree.all_finite(gradient(state.params)))

    where = "forward"
    if math.isfinite(value):
        where = "update" if gradient_is_finite() else "backward"
    found = None
    if where != "update":
        found = locate(graphdef, loss, state, x, y)
    layer = found[0] if found else None
    step = int(state.step) + 1
    return NonFiniteLossError(
        f"step {step}: {_WHAT[where].format(loss=value)} "
        f"{_culprit(found, where)} The step was not taken. {kept}",
        step=step,
        layer=layer,
        where=where,
        state=state,
    )


def locate(graphdef, loss: Callable[..., Any], state: State, x, y, /):
    """The first layer with a NaN or an infinity; see `network.locate_nonfinite`."""
    return network.locate_nonfinite(
        _apply(graphdef, state),
        state.params,
        (x,),
        lambda o: loss(o, y),
        # The first array: logits come before those of auxiliary heads.
        output=lambda o: jax.tree.leaves(o)[0],
    )


def _apply(graphdef, state):
    def apply(params: Any, x):
        # A copy of the variables: nothing that the model changes may leave the trace.
        return nnx.merge(graphdef, params, state.model_state, copy=True)(x)

    return apply


_WHAT = {
    "forward": "the loss is {loss}.",
    "backward": "the loss is {loss:g}, but its gradient is not finite.",
    "update": "the loss is {loss:g} and its gradient finite, but not the optimiser's "
    "update.",
}


def _culprit(found, where):
    if where == "update":
        return "Lower the learning rate, or look at the optimiser's state."
    if found is None or found[0] == "loss":
        return "It is not a layer that breaks: look at the loss function."
    layer, part = found
    return f"The first layer that is not finite is {layer!r} ({part})."
