r"""How alike the gradients of single examples are: :math:`\cos(g_i, g_j)` per layer.

The gradient of a batch is a sum over examples. Where their gradients point in one
direction, it is as long as the sum of the lengths; where they are at right angles
(shattered gradients), a batch of n is only sqrt(n) times as long as one of them.

A layer sees its parameters through its context: often these are the parameters
themselves, but weights may have been normalised or cast on the way. Gradients are
compared as gradients of the parameters.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.blocks import Block, Context
from gradstab.network.replay import Network
from gradstab.network.runs import NetworkRun
from gradstab.program import primitives
from gradstab.program.compiled import compiled
from gradstab.program.primitives import Kind
from gradstab.program.trace import flatten_body, is_complex


class GradientCosines(NamedTuple):
    """Cosines of the angles between gradients of examples, over all pairs.

    Attributes:
        mean: (layers,) NaN for a layer without parameters, or in which fewer than two
            examples have a gradient.
        lowest: (layers,)
        highest: (layers,)
        matrix: (layers, examples, examples) all of them, one on the diagonal; NaN for
            an example whose gradient is zero or not finite.
    """

    mean: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    matrix: np.ndarray


def gradient_cosines(run: NetworkRun, /, *, examples: int = 16) -> GradientCosines:
    r"""Compare the gradients of examples, layer by layer.

    The gradient of example i is the part of d loss / d (parameters of the layer) that
    goes through the layer's output for it: :math:`(\partial h_i / \partial \theta)^T
    \, \partial L / \partial h_i`. These parts add up to the gradient of the batch. If
    the loss is a mean over examples and no layer mixes them, each is the gradient of
    one example's loss, over the number of examples.

    Args:
        run: from `propagate`, with a loss. A layer with a function of one example (see
            `gradstab.spectra.find_examples`) is differentiated by that, another as a
            whole for each example.
        examples: for how many of them, from the first on.

    Returns:
        The cosines, in NumPy; NaN where examples are not on the leading axis. Cost: a
        vector-Jacobian product of each layer for each example, of one example with a
        function and of the batch without. Memory: for one layer at a time, its
        parameters once per example; where these do not enter a scan over layers as they
        are, or are changed by a rule for the backward direction, those of all its
        layers once more, or once more per example.

    References:
        Balduzzi et al. (2017), The Shattered Gradients Problem.
    """
    network = run.network
    keep = min(examples, network.num_examples)
    arrays, tree = jax.tree.flatten(run.arrays)
    num_params = len(jax.tree.leaves(run.arrays[0]))
    weights = network.programs.get(
        ("weights", tree), lambda: _find_weights(network, arrays, tree, num_params)
    )
    rows = []
    for layer in run.layers:
        source, place = weights[layer.place.block], layer.place
        if not source.entries or place.out_shape[:1] != (network.num_examples,):
            rows.append(np.full((keep, keep), np.nan))
            continue
        cosines = compiled(layer.function, _cosines, source, layer.example)
        index = None if place.index is None else np.asarray(place.index)
        where = index, np.arange(keep), arrays
        matrix = cosines(layer.context, layer.data, layer.gradient, *where)
        rows.append(np.asarray(matrix))
    return _over_pairs(np.stack(rows))


def _over_pairs(matrix):
    first, second = np.triu_indices(matrix.shape[1], k=1)
    # One more, that does not count: a single example has no pairs.
    pairs = np.pad(matrix[:, first, second], [(0, 0), (0, 1)], constant_values=np.nan)
    pairs = np.ma.masked_invalid(pairs)

    def over(function: Callable[..., Any]):
        return np.ma.filled(function(axis=1), np.nan)

    return GradientCosines(over(pairs.mean), over(pairs.min), over(pairs.max), matrix)


@dataclasses.dataclass(frozen=True, eq=False)
class _Weights:
    """The part of a block's context that is made from parameters.

    Attributes:
        entries: positions in the context, the varying before the shared.
        num_varying: how many of all entries vary from layer to layer.
        scanned: whether those have a leading axis over layers.
        moved: whether every entry is an entry of a parameter, and no two are the same.
        one_way: whether they are made by a rule for the backward direction only.
        function: from all arrays to these entries.
        floating: positions of the floating parameters that they are made from.
    """

    entries: tuple[int, ...]
    num_varying: int
    scanned: bool
    moved: bool
    one_way: bool
    function: Callable
    floating: tuple[int, ...]

    def of(self, context: Context) -> list:
        """The entries' values."""
        values = [*context.varying, *context.shared]
        return [values[i] for i in self.entries]

    def put(self, context: Context, weights) -> Context:
        """The context with other values of the entries."""
        values = [*context.varying, *context.shared]
        for i, value in zip(self.entries, weights, strict=True):
            values[i] = value
        return Context(values[: self.num_varying], values[self.num_varying :])

    def of_layer(self, index: int | None, arrays):
        """The function from floating parameters to the entries of one layer."""

        def entries(floating):
            filled = list(arrays)
            for i, leaf in zip(self.floating, floating, strict=True):
                filled[i] = leaf
            made = self.function(*_tree.fresh_keys(filled))
            return [
                value[index] if self.scanned and i < self.num_varying else value
                for i, value in zip(self.entries, made, strict=True)
            ]

        return entries


def _find_weights(network: Network, leaves: Sequence[Any], tree: Any, num_params):
    """For each block its `_Weights`."""
    floating = [i for i in range(num_params) if _tree.is_floating(leaves[i])]
    scanned = {place.block for place in network.layers if place.index is not None}

    def contexts(*values):
        return network.replay(*tree.unflatten(values)).contexts

    traced, shapes = jax.make_jaxpr(contexts, return_shape=True)(
        *_tree.fresh_keys(leaves)
    )
    flat, start, weights = flatten_body(traced), 0, []
    for number, context in enumerate(shapes):
        size = len(context.varying) + len(context.shared)
        positions = range(start, start + size)
        parts = [_compat.needed_program(flat, [p]) for p in positions]
        made = [
            i
            for i, (part, used) in enumerate(parts)
            if any(used[j] for j in floating)
            and _compat.is_floating(part.jaxpr.outvars[0])
            and math.prod(_compat.shape_of(part.jaxpr.outvars[0]))
        ]
        uses = [j for i in made for j in floating if parts[i][1][j]]
        moved = len(set(uses)) == len(uses) and all(_moves(parts[i][0]) for i in made)
        whole, used = _compat.needed_program(flat, [positions[i] for i in made])
        weights.append(
            _Weights(
                entries=tuple(made),
                num_varying=len(context.varying),
                scanned=number in scanned,
                moved=moved,
                one_way=any(map(_compat.backward_only, whole.jaxpr.eqns)),
                function=_with_unused(whole, used),
                floating=tuple(j for j in floating if used[j]),
            )
        )
        start += size
    return weights


def _with_unused(closed: _compat.ClosedJaxpr, used):
    run = _compat.closed_function(closed)
    return lambda *values: run(*(v for v, use in zip(values, used, strict=True) if use))


def _moves(closed: _compat.ClosedJaxpr):
    """Whether a program only moves entries, each of them to one place."""
    atoms = [v for eqn in closed.jaxpr.eqns for v in eqn.invars]
    variables = [v for v in atoms if not isinstance(v, _compat.Literal)]
    return len(set(variables)) == len(variables) and all(
        _moves_entries(eqn) for eqn in closed.jaxpr.eqns
    )


def _moves_entries(eqn: _compat.JaxprEqn):
    parts = _compat.scan_parts(eqn)
    if parts is not None:
        fixed = parts.num_consts + parts.num_carry
        return fixed == 0 and _moves(parts.body)
    shapes = [_compat.shape_of(v) for v in (*eqn.invars[:1], *eqn.outvars)]
    grows = primitives.is_named(eqn, "broadcast_in_dim") and (
        np.prod(shapes[0]) != np.prod(shapes[1])
    )
    # A real number as a complex one has a gradient of one part only.
    widens = len({is_complex(v) for v in (*eqn.invars, *eqn.outvars)}) > 1
    return primitives.is_a(eqn, Kind.MOVES) and not grows and not widens


def _cosines(
    block: Block,
    source,
    function: Callable[..., Any],
    context: Context,
    data: Sequence[jax.Array],
    gradient: jax.Array,
    index: int | None,
    chosen,
    arrays,
):
    """The cosines between the gradients of the chosen examples: a square matrix."""
    if function is None or not _shares_weights(function, source):
        gradients = _of_batch(block, source, context, data, gradient, chosen)
    else:
        gradients = _of_examples(function, source, context, data, gradient, chosen)
    gradients = _scaled(gradients)
    images = gradients
    if not source.moved:
        floating = [arrays[i] for i in source.floating]
        _, pull = jax.vjp(source.of_layer(index, arrays), floating)
        if source.one_way:
            (gradients,) = jax.lax.map(pull, gradients)
            gradients = images = _scaled(gradients)
        else:
            push = jax.linear_transpose(pull, [entry[0] for entry in gradients])
            images = jax.lax.map(
                lambda one: _there_and_back(pull, push, one), gradients
            )
    products = sum(map(_products, gradients, images))
    lengths = jnp.sqrt(jnp.diagonal(products))
    return jnp.clip(products / (lengths[:, None] * lengths[None]), -1, 1)


def _of_examples(
    function,
    source,
    context: Context,
    data: Sequence[jax.Array],
    gradient: jax.Array,
    chosen,
):
    """Gradients of a layer's weights, examples leading: each by its own function."""
    context, data = function.separate(context, data)
    cotangents = function.separate_out(gradient)
    context_axes, data_axes = function.axes

    def one(number):
        here = _example(context, context_axes, number)
        arrays = _example(data, data_axes, number)
        _, pull = jax.vjp(
            lambda weights: function(source.put(here, weights), *arrays),
            source.of(here),
        )
        return pull(_unit(cotangents[number]))[0]

    return jax.vmap(one)(chosen)


def _example(arrays, axes, number):
    leaves, tree = jax.tree.flatten(arrays)
    mapped = jax.tree.leaves(axes, is_leaf=lambda axis: axis is None)
    pairs = zip(leaves, mapped, strict=True)
    return tree.unflatten([a if axis is None else a[number] for a, axis in pairs])


def _of_batch(
    block: Block,
    source,
    context: Context,
    data: Sequence[jax.Array],
    gradient: jax.Array,
    chosen,
):
    """The same by the function of the batch: each through one example's output."""
    _, pull = jax.vjp(
        lambda weights: block(source.put(context, weights), *data), source.of(context)
    )

    def one(number):
        alone = jnp.zeros_like(gradient).at[number].set(_unit(gradient[number]))
        return pull(alone)[0]

    return jax.lax.map(one, chosen)


def _shares_weights(function, source):
    """Whether all examples have the same weights."""
    axes = [*function.varying_axes, *function.shared_axes]
    return all(axes[i] is None for i in source.entries)


def _unit(cotangent: jax.Array):
    """Of size one: what is below the range of the dtype when squared is not lost."""
    size = _tree.power_of_two_near(jnp.max(jnp.abs(cotangent), initial=0))
    return cotangent / size.astype(cotangent.dtype)


def _scaled(gradients):
    """Each example's gradient divided by a power of two near its largest entry."""
    rows = [jnp.abs(entry).reshape(len(entry), -1) for entry in gradients]
    over = [jnp.max(row, axis=1, initial=0) for row in rows]
    wide = _tree.widest(jnp.float32, *(o.dtype for o in over))
    largest = jnp.max(jnp.stack([o.astype(wide) for o in over]), axis=0)
    scale = jax.vmap(_tree.power_of_two_near)(largest)
    return [
        entry / scale.reshape(-1, *[1] * (entry.ndim - 1)).astype(entry.dtype)
        for entry in gradients
    ]


def _there_and_back(pull: Callable[..., Any], push: Callable[..., Any], gradients):
    """From gradients of the weights to those of the parameters, and forward again.

    JAX writes a gradient of complex numbers as the conjugate of the direction in which
    the loss grows, so it is turned into that before it is pushed, and back.
    """
    (images,) = push(_conjugates(pull(gradients)))
    return _conjugates(images)


def _conjugates(tree: Any):
    return jax.tree.map(jnp.conj, tree)


def _products(one, other):
    arrays = _tree.real_view(one), _tree.real_view(other)
    wide = _tree.widest(jnp.float32, arrays[0].dtype)
    flat = [array.reshape(len(array), -1).astype(wide) for array in arrays]
    return jnp.matmul(flat[0], flat[1].T, precision="highest")
