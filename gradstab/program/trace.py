"""Any function as one flat program: a jaxpr without jit, remat or call equations."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab import _compat, _rules, _tree
from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.program.walk import evaluate, evaluated, retraced, shape_of_input


@dataclasses.dataclass(frozen=True)
class Program:
    """A traced ``apply(params, state, *inputs)``, flat, and what its variables mean.

    The program's inputs are the leaves of ``(params, state, inputs)``, in this order.

    Attributes:
        closed: the flat program.
        param_names: dotted path of every parameter leaf.
        num_state: the number of state leaves (running statistics, counters, keys).
        out_tree: structure of the whole output.
        out_index: which flat output is the differentiated one.
        boundaries: those that its user draws, or None.
    """

    closed: Any
    param_names: tuple[str, ...]
    num_state: int
    out_tree: Any
    out_index: int
    boundaries: Any = None

    @property
    def eqns(self) -> list[_compat.JaxprEqn]:
        """The equations in the order of evaluation."""
        return self.closed.jaxpr.eqns

    @property
    def param_vars(self) -> list[_compat.Var]:
        """The variables of the parameter leaves."""
        return self.closed.jaxpr.invars[: len(self.param_names)]

    @property
    def input_vars(self) -> list[_compat.Var]:
        """The variables of the input leaves."""
        return self.closed.jaxpr.invars[len(self.param_names) + self.num_state :]

    @property
    def output_shapes(self) -> Any:
        """Shape and dtype of all that the function returns, in its structure."""
        shapes = list(map(shape_of_input, self.closed.jaxpr.outvars))
        return jax.tree.unflatten(self.out_tree, shapes)

    @property
    def out_var(self) -> _compat.Var:
        """The variable of the differentiated output."""
        return self.closed.jaxpr.outvars[self.out_index]


def trace_program(
    apply: Callable[..., Any],
    params: Any,
    state: Any,
    inputs: tuple,
    /,
    *,
    output: Callable[..., Any] | None = None,
) -> Program:
    """Trace ``apply(params, state, *inputs)`` and flatten the program.

    Args:
        apply: the function; it returns an array or a pytree of arrays.
        params: a pytree of arrays, the parameters.
        state: a pytree of arrays that are neither parameters nor inputs.
        inputs: a tuple of pytrees of arrays.
        output: selects the differentiated array from what ``apply`` returns. Needed
            if that has several floating leaves.

    Returns:
        The program. Cost: one trace, no arithmetic.

    Raises:
        ValueError: if the output has no floating leaf, or several and no ``output``; if
            ``output`` selects something else than one of them.
    """
    leaves, tree = jax.tree.flatten((params, state, inputs))
    seen = {}

    def flat_apply(*leaves: jax.Array) -> list[jax.Array]:
        result = apply(*_spread(tree.unflatten(leaves)))
        flat, seen["tree"] = jax.tree.flatten(result)
        seen["index"] = _differentiated(result, flat, output)
        return flat

    traced = jax.make_jaxpr(flat_apply)(*leaves)
    flat = jax.make_jaxpr(lambda *values: _evaluate_inlined(traced, values))(*leaves)
    return Program(
        closed=flat,
        param_names=tuple(_tree.paths(params, is_leaf=_is_variable)),
        num_state=len(jax.tree.leaves(state)),
        out_tree=seen["tree"],
        out_index=seen["index"],
    )


def flatten_body(closed: _compat.ClosedJaxpr, /) -> _compat.ClosedJaxpr:
    """A scan body as a flat program."""
    return retraced(closed, lambda *values: _evaluate_inlined(closed, values))


def _spread(everything: tuple[Any, Any, tuple]) -> tuple:
    params, state, inputs = everything
    return (params, state, *inputs)


def _is_variable(node: object) -> bool:
    # Flax NNX wraps each array in a Variable: a node with an attribute and no name.
    return isinstance(node, nnx.Variable) and len(jax.tree.leaves(node)) == 1


def _differentiated(result: Any, flat: list, output: Callable[..., Any] | None) -> int:
    strangers = {type(leaf).__name__ for leaf in flat if not _is_numeric(leaf)}
    if strangers:
        raise UserTypeError(
            f"the model returns a {' and a '.join(sorted(strangers))} among its "
            "arrays: return arrays only, e.g. lambda params, x: apply(params, x)[0]"
        )
    floating = [i for i, leaf in enumerate(flat) if _tree.is_floating(leaf)]
    if output is not None:
        chosen = call_of_user(output, result)
        matches = [i for i in floating if flat[i] is chosen]
        if not matches:
            raise UserValueError(
                "output= must return one floating array of what the model returns, "
                f"unchanged; got {_described(chosen)}"
            )
        return matches[0]
    if len(floating) != 1:
        shapes = ", ".join(str(jnp.shape(flat[i])) for i in floating) or "none"
        raise UserValueError(
            f"the model returns {len(floating)} floating arrays (shapes: {shapes}); "
            "say which one to differentiate, e.g. output=lambda result: result[0]"
        )
    return floating[0]


def _is_numeric(leaf: object) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, numbers.Number)


def _described(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    shapes = ", ".join(f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in leaves)
    return f"{type(tree).__name__} of {shapes or 'no arrays'}"


def _evaluate_inlined(closed: _compat.ClosedJaxpr, values: Iterable) -> list:
    return evaluated(closed, values, _inlined)


def _inlined(eqn: _compat.JaxprEqn, operands: list) -> list:
    body = _compat.inlined_body(eqn)
    if body is not None:
        # The names of scopes inside of a call do not hold those around it.
        with _rules.scope(_rules.scope_of(eqn)):
            return _evaluate_inlined(body, operands)
    if (function := _compat.as_custom_vjp(eqn)) is not None:
        return function(*operands)
    return evaluate(eqn, operands)


def is_complex(variable: _compat.Var | _compat.Literal, /) -> bool:
    """Whether a variable or a literal is a complex array."""
    return jnp.issubdtype(_compat.dtype_of(variable), jnp.complexfloating)


def real_size(variable: _compat.Var, /) -> int:
    """How many real numbers a variable holds."""
    return math.prod(_compat.shape_of(variable)) * (2 if is_complex(variable) else 1)
