"""A network: a program cut into layers, evaluated with its layers in sight."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _reads, _tree
from gradstab.network.blocks import Block, Context, Roll, Stack
from gradstab.network.boundaries import packs_several
from gradstab.network.contexts import held_positions
from gradstab.network.layers import all_blocks, find_plan, flow_of
from gradstab.network.naming import summary
from gradstab.network.places import Place, find_places
from gradstab.network.program import Program, evaluate, trace_program
from gradstab.network.recurrence import RecurrentScan, find_recurrent_scans
from gradstab.network.refusals import without_examples
from gradstab.network.rolling import roll_up

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

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, in depth order."""
        return tuple(place.name for place in self.layers)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of the data that enter and leave the layers."""
        data = [v for block in self.blocks for v in (*block.in_vars, block.out_var)]
        return tuple(dict.fromkeys(str(_compat.dtype_of(v)) for v in data))

    def replay(self, params, state, inputs, taps=None) -> Replay:
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
        env = dict(_compat.constants(closed))
        env.update(zip(closed.jaxpr.invars, leaves, strict=True))
        stacks = {id(item.eqn): item for item in self.plan if isinstance(item, Stack)}
        tap_of = dict(zip(self.blocks, taps or [None] * len(self.blocks), strict=True))
        record: dict = {}
        for step in self.steps:
            if isinstance(step, Roll):
                _run_roll(step, env, tap_of, record)
            else:
                _run([step], env, self.blocks, tap_of, stacks, record)
        outputs = [_read(env, atom) for atom in closed.jaxpr.outvars]
        for block in self.blocks:
            if block not in record:  # a block of many layers is recorded by its scan
                record[block] = _seen(env, block)
        output = jax.tree.unflatten(self.program.out_tree, outputs)
        columns = zip(*(record[block] for block in self.blocks), strict=True)
        return Replay(output, *map(list, columns))

    def is_scanned(self, number) -> bool:
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

    def activations(self, params, inputs, *, state=()) -> tuple[jax.Array, ...]:
        """The data that leave each layer, in depth order; examples first.

        Args:
            params: parameters.
            inputs: tuple of inputs.
            state: state.
        """
        found = self.replay(params, state, inputs).activations
        return tuple(layer_slice(found, place) for place in self.layers)


def find_layers(
    apply, params, inputs, /, *, state=None, output=None, boundaries=None
) -> Network:
    r"""Find the layers of a function by tracing it; no edit, no list of layer types.

    Args:
        apply: ``apply(params, *inputs)``, or ``apply(params, state, *inputs)`` if
            ``state`` is given.
        params: a pytree of arrays.
        inputs: a tuple of inputs, examples on the leading axis.
        state: arrays that are neither parameters nor inputs: running statistics, keys.
        output: selects the differentiated array from what ``apply`` returns.
        boundaries: where to cut beside the points that every path passes: a regular
            expression, or several, over the paths of parameters and over names given
            by `jax.ad_checkpoint.checkpoint_name`. All products with parameters in
            whose path it matches the same text are one layer, such as ``blocks.3`` of
            ``r"blocks\.\d+"``, and a layer ends where a name that it matches as a whole
            is given. If skips pass a boundary, the data that leave the layer there are
            all live arrays together, one row for each example, and the layer's
            Jacobian is of all of them. What lies inside a branch, an unbounded loop or
            a scan over time is not cut.

    Returns:
        The network. Cost: one trace, and a second one with boundaries.

    Raises:
        ValueError: if the inputs do not share a leading axis; if the output has several
            floating arrays and ``output`` is not given, or does not depend on the
            inputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def apply(params, x):
        ...     for w in params["hidden"]:
        ...         x = jnp.tanh(x @ w)
        ...     return x @ params["head"]
        >>> params = {"hidden": [jnp.eye(3), jnp.eye(3)], "head": jnp.ones((3, 1))}
        >>> find_layers(apply, params, (jnp.ones((4, 3)),)).names
        ('hidden.0', 'hidden.1', 'head')

        A skip around two products joins them; the boundary lets it pass with the data:

        >>> def skip(params, x):
        ...     return x + jnp.tanh(x @ params["a"]) @ params["b"]
        >>> params = {"a": jnp.eye(3), "b": jnp.eye(3)}
        >>> find_layers(skip, params, (jnp.ones((4, 3)),)).names
        ('a+b',)
        >>> network = find_layers(skip, params, (jnp.ones((4, 3)),), boundaries="a|b")
        >>> network.names, network.layers[0].out_shape
        (('a', 'b'), (4, 6))
    """
    if not isinstance(inputs, tuple):
        raise TypeError(
            f"inputs must be a tuple of inputs, got {type(inputs).__name__}; "
            "write (x,) for one input"
        )

    num_examples = _num_examples(inputs)

    def with_state(params, state, *inputs):
        return apply(params, *inputs)

    function = with_state if state is None else apply
    held = () if state is None else state
    program = trace_program(function, params, held, inputs, output=output)
    plan, program = find_plan(program, boundaries, num_examples)
    plan, steps = roll_up(plan, program)
    blocks = tuple(all_blocks(plan))
    places = find_places(plan, program, flow_of(program))
    several = [place.name for place in places if _packs(blocks[place.block])]
    return Network(
        layers=places,
        blocks=blocks,
        program=program,
        plan=tuple(plan),
        steps=tuple(steps),
        held=held_positions(plan, program),
        recurrences=tuple(find_recurrent_scans(b, num_examples) for b in blocks),
        num_examples=num_examples,
        notes=(_several(several),) if several else (),
    )


def _packs(block):
    return any(packs_several(e) and block.out_var in e.outvars for e in block.eqns)


def _several(names):
    return (
        f"several arrays (skips, streams, sums) leave {summary(names)} together: their "
        "Jacobians are of all of them, one row for each example; boundaries=() "
        "leaves the layers whole that such arrays tie together"
    )


def _num_examples(inputs):
    """The length of the leading axis that all inputs share; keys have none."""
    shapes = [
        jnp.shape(leaf) for leaf in jax.tree.leaves(inputs) if not _tree.is_key(leaf)
    ]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(without_examples(inputs))
    return lengths.pop()


def layer_slice(per_block, place, /) -> Any:
    """The part of one layer in a list with one entry (array or pytree) per block."""
    entry = per_block[place.block]
    if place.index is None:
        return entry
    if isinstance(entry, Context):
        return Context([array[place.index] for array in entry.varying], entry.shared)
    return jax.tree.map(lambda array: array[place.index], entry)


def _read(env, atom):
    return atom.val if isinstance(atom, _compat.Literal) else env[atom]


def _seen(env, block):
    context = Context(
        [env[v] for v in block.varying_vars], [env[v] for v in block.shared_vars]
    )
    return tuple(env[v] for v in block.in_vars), env[block.out_var], context


def _run(eqns, env, blocks, tap_of, stacks, record):
    """Evaluate equations into ``env``, adding each block's tap where its data leave."""
    leaving = {block.out_var: block for block in blocks}
    for eqn in eqns:
        operands = [_read(env, atom) for atom in eqn.invars]
        stack = stacks.get(id(eqn))
        if stack is None:
            results = evaluate(eqn, operands)
        else:
            results = _run_stack(stack, operands, tap_of, record)
        env.update(zip(eqn.outvars, results, strict=True))
        for var in eqn.outvars:
            block = leaving.get(var)
            if block is not None and stack is None and tap_of[block] is not None:
                env[var] = env[var] + tap_of[block]


def _run_stack(stack, operands, tap_of, record):
    parts, invars = stack.parts, stack.body.jaxpr.invars
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    shared = dict(_compat.constants(stack.body))
    shared.update(zip(invars[:first], operands[:first], strict=True))
    carry, xs = operands[first:last], operands[last:]
    taps = _in_order([tap_of[block] for block in stack.blocks], parts)

    def step(carry, slices):
        xs, taps = slices
        env = dict(shared)
        env.update(zip(invars[first:], [*carry, *xs], strict=True))
        tapped = dict(zip(stack.blocks, taps, strict=True))
        _run(stack.body.jaxpr.eqns, env, stack.blocks, tapped, {}, {})
        results = [_read(env, atom) for atom in stack.body.jaxpr.outvars]
        seen = [_seen(env, block) for block in stack.blocks]
        varying = [(data, out, context.varying) for data, out, context in seen]
        return results[: parts.num_carry], (results[parts.num_carry :], varying)

    carry, (ys, seen) = jax.lax.scan(
        _rerun(step, stack.body.jaxpr.eqns, parts.length),
        carry,
        (xs, taps),
        length=parts.length,
        reverse=parts.reverse,
    )
    for block, (data, out, varying) in zip(
        stack.blocks, _in_order(seen, parts), strict=True
    ):
        context = Context(varying, [shared[v] for v in block.shared_vars])
        record[block] = (data, out, context)
    return [*carry, *ys]


def _run_roll(roll, env, tap_of, record):
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
        seen = []
        for number, block in enumerate(roll.blocks):
            context = contexts[number]._replace(varying=varying[number])
            out = block(context, data)
            seen.append(data)
            data = out if taps[number] is None else out + taps[number]
        return data, seen

    (entering,) = roll.members[0].in_vars
    varying = [context.varying for context in contexts]
    taps = [tap_of[block] for block in roll.blocks]
    eqns = [eqn for block in roll.blocks for eqn in block.eqns]
    last, seen = jax.lax.scan(
        _rerun(step, eqns, roll.blocks[0].length),
        env[entering],
        (varying, taps),
        length=roll.blocks[0].length,
    )
    # What leaves a block enters the next one: it is not kept twice.
    left = [*seen[1:], jnp.concatenate([seen[0][1:], last[None]])]
    for block, context, data, out in zip(
        roll.blocks, contexts, seen, left, strict=True
    ):
        record[block] = ((data,), out, context)
    for variable, number, group in roll.exits:
        env[variable] = left[number][group]


def _rerun(step, eqns, length):
    """The step of a scan; what it computes is computed again on the way back.

    That is left out where all of it takes little memory, and where an effect would be
    repeated.
    """
    kept = sum(_reads.num_bytes(v) for eqn in eqns for v in eqn.outvars) * length
    if kept < _KEPT or any(eqn.effects for eqn in eqns):
        return step
    return jax.checkpoint(step, prevent_cse=False)


def _in_order(tree, parts):
    """From the order of the layers to that of a scan's slices, and back."""
    return jax.tree.map(lambda array: array[::-1], tree) if parts.reverse else tree


def _tap_shapes(item):
    if isinstance(item, Block):
        return [(item, _compat.shape_of(item.out_var))]
    return [(b, (b.length, *_compat.shape_of(b.out_var))) for b in item.blocks]
