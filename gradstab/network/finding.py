"""From a function to its network: the layers are found, once for each program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _tree
from gradstab.errors import UserTypeError, UserValueError
from gradstab.network.boundaries import packs_several
from gradstab.network.contexts import held_positions
from gradstab.network.layers import all_blocks, find_plan, flow_of
from gradstab.network.naming import summary
from gradstab.network.places import find_places
from gradstab.network.recurrence import find_recurrent_scans
from gradstab.network.refusals import without_examples
from gradstab.network.replay import Network
from gradstab.network.rolling import roll_up
from gradstab.program.cache import Cache
from gradstab.program.canonical import key_of
from gradstab.program.trace import Program, trace_program

# Networks of the last programs, with all that was compiled for them.
NETWORKS = Cache(most=16)


def find_layers(
    apply: Callable[..., Any],
    params: Any,
    inputs: tuple,
    /,
    *,
    state: Any = None,
    output: Any = None,
    boundaries: Any = None,
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
        The network: the same object for the same program, so that what is compiled for
        it serves other parameters and inputs too. Cost: one trace, and a second one
        with boundaries.

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
        raise UserTypeError(
            f"inputs must be a tuple of inputs, got {type(inputs).__name__}; "
            "write (x,) for one input"
        )

    num_examples = _num_examples(inputs)

    def with_state(params: Any, state: Any, *inputs):
        return apply(params, *inputs)

    function = with_state if state is None else apply
    held = () if state is None else state
    program = trace_program(function, params, held, inputs, output=output)
    if not isinstance(boundaries, (str, type(None))):
        boundaries = tuple(boundaries)
    form = key_of(program.closed)
    names = (program.param_names, program.num_state)
    key = (form, names, program.out_tree, program.out_index, boundaries, num_examples)
    if form is None or not _hashable(key):
        return _find(program, boundaries, num_examples)
    return NETWORKS.get(key, lambda: _find(program, boundaries, num_examples))


def _hashable(key: Any):
    try:
        hash(key)
    except TypeError:  # what the model returns, or a boundary, is not
        return False
    return True


def _find(program: Program, boundaries: Any, num_examples: int):
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


def _several(names: Sequence[str]):
    return (
        f"several arrays (skips, streams, sums) leave {summary(names)} together: their "
        "Jacobians are of all of them, one row for each example; boundaries=() "
        "leaves the layers whole that such arrays tie together"
    )


def _num_examples(inputs: tuple):
    """The length of the leading axis that all inputs share; keys have none."""
    shapes = [
        jnp.shape(leaf) for leaf in jax.tree.leaves(inputs) if not _tree.is_key(leaf)
    ]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise UserValueError(without_examples(inputs))
    return lengths.pop()
