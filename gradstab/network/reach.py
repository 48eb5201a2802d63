"""Which layers the gradient of a loss reaches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat


def pull_back(pull: Callable[..., Any], cotangent: jax.Array, /):
    """Pull a cotangent back, and say which results it can reach at all.

    The program that pulls back is linear in the cotangent. A result that does not
    depend on it is zero for every loss behind: no path leads there.

    Args:
        pull: from `jax.vjp`.
        cotangent: what it takes.

    Returns:
        ``(results, reached)``; the second has a boolean for every array of the first.
        It is known when the program is traced.
    """
    traced, shapes = jax.make_jaxpr(pull, return_shape=True)(cotangent)
    values = _compat.closed_function(traced)(cotangent)
    reached = set(traced.jaxpr.invars)
    for eqn in traced.jaxpr.eqns:
        if any(_among(v, reached) for v in eqn.invars):
            reached.update(eqn.outvars)
    tree = jax.tree.structure(shapes)
    found = [_among(v, reached) for v in traced.jaxpr.outvars]
    return jax.tree.unflatten(tree, values), jax.tree.unflatten(tree, found)


def paths(network, leaves, taps: Any, /) -> list[bool]:
    """For every layer whether the program has a path from it to the loss.

    Args:
        network: from `find_layers`.
        leaves: by the number of a floating parameter leaf whether it is reached.
        taps: for every block whether its output is reached.

    Returns:
        A boolean per layer: one of its parameters is reached, and so is its output. A
        layer whose output alone is reached does not learn.
    """
    number_of = {name: i for i, name in enumerate(network.program.param_names)}
    found = []
    for place in network.layers:
        numbers = [number_of[name] for name in place.params]
        own = [leaves[number] for number in numbers if number in leaves]
        found.append(taps[place.block] and (any(own) or not own))
    return found


def disconnected(network, rms, reached, /) -> jax.Array:
    """Layers from which no path leads to the loss.

    Either the program has none, or the gradient at the layer's output is exactly zero
    although that of the next layer is far from underflow; and so are all layers before
    it whose gradient is zero as well. A gradient that is zero at the end of the network
    means nothing: the loss may be at its minimum.

    Args:
        network: from `find_layers`.
        rms: (layers,) root mean square of the gradients, in depth order.
        reached: from `paths`.

    Returns:
        Booleans ``(layers,)``.
    """
    variables = [network.blocks[place.block].out_var for place in network.layers]
    limits = (jnp.finfo(_compat.dtype_of(v)) for v in variables)
    # What is above this, multiplied with a rounding error, is still a normal number.
    lowest = jnp.array([float(x.tiny) / float(x.eps) for x in limits], rms.dtype)
    following = jnp.concatenate([rms[1:], jnp.zeros(1, rms.dtype)])
    cut = (rms == 0) & (following > lowest)

    def before(behind, here):
        zero, cut, path = here
        found = ~path | cut | (zero & behind)
        return found, found

    layers = (rms == 0, cut, jnp.array(reached))
    return jax.lax.scan(before, jnp.array(False), layers, reverse=True)[1]


def _among(atom: _compat.Var | _compat.Literal, variables):
    return not isinstance(atom, _compat.Literal) and atom in variables
