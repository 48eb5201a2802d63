"""The state of a run and the compiled function that advances it by several steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from gradstab import _tree
from gradstab.clipping import RecordedState
from gradstab.records import record
from gradstab.training.losses import metrics_for


@record
class State:
    """Everything that the rest of a run depends on, apart from its data.

    Attributes:
        params: nested dictionary of the model's `flax.nnx.Param` arrays.
        model_state: nested dictionary of its other arrays: batch statistics, random
            keys and their counters.
        opt_state: state of the optimiser.
        step: int32 scalar, the number of steps taken.
        failed: boolean scalar, whether step ``step`` gave a non-finite loss or update.
            A failed state is the one before that step, and no step changes it.
    """

    params: Any
    model_state: Any
    opt_state: Any
    step: jax.Array
    failed: jax.Array


def initial_state(model: Any, optimizer: optax.GradientTransformation, /) -> State:
    """The state before the first step; it shares no buffer with the model.

    Args:
        model: an `flax.nnx.Module`.
        optimizer: an optax transformation.

    Examples:
        >>> import optax
        >>> from flax import nnx
        >>> state = initial_state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> state.params["kernel"].shape, int(state.step)
        ((2, 3), 0)
    """
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = jax.tree.map(
        jnp.copy, (nnx.to_pure_dict(params), nnx.to_pure_dict(model_state))
    )
    return State(
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        failed=jnp.zeros((), bool),
    )


def graphdefs(model: Any, /) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    """The model's structure in training mode and in evaluation mode; neither is set."""
    copy = nnx.clone(model)
    copy.train()
    train = nnx.graphdef(copy)
    copy.eval()
    return train, nnx.graphdef(copy)


def as_model(graphdef: nnx.GraphDef, state: State, /) -> nnx.Module:
    """A model with the arrays of the state."""
    return nnx.merge(graphdef, state.params, state.model_state, copy=True)


def make_steps(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    /,
    *,
    loss: Callable,
    metrics: dict[str, Callable] | None = None,
    value_and_grad: Callable | None = None,
) -> Callable:
    r"""A compiled function that takes several optimiser steps in one dispatch.

    One step is :math:`\theta \leftarrow \theta + u(\nabla_\theta L)` with the
    optimiser's update :math:`u`; batches are gathered by index inside the loop, from
    data that stay on the device. A step whose loss or update is not finite is not
    taken: the state keeps its value of before, with ``failed`` set, and the steps after
    it do nothing. Functions made from equal arguments are one function, compiled once.

    Args:
        graphdef: the model's structure, from `flax.nnx.split`, in training mode.
        optimizer: an optax transformation.
        loss: ``loss(output, y)``, a scalar.
        metrics: functions like the loss, by name; `accuracy` if None and the targets
            are integers.
        value_and_grad: `gradstab.value_and_grad` or one with options, to watch every
            step; None for `jax.value_and_grad`.

    Returns:
        ``steps(state, x, y, plan, stop) -> (state, records)``, of watched steps
        ``(state, records, statistics)``. ``plan`` is an integer
        array ``(num_steps, batch_size)`` of positions on the leading axis of ``x`` and
        ``y``; steps from number ``stop`` on are not taken. ``records`` holds arrays
        ``(num_steps,)`` for every step of the plan: ``taken``, ``loss``,
        ``update_norm``, the metrics, and what `gradstab.clipping.recorded` keeps. The
        state is donated.

    Examples:
        >>> import jax.numpy as jnp, numpy as np, optax
        >>> from flax import nnx
        >>> from gradstab.training import mean_squared_error
        >>> model, optimizer = nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1)
        >>> steps = make_steps(nnx.graphdef(model), optimizer, loss=mean_squared_error)
        >>> x = jnp.ones((4, 1))
        >>> plan = np.zeros((10, 2), np.int32)
        >>> state, records = steps(initial_state(model, optimizer), x, x, plan, 8)
        >>> int(state.step), records["taken"].sum().item()
        (8, 8)
    """
    pairs = None if metrics is None else tuple(metrics.items())
    arguments = (graphdef, optimizer, loss, pairs, value_and_grad)
    try:
        hash(arguments)
    except TypeError:  # a model with an unhashable attribute: compiled once per call
        return _make_steps(*arguments)
    return _cached_steps(arguments)


def _make_steps(graphdef, optimizer, loss: Callable[..., Any], pairs, value_and_grad):
    metrics = None if pairs is None else dict(pairs)
    watched = value_and_grad is not None
    take = functools.partial(_step, graphdef, optimizer, loss, metrics, value_and_grad)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state: Any, x: jax.Array, y: jax.Array, plan, stop):
        def body(state: Any, indices):
            x_batch, y_batch = (
                a.at[indices].get(mode="promise_in_bounds") for a in (x, y)
            )
            return take(state, x_batch, y_batch, stop)

        state, found = lax.scan(body, state, plan)
        return (state, *found) if watched else (state, found)

    return steps


@functools.lru_cache(maxsize=16)
def _cached_steps(arguments):
    return _make_steps(*arguments)


def _step(
    graphdef,
    optimizer,
    loss: Callable[..., Any],
    metrics,
    value_and_grad,
    state: Any,
    x: jax.Array,
    y: jax.Array,
    stop,
):
    objective = objective_of(graphdef, loss, state.model_state, x, y)
    watched = value_and_grad is not None
    differentiated = (value_and_grad or jax.value_and_grad)(objective, has_aux=True)
    (value, aux), grads = differentiated(state.params)
    (model_state, output), stats = aux if watched else (aux, None)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    if stats is not None:
        stats = stats.with_updates(updates, state.params)
    params = optax.apply_updates(state.params, updates)
    update_norm = _norm(updates)
    active = ~state.failed & (state.step < stop)
    finite = jnp.isfinite(value) & jnp.isfinite(update_norm)
    taken = active & finite
    keep = functools.partial(jax.tree.map, functools.partial(_select, taken))
    state = State(
        params=keep(params, state.params),
        model_state=keep(model_state, state.model_state),
        opt_state=keep(opt_state, state.opt_state),
        step=state.step + taken.astype(jnp.int32),
        failed=state.failed | (active & ~finite),
    )
    records = {"taken": taken, "loss": value, "update_norm": update_norm}
    records |= {name: metric(output, y) for name, metric in metrics_for(y, metrics)}
    records |= _clipping_records(opt_state)
    return state, ((records, stats) if watched else records)


def objective_of(graphdef, loss: Callable[..., Any], model_state: Any, x, y, /):
    """What a step differentiates: ``params -> (loss, (model_state, output))``."""

    def objective(params: Any):
        model = nnx.merge(graphdef, params, model_state)
        output = model(x)
        _, _, after = nnx.split(model, nnx.Param, ...)
        return loss(output, y), (nnx.to_pure_dict(after), output)

    return objective


def _select(condition, new, old):
    if not jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        return jnp.where(condition, new, old)
    # As numbers: to choose between two keys would count as using both.
    data = jnp.where(condition, *map(jax.random.key_data, (new, old)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))


_RECORDED = ("pre_norm", "post_norm", "clipped", "clip_cosine", "nonfinite_count")


def _clipping_records(opt_state):
    """What each `gradstab.clipping.recorded` in the optimiser saw at this step."""
    states = _tree.nodes_of(opt_state, RecordedState)
    return {
        name if number == 1 else f"{name}_{number}": getattr(state, name)
        for number, state in enumerate(states, start=1)
        for name in _RECORDED
    }


def _norm(tree: Any):
    """`_tree.safe_norm` in one pass, not two, wherever no square is out of range."""
    exact = jax.eval_shape(_tree.safe_norm, tree)
    leaves = [jnp.abs(leaf).astype(exact.dtype) for leaf in _tree.floating_leaves(tree)]
    total = jnp.asarray(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves), exact.dtype)
    limits = jnp.finfo(exact.dtype)
    # Squares below `tiny` are lost: together at most num_entries * tiny, which must be
    # less than a rounding error of the total.
    enough = _tree.num_entries(tree) * float(limits.tiny) / float(limits.eps)
    in_range = (total >= enough) & (total <= limits.max)
    return lax.cond(in_range, lambda: jnp.sqrt(total), lambda: _tree.safe_norm(tree))
