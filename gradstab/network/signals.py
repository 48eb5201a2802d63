"""Forward and backward signals of every layer, in one compiled pass."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstab import _compat, _tree
from gradstab.errors import UserValueError
from gradstab.network.activations import find_activations, saturation
from gradstab.network.contexts import computed_only, held_arrays, with_held
from gradstab.network.extremes import largest, typical
from gradstab.network.finding import find_layers
from gradstab.network.losses import as_loss
from gradstab.network.norms import parameter_norms
from gradstab.network.reach import disconnected, paths, pull_back
from gradstab.network.replay import Network, Replay
from gradstab.network.runs import NetworkRun
from gradstab.program.compiled import compiled
from gradstab.program.compiling import quick_jit
from gradstab.records import Signals


def propagate(
    network: Network,
    params: Any,
    state: Any,
    inputs: tuple,
    /,
    *,
    loss: Callable[..., Any] | None = None,
    key: jax.Array | None = None,
    whole: bool = True,
) -> NetworkRun:
    """Send the inputs forward and the gradient of the loss backward.

    Args:
        network: from `find_layers`.
        params: parameters.
        state: state; ``()`` if the model has none.
        inputs: tuple of inputs, examples on the leading axis.
        loss: ``loss(output) -> scalar``, on the whole output. Without it each example
            gets one random unit cotangent, drawn with ``key``.
        key: a PRNG key; `jax.random.key(0)` if not given.
        whole: whether to return the output, the data that leave the layers and the
            gradients of the parameters as well.

    Returns:
        The run. Cost: one evaluation, one gradient and a few reductions, in one
        compiled program of which the part that grows with the depth of a scan or of a
        chain of equal layers only collects arrays. Memory: three arrays per activation,
        twice the parameters of layers in such a chain; what else is large is computed
        twice in layers that share a block.
    """
    if loss is None:
        program, seed = None, _random_cotangent(network, key)
    else:
        program, seed = as_loss(loss, network.program.output_shapes)
    for block in network.blocks:
        find_activations(block)  # they are measured: not while a program is traced
    passes = compiled(network, _propagate, program, whole)
    signals, replay, *rest = passes(params, state, inputs, seed)
    arrays = held_arrays(network.program, params, state, inputs)
    contexts = with_held(replay.contexts, network.held, arrays)
    replay = replay._replace(contexts=contexts)
    return NetworkRun(network, (params, state, inputs), signals, replay, *rest)


def locate_nonfinite(
    apply: Callable[..., Any],
    params: Any,
    inputs: tuple,
    loss: Callable[..., Any] | None,
    /,
    *,
    output: Any = None,
):
    """Name the first layer with a NaN or an infinity.

    Looked for in this order: parameters from the input on; data that leave a layer,
    from the input on; from the loss back to the input, the first layer whose output has
    a finite gradient, but whose parameters or input have not.

    Args:
        apply: ``apply(params, *inputs)``.
        params: parameters.
        inputs: tuple of inputs.
        loss: ``loss(output) -> scalar``.
        output: selects the differentiated array, see `find_layers`.

    Returns:
        ``(name of the layer, 'parameters' | 'forward' | 'backward')``; None if all
        numbers are finite. If the layers' data are finite but the loss or its gradient
        is not, the name is ``'loss'``.
    """
    network = find_layers(apply, params, inputs, output=output)
    run = propagate(network, params, (), inputs, loss=loss)
    values = _by_name(network, params)
    for place in network.layers:
        if not _finite([_owned(values, place, name) for name in place.params]):
            return place.name, "parameters"
    for layer in run.layers:
        if not _finite(layer.output):
            return layer.name, "forward"
    if not _finite(run.loss):
        return "loss", "forward"
    return _first_backward(run)


def _first_backward(run):
    network = run.network
    slopes = _by_name(network, run.param_gradients)
    uses = collections.Counter(
        name
        for place in network.layers
        for name in place.params
        if name not in place.sliced_params
    )
    following = "loss"
    for layer in reversed(run.layers):
        place = layer.place
        if not _finite(layer.gradient):
            return following, "backward"
        # The gradient of what several layers share does not tell which of them it was.
        own = [name for name in place.params if uses[name] <= 1]
        if not _finite([_owned(slopes, place, name) for name in own]):
            return place.name, "backward"
        following = place.name
    return None if _finite(list(slopes.values())) else (following, "backward")


def _finite(tree: Any):
    return bool(_tree.all_finite(tree))


def _by_name(network: Network, params: Any):
    return dict(zip(network.program.param_names, jax.tree.leaves(params), strict=True))


def _owned(leaves: Mapping[str, Any], place, name: str):
    leaf = leaves[name]
    return leaf[place.slice] if name in place.sliced_params else leaf


def _propagate(
    network: Network,
    loss: Callable[..., Any] | None,
    whole: bool,
    params: Any,
    state: Any,
    inputs: tuple,
    seed: Any,
):
    """See `propagate`; the seed is the cotangent, or what the loss holds."""
    leaves, tree = jax.tree.flatten(params)
    # Integers among the parameters have no gradient.
    which = [i for i, leaf in enumerate(leaves) if _tree.is_floating(leaf)]

    def total(floating, taps: Any):
        filled = tree.unflatten(_put(leaves, which, floating))
        replay = network.replay(filled, state, inputs, taps)
        return _loss(network, replay.output, loss, seed), replay

    floating = [leaves[i] for i in which]
    value, pull, replay = jax.vjp(total, floating, network.zero_taps(), has_aux=True)
    (slopes, of_taps), (params_reached, taps_reached) = pull_back(
        pull, jnp.ones_like(value)
    )
    reached = paths(
        network, dict(zip(which, params_reached, strict=True)), taps_reached
    )
    signals = _signals(network, leaves, replay, of_taps, reached)
    of_params = None
    # Without a loss they say nothing; the compiler drops what is not returned.
    if loss is not None:
        of_leaves = _put(map(jnp.zeros_like, leaves), which, slopes)
        of_params = tree.unflatten(of_leaves)
        norms = parameter_norms(network, of_leaves)
        signals = dataclasses.replace(signals, param_gradient_norm=norms)
    computed = computed_only(replay.contexts, network.held)
    replay = replay._replace(contexts=computed)
    if not whole:
        nothing = [None] * len(network.blocks)
        replay = replay._replace(output=None, activations=nothing)
        of_params = None
    return signals, replay, of_taps, of_params, value


def _put(leaves: Iterable[Any], positions, values: Sequence[Any]):
    """The leaves with new values at these positions."""
    filled = list(leaves)
    for position, value in zip(positions, values, strict=True):
        filled[position] = value
    return filled


def _signals(network: Network, leaves: Sequence[Any], replay: Replay, of_taps, reached):
    """The signals of all layers, but for those that come from a loss: NaN."""
    columns = [
        _block_signals(network, number, *arrays)
        for number, arrays in enumerate(
            zip(
                replay.entering,
                replay.activations,
                replay.contexts,
                of_taps,
                strict=True,
            )
        )
    ]
    table = {
        name: network.in_depth_order([column[name] for column in columns])
        for name in columns[0]
    }
    norms = parameter_norms(network, leaves)
    return Signals(
        **table,
        param_norm=norms,
        param_gradient_norm=jnp.full_like(norms, jnp.nan),
        disconnected=disconnected(network, table["gradient_rms"], reached),
        names=network.names,
    )


def _block_signals(
    network: Network, number: int, entering, out, context, gradient: jax.Array
):
    """The signals of the layers of one block, stacked."""
    block = network.blocks[number]
    function = functools.partial(_layer_signals, block, network.num_examples)
    if not network.is_scanned(number):
        columns = function(entering, out, context, gradient)
        return jax.tree.map(lambda array: array[None], columns)

    def of_layer(arrays):
        entering, out, varying, gradient = arrays
        return function(entering, out, context._replace(varying=varying), gradient)

    # One after the other: all at once would be the intermediate results of all.
    return jax.lax.map(of_layer, (entering, out, context.varying, gradient))


def _layer_signals(
    block, num_examples: int, entering, out, context, gradient: jax.Array
):
    activations = find_activations(block)
    lost = saturation(block, activations, context, entering)
    norms = (
        jax.vmap(_tree.safe_norm)(gradient)
        if out.shape[:1] == (num_examples,)
        else jnp.full((num_examples,), jnp.nan, jnp.float32)
    )
    numbers = _tree.real_view(out)
    wide = _tree.widest(numbers.dtype, jnp.float32)
    scale = math.sqrt(max(numbers.size, 1))
    return {
        "forward_rms": _tree.safe_norm(numbers) / scale,
        "forward_mean": jnp.mean(numbers.astype(wide)),
        "zero_fraction": jnp.mean((numbers == 0).astype(jnp.float32)),
        "saturated_fraction": lost.saturated,
        "dead_fraction": lost.dead,
        "gradient_norms": norms,
        "gradient_rms": _tree.safe_norm(gradient) / scale,
        "forward_max": largest(out),
        "forward_median": typical(out),
        "gradient_max": largest(gradient),
        "gradient_median": typical(gradient),
    }


def _loss(network: Network, output: Any, loss: Callable[..., Any] | None, seed: Any):
    if loss is not None:
        return loss(seed, output)
    out = jax.tree.leaves(output)[network.program.out_index]
    return jnp.sum((out * seed).real)


def _random_cotangent(network: Network, key: jax.Array | None):
    """A vector of norm one per example, shaped like the differentiated output."""
    out = network.program.out_var
    shape, dtype = _compat.shape_of(out), _compat.dtype_of(out)
    if shape[:1] != (network.num_examples,):
        raise UserValueError(
            f"the output has shape {shape}, without the {network.num_examples} "
            "examples on its leading axis; give the loss that makes use of it"
        )
    # Drawn outside of the large program, where it would double the time of it.
    return _unit_rows(
        jax.random.key(0) if key is None else key, shape=shape, dtype=dtype
    )


@functools.partial(quick_jit, static=("shape", "dtype"))
def _unit_rows(key: jax.Array, shape, dtype: DTypeLike):
    rows = jax.random.normal(key, shape, dtype).reshape(shape[0], -1)
    norms = jax.vmap(_tree.safe_norm)(rows).astype(dtype)
    return (rows / norms[:, None]).reshape(shape)
