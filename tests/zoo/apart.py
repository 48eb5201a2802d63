"""A model taken apart, and what JAX says of the model itself."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cut_by_hand import BY_HAND
from equinox_models import EQUINOX
from functions import FUNCTIONS
from haiku_models import HAIKU
from linen_models import LINEN
from nnx_models import NNX
from public_models import PUBLIC

from gradstab import _tree
from gradstab.network import find_layers, layer_slice
from gradstab.network.adapters import as_target

ZOO = (*NNX, *LINEN, *HAIKU, *EQUINOX, *FUNCTIONS, *PUBLIC)


class Apart(NamedTuple):
    """What the finder says of a model, and what JAX says of it.

    Attributes:
        network: the layers.
        product: of the layers' Jacobians, of the whole batch.
        jacobian: of the model.
        layers: for each layer that is cut by hand its Jacobian, and that of the cut.
    """

    network: Any
    product: np.ndarray
    jacobian: np.ndarray
    layers: dict


@contextlib.contextmanager
def arithmetic(entry):
    """Frameworks promote dtypes and ranks in their own modules; functions need not."""
    rule = "strict" if entry.framework == "functions" else "standard"
    ranks = "allow" if entry.framework == "public" else "raise"
    with jax.numpy_dtype_promotion(rule), jax.numpy_rank_promotion(ranks):
        yield


def take_apart(entry, dtype) -> Apart:
    """Find the layers, and all Jacobians in one program."""
    with jax.enable_x64(dtype == jnp.float64), arithmetic(entry):
        handed = entry.make()
        options = dict(handed.options)
        boundaries = options.pop("boundaries", None)
        target = as_target(handed.model, handed.args, **options)
        target = target._replace(**_as_type(target, dtype))
        apply, params, state, inputs = target
        network = find_layers(apply, params, inputs, state=state, boundaries=boundaries)

        def everything(params, state, inputs):
            replay = network.replay(params, state, _tree.fresh_keys(inputs))
            push = _push_forward if entry.forward else _pull_back
            product = push(entry, network, replay, inputs)
            layers = _layers(entry, network, replay, params)
            return product, _whole(entry, apply, params, state, inputs), layers

        # Small programs that run once: compile them fast, not well.
        options = {"xla_backend_optimization_level": 0}
        with jax.default_matmul_precision("highest"):
            run = jax.jit(everything, compiler_options=options)
            found = run(params, state, inputs)
        return Apart(network, *jax.tree.map(np.asarray, found))


def _as_type(target, dtype):
    fields = {name: getattr(target, name) for name in ("params", "state", "inputs")}

    def convert(leaf):
        if jnp.iscomplexobj(leaf):
            return jnp.asarray(leaf, jnp.result_type(dtype, jnp.complex64))
        return jnp.asarray(leaf, dtype) if _tree.is_floating(leaf) else leaf

    return jax.tree.map(convert, fields)


def _pull_back(entry, network, replay, inputs):
    """The product of the Jacobians, from the output back to where the data enter."""
    rows = _basis(layer_slice(replay.activations, network.layers[-1]))
    num = rows.shape[0]
    for place in reversed(network.layers):
        data = layer_slice(replay.entering, place)
        if not data:
            return _at_the_table(entry, rows, inputs[0])
        _, pull = jax.vjp(_function(network, replay, place), *data)
        parts = jax.vmap(pull)(rows)
        rows = parts[0]
    return jnp.concatenate([part.reshape(num, -1) for part in parts], axis=1)


def _at_the_table(entry, rows, ids):
    """From the Jacobian of the embedded tokens to that of the embedding."""
    num = rows.shape[0]
    if entry.positions is not None:  # the same ones are added to every example
        return jnp.sum(rows, axis=1).reshape(num, -1)
    one_hot = jax.nn.one_hot(ids.ravel(), 5, dtype=rows.dtype)
    rows = rows.reshape(num, one_hot.shape[0], -1)
    return jnp.einsum("rtd,tv->rvd", rows, one_hot).reshape(num, -1)


def _push_forward(entry, network, replay, inputs):
    """The same product from the input on: some loops have no derivative backward."""
    (data,) = layer_slice(replay.entering, network.layers[0])
    tangents = _basis(data)
    for place in network.layers:
        function = _function(network, replay, place)
        data = layer_slice(replay.entering, place)
        push = functools.partial(_push, function, data)
        tangents = jax.vmap(push)(tangents)
    return tangents.reshape(tangents.shape[0], -1).T


def _push(function, data, tangent):
    return jax.jvp(function, data, (tangent,))[1]


def _layers(entry, network, replay, params):
    """The Jacobians of layers, and of what was cut out by hand."""
    leaves = jax.tree.leaves(params)
    by_path = dict(zip(network.program.param_names, leaves, strict=True))
    found = {}
    for name, by_hand in BY_HAND.get(entry.name, {}).items():
        place = network.layers[network.names.index(name)]
        (data,) = layer_slice(replay.entering, place)
        derive = jax.jacfwd if entry.forward else jax.jacrev
        jacobian = derive(_function(network, replay, place))(data)
        with jax.numpy_rank_promotion("allow"):  # as they are written on paper
            expected = jax.jacfwd(functools.partial(by_hand, by_path))(data)
        found[name] = jacobian, expected
    return found


def _function(network, replay, place):
    context = layer_slice(replay.contexts, place)
    return functools.partial(network.blocks[place.block], context)


def _basis(array):
    return jnp.eye(array.size, dtype=array.dtype).reshape(-1, *array.shape)


def _whole(entry, apply, params, state, inputs):
    """The Jacobian of the model: by its inputs, or by parameters that enter there."""
    leaves, tree = jax.tree.flatten((params, state, _tree.fresh_keys(inputs)))

    def function(chosen):
        filled = list(leaves)
        for position, value in chosen.items():
            filled[position] = value
        params, state, inputs = tree.unflatten(filled)
        return apply(params, state, *inputs).ravel()

    start = entry.table or entry.positions
    first = len(leaves) - len(jax.tree.leaves(inputs))
    wanted = [
        position
        for position, leaf in enumerate(leaves)
        if (position >= first if start is None else position in _at(params, start))
        and _tree.is_floating(leaf)
    ]
    derive = jax.jacfwd if entry.forward else jax.jacrev
    found = derive(function)({i: leaves[i] for i in wanted})
    parts = [found[i] for i in wanted]
    return jnp.concatenate([p.reshape(p.shape[0], -1) for p in parts], axis=1)


def _at(params, start):
    names = enumerate(_tree.paths(params))
    return [i for i, name in names if name.split(".")[0] == start]
