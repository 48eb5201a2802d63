"""A network: a program cut into layers, evaluated with its layers in sight."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.blocks import Block, Context, Roll, Stack
from gradstab.network.places import Place
from gradstab.network.recurrence import RecurrentScan
from gradstab.program import reads
from gradstab.program.cache import Cache
from gradstab.program.compiling import quick_jit
from gradstab.program.trace import Program
from gradstab.program.walk import environment, evaluate, outputs, split_operands, walk

# Bytes of intermediate results of a scan that are kept for the way back.
_KEPT = 2**26


class Replay(NamedTuple):
    """What one evaluation of a network yields.

    Attributes:
        output: what the model returns.
        entering: for each block the tuple of data that enter it; for a block of many
            layers those of all of them, stacked along a new leading axis.
        activations: the data that leave each block, stacked likewise.
        contexts: for each block the values of its context variables.
    """

    output: Any
    entering: list
    activations: list
    contexts: list


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A model as a program of layers, for inputs of one shape.

    Attributes:
        layers: where each layer sits, in depth order.
        blocks: the functions that they compute; layers of a scan and equal layers that
            follow each other share one.
        program: the flat program.
        plan: blocks, scans and rolls in depth order.
        steps: equations and rolls in the order of evaluation.
        held: for each block which of its context the caller holds; see
            `held_positions`.
        recurrences: for each block its recurrent scans.
        num_examples: length of the example axis.
        notes: where several arrays pass from layer to layer.
        programs: what was compiled, or found, for it once.
    """

    layers: tuple[Place, ...]
    blocks: tuple[Block, ...]
    program: Program
    plan: tuple
    steps: tuple
    held: tuple[Context, ...]
    recurrences: tuple[tuple[RecurrentScan, ...], ...]
    num_examples: int
    notes: tuple[str, ...] = ()
    programs: Cache = dataclasses.field(default_factory=Cache, init=False, repr=False)

    @property
    def eqns(self):
        """The equations of the flat program, in order."""
        return self.program.eqns

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, in depth order."""
        return tuple(place.name for place in self.layers)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of the data that enter and leave the layers."""
        data = [v for block in self.blocks for v in (*block.in_vars, block.out_var)]
        return tuple(dict.fromkeys(str(_compat.dtype_of(v)) for v in data))

    def replay(
        self, params: Any, state: Any, inputs: tuple, taps: Any = None
    ) -> Replay:
        """Evaluate the model and keep what passes between its layers.

        Args:
            params: parameters, shaped as when the network was found.
            state: state, likewise.
            inputs: tuple of inputs, likewise.
            taps: per block an array that is added to the data that leave it; its
                gradient is the gradient of the activation. None adds nothing.

        Returns:
            Output, data and contexts. Survives jit, grad and vmap. Memory: two copies
            of all activations, one of the parameters of layers that share a block.
        """
        leaves = jax.tree.leaves((params, state, inputs))
        closed = self.program.closed
        env = environment(closed, leaves)
        stacks = {id(item.eqn): item for item in self.plan if isinstance(item, Stack)}
        tap_of = dict(zip(self.blocks, taps or [None] * len(self.blocks), strict=True))
        record: dict = {}
        for step in self.steps:
            if isinstance(step, Roll):
                _run_roll(step, env, tap_of, record)
            else:
                _run([step], env, self.blocks, tap_of, stacks, record)
        results = outputs(closed, env)
        for block in self.blocks:
            if block not in record:  # a block of many layers is recorded by its scan
                record[block] = _passed(env, block)
        output = jax.tree.unflatten(self.program.out_tree, results)
        columns = zip(*(record[block] for block in self.blocks), strict=True)
        return Replay(output, *map(list, columns))

    def is_scanned(self, number: int) -> bool:
        """Whether the arrays of this block have a leading axis over its layers."""
        return number in self._scanned

    def in_depth_order(self, columns) -> jax.Array:
        """One array with an entry per layer, from one per block.

        Args:
            columns: for each block an array with a leading axis over its layers.
        """
        wide = _tree.widest(*(column.dtype for column in columns))
        rows = jnp.concatenate([column.astype(wide) for column in columns])
        ends = np.cumsum([len(column) for column in columns])
        starts = ends - [len(column) for column in columns]
        return rows[np.array([starts[p.block] + (p.index or 0) for p in self.layers])]

    @functools.cached_property
    def _scanned(self):
        return {place.block for place in self.layers if place.index is not None}

    def zero_taps(self) -> list[jax.Array]:
        """Taps that add nothing: a zero array for the activations of each block."""
        return [
            jnp.zeros(shape, _compat.dtype_of(block.out_var))
            for item in self.plan
            for block, shape in _tap_shapes(item)
        ]

    def activations(
        self, params: Any, inputs: tuple, *, state: Any = ()
    ) -> tuple[jax.Array, ...]:
        """The data that leave each layer, in depth order; examples first.

        Args:
            params: parameters.
            inputs: tuple of inputs.
            state: state.
        """
        per_block = self.replay(params, state, inputs).activations
        return tuple(layer_slice(per_block, place) for place in self.layers)


def layer_slice(per_block, place: Place, /) -> Any:
    """The part of one layer in a list with one entry (array or pytree) per block."""
    entry = per_block[place.block]
    if place.index is None:
        return entry
    if isinstance(entry, Context):
        # One array for all layers, or a tuple with one for each.
        stacked = [v for v in entry.varying if not isinstance(v, tuple)]
        taken = iter(_taken(stacked, place.index))
        varying = [
            v[place.index] if isinstance(v, tuple) else next(taken)
            for v in entry.varying
        ]
        return Context(varying, entry.shared)
    return _taken(entry, place.index)


def _taken(tree: Any, index: int | None):
    """The same element of all arrays: of those that the host holds, without a copy."""
    if all(map(_tree.is_on_host, jax.tree.leaves(tree))):
        return jax.tree.map(lambda array: np.asarray(array)[index, ...], tree)
    return _taken_on_device(tree, index)


@quick_jit
def _taken_on_device(tree: Any, index: int | None):
    return jax.tree.map(lambda array: array[index], tree)


def _passed(env: dict, block: Block):
    context = Context(
        [env[v] for v in block.varying_vars], [env[v] for v in block.shared_vars]
    )
    return tuple(env[v] for v in block.in_vars), env[block.out_var], context


def _run(
    eqns: Sequence[_compat.JaxprEqn],
    env: dict,
    blocks,
    tap_of: dict,
    stacks,
    record: dict,
):
    """Evaluate equations into ``env``, adding each block's tap where its data leave."""
    leaving = {block.out_var: block for block in blocks}

    def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]):
        stack = stacks.get(id(eqn))
        if stack is None:
            return evaluate(eqn, operands)
        return _run_stack(stack, operands, tap_of, record)

    def add_tap(eqn: _compat.JaxprEqn):
        for var in () if id(eqn) in stacks else eqn.outvars:
            block = leaving.get(var)
            if block is not None and tap_of[block] is not None:
                env[var] = env[var] + tap_of[block]

    walk(eqns, env, rule, add_tap)


def _run_stack(stack: Stack, operands: Sequence[Any], tap_of: dict, record: dict):
    parts, invars = stack.parts, stack.body.jaxpr.invars
    consts, carry, xs = split_operands(parts, operands)
    shared = dict(_compat.constants(stack.body))
    shared.update(zip(invars[: len(consts)], consts, strict=True))
    taps = _in_order([tap_of[block] for block in stack.blocks], parts)

    def step(carry: Any, slices):
        xs, taps = slices
        env = dict(shared)
        env.update(zip(invars[len(consts) :], [*carry, *xs], strict=True))
        tapped = dict(zip(stack.blocks, taps, strict=True))
        _run(stack.body.jaxpr.eqns, env, stack.blocks, tapped, {}, {})
        results = outputs(stack.body, env)
        passed = [_passed(env, block) for block in stack.blocks]
        varying = [(data, out, context.varying) for data, out, context in passed]
        return results[: parts.num_carry], (results[parts.num_carry :], varying)

    carry, (ys, passed) = jax.lax.scan(
        _rerun(step, stack.body.jaxpr.eqns, parts.length),
        carry,
        (xs, taps),
        length=parts.length,
        reverse=parts.reverse,
    )
    for block, (data, out, varying) in zip(
        stack.blocks, _in_order(passed, parts), strict=True
    ):
        context = Context(varying, [shared[v] for v in block.shared_vars])
        record[block] = (data, out, context)
    return [*carry, *ys]


def _run_roll(roll: Roll, env: dict, tap_of: dict, record: dict):
    """Evaluate equal groups of blocks by a scan over the groups."""
    contexts = [
        Context(
            [jnp.stack([env[v] for v in row]) for row in rows],
            [env[v] for v in block.shared_vars],
        )
        for block, rows in zip(roll.blocks, roll.contexts, strict=True)
    ]

    def step(data, slices):
        varying, taps = slices
        entered = []
        for number, block in enumerate(roll.blocks):
            context = contexts[number]._replace(varying=varying[number])
            out = block(context, data)
            entered.append(data)
            data = out if taps[number] is None else out + taps[number]
        return data, entered

    (entering,) = roll.members[0].in_vars
    varying = [context.varying for context in contexts]
    taps = [tap_of[block] for block in roll.blocks]
    eqns = [eqn for block in roll.blocks for eqn in block.eqns]
    last, entered = jax.lax.scan(
        _rerun(step, eqns, roll.blocks[0].length),
        env[entering],
        (varying, taps),
        length=roll.blocks[0].length,
    )
    # What leaves a block enters the next one: it is not kept twice.
    left = [*entered[1:], jnp.concatenate([entered[0][1:], last[None]])]
    for block, context, data, out in zip(
        roll.blocks, contexts, entered, left, strict=True
    ):
        record[block] = ((data,), out, context)
    for variable, number, group in roll.exits:
        env[variable] = left[number][group]


def _rerun(step, eqns: Sequence[_compat.JaxprEqn], length):
    """The step of a scan; what it computes is computed again on the way back.

    That is left out where all of it takes little memory, and where an effect would be
    repeated.
    """
    num_bytes = sum(reads.num_bytes(v) for eqn in eqns for v in eqn.outvars) * length
    if num_bytes < _KEPT or any(eqn.effects for eqn in eqns):
        return step
    return jax.checkpoint(step, prevent_cse=False)


def _in_order(tree: Any, parts: _compat.ScanParts):
    """From the order of the layers to that of a scan's slices, and back."""
    return jax.tree.map(lambda array: array[::-1], tree) if parts.reverse else tree


def _tap_shapes(item):
    if isinstance(item, Block):
        return [(item, _compat.shape_of(item.out_var))]
    return [(b, (b.length, *_compat.shape_of(b.out_var))) for b in item.blocks]
