"""Forward and backward signals of every layer, in one compiled pass."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _tree
from gradstab.network.activations import find_activations, saturation
from gradstab.network.replay import Network, Replay, find_layers, layer_slice
from gradstab.records import Signals


class Propagation(NamedTuple):
    """Signals, and the arrays they were reduced from.

    Attributes:
        signals: one number per layer.
        replay: output, activations and contexts.
        gradients: per block d loss / d (data that leave), stacked as in the replay.
        param_gradients: like the parameters.
        loss: scalar.
    """

    signals: Signals
    replay: Replay
    gradients: list
    param_gradients: object
    loss: jax.Array


def propagate(
    network: Network, params, state, inputs, /, *, loss=None, key=None
) -> Propagation:
    """Send the inputs forward and the gradient of the loss backward.

    Args:
        network: from `find_layers`.
        params: parameters.
        state: state; ``()`` if the model has none.
        inputs: tuple of inputs, examples on the leading axis.
        loss: ``loss(output) -> scalar``, on the whole output. Without it each example
            gets one random unit cotangent, drawn with ``key``.
        key: a PRNG key; `jax.random.key(0)` if not given.

    Returns:
        Signals and what they come from. Cost: one evaluation, one gradient and a few
        reductions, in one compiled program whose size does not grow with the depth of
        a scan. Memory: two arrays per activation.
    """
    key = jax.random.key(0) if key is None else key
    return _propagate(network, loss, params, state, inputs, key)


def locate_nonfinite(apply, params, inputs, loss, /, *, output=None):
    """Name the first layer with a NaN or an infinity.

    Looked for in this order: parameters from the input on; data that leave a layer,
    from the input on; gradients at a layer's output, from the loss back to the input;
    gradients of parameters, likewise.

    Args:
        apply: ``apply(params, *inputs)``.
        params: parameters.
        inputs: tuple of inputs.
        loss: ``loss(output) -> scalar``.
        output: selects the differentiated array, see `find_layers`.

    Returns:
        ``(name of the layer, 'parameters' | 'forward' | 'backward')``; None if all
        numbers are finite. If every layer's data are finite but the loss is not, the
        name is ``'loss'``.
    """
    network = find_layers(apply, params, inputs, output=output)
    result = propagate(network, params, (), inputs, loss=loss)
    leaves = dict(
        zip(network.program.param_names, jax.tree.leaves(params), strict=True)
    )
    for place in network.layers:
        if not bool(_tree.all_finite([_owned(leaves, place, n) for n in place.params])):
            return place.name, "parameters"
    for place in network.layers:
        if not bool(_tree.all_finite(layer_slice(result.replay.activations, place))):
            return place.name, "forward"
    if not bool(jnp.isfinite(result.loss)):
        return "loss", "forward"
    leaves = dict(
        zip(
            network.program.param_names,
            jax.tree.leaves(result.param_gradients),
            strict=True,
        )
    )
    for place in reversed(network.layers):
        finite = _tree.all_finite(layer_slice(result.gradients, place))
        own = [_owned(leaves, place, name) for name in place.params]
        if not (bool(finite) and bool(_tree.all_finite(own))):
            return place.name, "backward"
    return None


def _owned(leaves, place, name):
    leaf = leaves[name]
    return leaf[place.index] if name in place.sliced_params else leaf


@functools.partial(jax.jit, static_argnums=(0, 1))
def _propagate(network, loss, params, state, inputs, key):
    def total(params, taps):
        replay = network.replay(params, state, inputs, taps)
        return _loss(network, replay.output, loss, key), replay

    gradient = jax.value_and_grad(total, argnums=(0, 1), has_aux=True, allow_int=True)
    (value, replay), (of_params, of_taps) = gradient(params, network.zero_taps())
    num_examples = jax.tree.leaves(inputs)[0].shape[0]
    columns = _signals(network, params, of_params, replay, of_taps, num_examples)
    rows = [layer_slice(columns, place) for place in network.layers]
    table = jax.tree.map(lambda *entries: jnp.stack(entries), *rows)
    if loss is None:
        unknown = jnp.full_like(table["param_gradient_norm"], jnp.nan)
        table["param_gradient_norm"] = unknown
    signals = Signals(**table, names=network.names)
    return Propagation(signals, replay, of_taps, of_params, value)


def _signals(network, params, of_params, replay, of_taps, num_examples):
    """For each block a dictionary of its signals, stacked over the layers of a scan."""
    params, of_params = jax.tree.leaves(params), jax.tree.leaves(of_params)
    columns = []
    for number, block in enumerate(network.blocks):
        owned = sorted(block.owned)
        axes = [0 if leaf in block.sliced else None for leaf in owned]
        function = functools.partial(_layer_signals, block, num_examples)
        in_scan = any(p.block == number and p.index is not None for p in network.layers)
        if in_scan:
            function = jax.vmap(function, in_axes=(0, 0, 0, 0, axes, axes))
        column = function(
            replay.entering[number],
            replay.activations[number],
            replay.contexts[number],
            of_taps[number],
            [params[leaf] for leaf in owned],
            [of_params[leaf] for leaf in owned],
        )
        columns.append(column)
    return columns


def _layer_signals(block, num_examples, entering, out, context, gradient, own, of_own):
    activations = find_activations(block)
    lost = saturation(block, activations, context, entering)
    by_example = out.ndim > 0 and out.shape[0] == num_examples
    norms = (
        jax.vmap(_tree.safe_norm)(gradient)
        if by_example
        else jnp.full((num_examples,), jnp.nan, jnp.float32)
    )
    scale = jnp.sqrt(jnp.asarray(max(out.size, 1), jnp.float32))
    return {
        "forward_rms": _tree.safe_norm(out) / scale,
        "forward_mean": jnp.mean(out),
        "zero_fraction": jnp.mean((out == 0).astype(jnp.float32)),
        "saturated_fraction": lost.saturated,
        "dead_fraction": lost.dead,
        "gradient_norms": norms,
        "gradient_rms": _tree.safe_norm(gradient) / scale,
        "param_norm": _tree.safe_norm(own),
        "param_gradient_norm": _tree.safe_norm(of_own),
    }


def _loss(network, output, loss, key):
    if loss is not None:
        value = loss(output)
        if jnp.shape(value) != ():
            raise ValueError(
                f"loss(output) must return a scalar, got shape {jnp.shape(value)}; "
                "take the mean or the sum over the examples"
            )
        return value
    out = jax.tree.leaves(output)[network.program.out_index]
    v = jax.random.normal(key, out.shape, out.dtype)
    flat = v.reshape(v.shape[0], -1)
    unit = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
    return jnp.sum(out.reshape(flat.shape) * unit)
