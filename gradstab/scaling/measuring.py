"""A few steps of training at one size, and what every layer and parameter did."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.network import Network, find_layers, naming
from gradstab.network.adapters import Target
from gradstab.network.losses import LossProgram, as_loss
from gradstab.program.compiled import compiled
from gradstab.program.uses import Effect, Use, parameters_met
from gradstab.scaling import blocks, makers
from gradstab.scaling.roles import marks_for, uses_in

# Of a gradient twice as large a step of one that does not normalise is twice as far.
_SAME = 1.5


class Trial(NamedTuple):
    """Root mean squares after 0, 1, 2, ... steps, and the loss.

    Attributes:
        loss: (steps + 1,).
        activation: (steps + 1, layers), of the data that leave a layer.
        update: likewise, of their change since the first step, on the same inputs.
        gradient: likewise, of the gradient of the loss by them.
        added: likewise, of what a block adds to the data that enter it, at the layer
            that ends it; NaN at others, and if depth does not vary.
        weight: (steps + 1, parameters), of the values of a parameter.
        change: likewise, of their change since the first step.
        entering: likewise, of the data that a parameter meets, at the start.
        gain: likewise, what a parameter makes of data of size 1 at the start.
        own: likewise, of the change of the result where a parameter meets the data that
            comes of the parameter's change alone.
        passed: likewise, what the parameter of the start makes of a change of the data
            of size 1.
    """

    loss: Any
    activation: Any
    update: Any
    gradient: Any
    added: Any
    weight: Any
    change: Any
    entering: Any
    gain: Any
    own: Any
    passed: Any


class Measured(NamedTuple):
    """What one initialisation at one size gave.

    Attributes:
        trial: the numbers.
        layers: names of the layers.
        parameters: names of the parameters.
        normalises: whether the optimiser divides by the size of the gradient.
    """

    trial: Trial
    layers: tuple[str, ...]
    parameters: tuple[str, ...]
    normalises: bool


class Row(NamedTuple):
    """One parameter where it meets the data; of a stack one of its slices.

    Attributes:
        name: dotted path, with the number of the slice.
        use: what it does there.
        number: of the use, in the order of evaluation.
        index: which slice; None if there is one.
    """

    name: str
    use: Use
    number: int
    index: int | None


class Subject(NamedTuple):
    """A model at one size, ready to be trained.

    Attributes:
        network: its layers.
        target: its function and arrays.
        rows: its parameters where they meet the data.
        before: for each layer that ends a block the number of the layer before the
            block; None for others, and if depth does not vary.
    """

    network: Network
    target: Target
    rows: tuple[Row, ...]
    before: tuple[int | None, ...]


def subject_of(
    target: Target, output: Callable | None, *, in_blocks: bool = False
) -> Subject:
    """Find the layers and the parameters of a model; traces it twice."""
    network = find_layers(
        target.apply, target.params, target.inputs, state=target.state, output=output
    )
    rows = network.programs.get("rows", lambda: _rows(network, target))
    before = blocks.layers_before(network.names) if in_blocks else None
    return Subject(network, target, rows, before or (None,) * len(network.names))


def _rows(network: Network, target: Target) -> tuple[Row, ...]:
    names = makers.names_of(target.params)
    leaves = jax.tree.leaves(target.params)
    uses = uses_in(network.program, target).uses
    found = []
    for number, use in enumerate(uses):
        name = _joined([names[i] for i in use.leaves])
        if not use.sliced:
            found.append((name, use, number, None))
            continue
        for index in range(leaves[use.leaves[0]].shape[0]):
            own = _slice_name(network, name, index)
            found.append((own, use, number, index))
    # A parameter that meets data at several places has a row for each of them.
    distinct = naming.distinct([name for name, *_ in found])
    return tuple(
        Row(name, *rest) for name, (_, *rest) in zip(distinct, found, strict=True)
    )


def _slice_name(network: Network, name: str, index: int) -> str:
    """The name of one slice of a stack: its number stands where its layer has it."""
    for place in network.layers:
        stack, number, _ = place.name.partition(f".{index}")
        inside = name.startswith(f"{stack}.")
        if place.slice == index and number and inside:
            return f"{stack}.{index}.{name.removeprefix(f'{stack}.')}"
    return naming.layer_name(name, index, [name])


def _joined(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    shared = naming.shared_module(names)
    parts = [name.removeprefix(shared).lstrip("./~") for name in names]
    return ".".join(filter(None, [shared, "+".join(parts)]))


def run_trial(
    subject: Subject,
    target: Target,
    step: Callable[..., tuple],
    memory: Any,
    loss: Callable[..., Any],
    num_steps: int,
) -> Measured:
    """Train for a few steps on the same batch and measure before each, and at the end.

    Args:
        subject: of the size.
        target: the parameters to begin with.
        step: ``step(gradients, memory, params)`` gives new parameters and memory.
        memory: of the optimiser, at first.
        loss: ``loss(output) -> scalar``.
        num_steps: how many.

    Returns:
        What was measured, on the host. The program that measures is compiled once for a
        size, whatever the optimiser is.
    """
    normalises = False
    program = as_loss(loss, subject.network.program.output_shapes)
    measure = compiled(
        subject.network, _measured, program.program, subject.rows, subject.before
    )
    first = params = target.params
    found = []
    with jax.default_matmul_precision("highest"):
        for number in range(num_steps + 1):
            given = (target.state, target.inputs, program.constants)
            one, gradients = measure(first, params, *given)
            found.append(one)
            if number == 0:
                normalises = _normalises(step, gradients, memory, params)
            if number < num_steps:
                params, memory = step(gradients, memory, params)
    trial = jax.tree.map(lambda *x: np.asarray(x, np.float64), *found)
    names = tuple(row.name for row in subject.rows)
    return Measured(trial, subject.network.names, names, normalises)


def _normalises(
    step: Callable[..., tuple], gradients: Any, memory: Any, params: Any
) -> bool:
    """Whether an optimiser divides by the size of the gradient: twice it is as far."""
    twice = jax.tree.map(lambda x: 2 * x, gradients)
    new = [step(g, memory, params)[0] for g in (gradients, twice)]
    moved = [jax.tree.map(jnp.subtract, one, params) for one in new]
    near, far = (float(_tree.safe_norm(one)) for one in moved)
    return far < _SAME * near


def _measured(
    network: Network,
    loss: LossProgram,
    rows: tuple[Row, ...],
    before: tuple[int | None, ...],
    first: Any,
    params: Any,
    state: Any,
    inputs: tuple,
    constants: tuple,
) -> tuple[Trial, Any]:
    """What one step of a trial shows, and the gradient of the parameters."""

    def objective(params: Any, taps: list) -> tuple[jax.Array, Any]:
        replay = network.replay(params, state, inputs, taps)
        return loss(constants, replay.output), replay.activations

    (value, activations), slopes = jax.value_and_grad(
        objective, argnums=(0, 1), has_aux=True
    )(params, network.zero_taps())
    start = network.replay(first, state, inputs).activations
    moved = [a - b for a, b in zip(activations, start, strict=True)]
    leaves = [jax.tree.leaves((p, state, inputs)) for p in (first, params)]
    marks = marks_for(Target(network.replay, first, state, inputs))
    met = parameters_met(network.program.closed, leaves[0], leaves[1], marks)
    entering, gain, own, passed = _effects(rows, met.effects)
    trial = Trial(
        loss=value,
        activation=_of_layers(network, activations),
        update=_of_layers(network, moved),
        gradient=_of_layers(network, slopes[1]),
        added=_added(network, activations, before),
        weight=_of_rows(rows, params),
        change=_of_rows(rows, jax.tree.map(jnp.subtract, params, first)),
        entering=entering,
        gain=gain,
        own=own,
        passed=passed,
    )
    return trial, slopes[0]


def _of_layers(network: Network, blocks: list) -> jax.Array:
    columns = [
        _rms(array, keep=network.is_scanned(number))
        for number, array in enumerate(blocks)
    ]
    return network.in_depth_order(columns)


def _added(
    network: Network, activations: list, before: Sequence[int | None]
) -> jax.Array:
    """What each block adds to the data that enter it."""
    made = [
        activations[place.block][place.index or 0]
        if network.is_scanned(place.block)
        else activations[place.block]
        for place in network.layers
    ]

    def one(layer: int, start: int | None) -> Any:
        if start is None or made[layer].shape != made[start].shape:
            return jnp.full((), jnp.nan, jnp.float32)
        return _rms(made[layer] - made[start])[0].astype(jnp.float32)

    return jnp.stack([one(*pair) for pair in enumerate(before)])


def _of_rows(rows: Sequence[Row], params: Any) -> jax.Array:
    """The size of the parameters of every row."""
    leaves = jax.tree.leaves(params)
    sizes = [_rms(leaf, keep=leaf.ndim > 1) for leaf in leaves]
    return jnp.stack([_of_row(row, leaves, sizes) for row in rows])


def _of_row(row: Row, leaves: list, sizes: list) -> jax.Array:
    """The typical size of the leaves of one row; of a stack that of its slice."""
    parts = []
    for i in row.use.leaves:
        whole = row.index is None or len(sizes[i]) <= row.index or leaves[i].ndim < 2
        parts.append(_rms(sizes[i])[0] if whole else sizes[i][row.index])
    return _rms(jnp.stack(parts))[0]


def _effects(rows: Sequence[Row], effects: Sequence[Effect]) -> list[jax.Array]:
    columns = []
    for row in rows:
        effect = effects[row.number]
        parts = [x if row.index is None else x[row.index] for x in effect]
        entering, leaving, own, moved, passed = (x.astype(jnp.float32) for x in parts)
        gain = _ratio(leaving, entering)
        columns.append((entering, gain, own, _ratio(passed, moved)))
    return [jnp.stack(column) for column in zip(*columns, strict=True)]


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    # No change of the data before a step: no number.
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan)


def _rms(array: jax.Array, *, keep: bool = False) -> jax.Array:
    """Of the whole array as one entry, or an entry for each of the leading axis."""
    axes = tuple(range(1, array.ndim)) if keep else tuple(range(array.ndim))
    size = math.prod(array.shape[i] for i in axes)
    norm = _tree.safe_norm(array, axes=axes) / math.sqrt(max(size, 1))
    return norm if keep else norm[None]
