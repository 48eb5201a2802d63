"""Every use of a part of JAX that is not promised to stay, in one place, and why.

JAX offers no public way to take a traced program apart. `jax.extend.core` holds the
types; the primitives' names and parameters are read here and nowhere else.

* `jit` is inlined: its equation is called ``jit`` (``pjit`` before jax 0.7).
* `scan` says how many of its operands are constants and carries by ``num_consts`` and
  ``num_carry`` up to jax 0.11, and by a flat tree ``ft_in`` from 0.12 on.
* A closed jaxpr is a `ClosedJaxpr` around a `Jaxpr` up to jax 0.11; from 0.12 on both
  are one type. `Jaxpr` here takes all its inputs as ``invars``, so neither matters.
* A rule of differentiation is an equation that holds the function's body as a program,
  and the rule as functions that only its primitive can call; see `_rules`, whose
  functions are here too.
"""

import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax._src import core, dtypes, literals
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr as ClosedJaxpr
from jax.extend.core import DropVar as DropVar
from jax.extend.core import Jaxpr
from jax.extend.core import JaxprEqn as JaxprEqn
from jax.extend.core import Literal as Literal
from jax.extend.core import Var as Var
from jax.extend.core.primitives import closed_call_p
from jax.interpreters import partial_eval

from gradstab._meshes import ShardMapParts as ShardMapParts
from gradstab._meshes import laid_out as laid_out
from gradstab._meshes import on_one_layout as on_one_layout
from gradstab._meshes import plain_shape as plain_shape
from gradstab._meshes import shard_map_parts as shard_map_parts
from gradstab._meshes import varied as varied
from gradstab._meshes import varying as varying
from gradstab._rules import RuleParts as RuleParts
from gradstab._rules import backward_only as backward_only
from gradstab._rules import called_name as called_name
from gradstab._rules import contains as contains
from gradstab._rules import given_name as given_name
from gradstab._rules import holds_rule as holds_rule
from gradstab._rules import inlined_body as inlined_body
from gradstab._rules import inner_programs as inner_programs
from gradstab._rules import is_builtin as is_builtin
from gradstab._rules import is_leak as is_leak
from gradstab._rules import is_rule as is_rule
from gradstab._rules import lacks_jvp as lacks_jvp
from gradstab._rules import looks_at_zeros as looks_at_zeros
from gradstab._rules import needs_custom_vjp as needs_custom_vjp
from gradstab._rules import rule_body as rule_body
from gradstab._rules import rule_identity as rule_identity
from gradstab._rules import rule_name as rule_name
from gradstab._rules import rule_parts as rule_parts
from gradstab._rules import rule_source as rule_source
from gradstab._rules import why_no_body as why_no_body
from gradstab._source_info import source_line as source_line

# Parameters that say in which dtype an equation computes.
_DTYPES = ("new_dtype", "preferred_element_type", "dtype", "accumulation_type")
# Without a note of where it comes from, building a program is deprecated.
_ORIGIN = jex.DebugInfo("gradstab", "part of a program", None, None)


class ScanParts(NamedTuple):
    """What a scan equation holds; operands and results are flat, in this order."""

    body: Any  # consts + carry + one slice of xs -> carry + one slice of ys
    num_consts: int
    num_carry: int
    length: int
    reverse: bool


class WhileParts(NamedTuple):
    """What a while equation holds; operands are constants of both, then the carry."""

    condition: Any  # its constants + carry -> boolean
    body: Any  # its constants + carry -> carry
    num_condition_consts: int
    num_body_consts: int


def program_function(
    invars: Sequence[Var], outvars: Sequence[Any], eqns: Sequence[JaxprEqn]
) -> Callable[..., list]:
    """The function ``invars -> outvars`` that the equations compute, in order."""
    effects = frozenset().union(*(eqn.effects for eqn in eqns))
    jaxpr = Jaxpr((), list(invars), list(outvars), list(eqns), effects, _ORIGIN)
    return closed_function(ClosedJaxpr(jaxpr, ()))


def closed_function(closed, /) -> Callable[..., list]:
    """The function that a closed program computes."""
    return lambda *values: jex.jaxpr_as_fun(closed)(*values)


def needed_program(closed, wanted: Sequence[int], /) -> tuple[Any, list[bool]]:
    """What some of the results of a program need: fewer equations, fewer inputs.

    Equations are dropped inside of scans as well, and carries that nothing needs; of
    the inputs those that ``used`` says.
    """
    keep = [position in wanted for position in range(len(closed.jaxpr.outvars))]
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, keep)
    return ClosedJaxpr(jaxpr, closed.consts), list(used)


def computes_now() -> bool:
    """Whether an operation is done at once, and not put into a program being traced."""
    trace = core.trace_ctx.trace
    return trace is None or isinstance(trace, core.EvalTrace)


def shape_of(variable: Var | Literal, /) -> tuple[int, ...]:
    """The shape of a variable or a literal."""
    return variable.aval.shape  # pyright: ignore[reportAttributeAccessIssue]


def dtype_of(variable: Var | Literal, /):
    """The dtype of a variable or a literal."""
    return variable.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]


def is_floating(variable: Var, /) -> bool:
    """Whether a variable is a real or complex floating array."""
    return jnp.issubdtype(dtype_of(variable), jnp.inexact)


def constants(closed, /) -> list[tuple[Var, Any]]:
    """The constants of a program, each with its variable."""
    return list(zip(closed.jaxpr.constvars, closed.consts, strict=True))


def device_sets(eqn: JaxprEqn, /) -> set[frozenset]:
    """The sets of devices that an equation names, at any depth."""
    found = set()
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
        mesh = getattr(value, "mesh", value)  # an abstract one has no devices
        if isinstance(mesh, jax.sharding.Mesh):
            found.add(frozenset(mesh.devices.flat))
        elif isinstance(mesh, jax.sharding.Sharding):
            found.add(frozenset(mesh.device_set))
        elif isinstance(value, jax.Device):
            found.add(frozenset({value}))
    for body in inner_programs(eqn):
        for inner in body.eqns:
            found |= device_sets(inner)
    return found


def contracted_axes(eqn: JaxprEqn, /):
    """The axes (of the first, of the second operand) that a product sums over.

    None for any other equation, and for a product that has batch axes.
    """
    if eqn.primitive.name != "dot_general":
        return None
    contracted, batch = eqn.params["dimension_numbers"]
    return None if any(map(len, batch)) else contracted


def scan_parts(eqn: JaxprEqn, /) -> ScanParts | None:
    """The parts of a scan equation; None for any other equation."""
    if eqn.primitive.name != "scan":
        return None
    p = eqn.params
    if "ft_in" in p:
        consts, carry, _ = p["ft_in"].update(range(len(eqn.invars))).unpack()
        num_consts, num_carry = len(list(consts)), len(list(carry))
    else:
        num_consts, num_carry = p["num_consts"], p["num_carry"]
    return ScanParts(p["jaxpr"], num_consts, num_carry, p["length"], p["reverse"])


def cond_branches(eqn: JaxprEqn, /) -> tuple | None:
    """The branches of a cond or switch, by index; None for any other equation.

    The first operand is the index, the others are those of every branch.
    """
    return eqn.params["branches"] if eqn.primitive.name == "cond" else None


def while_parts(eqn: JaxprEqn, /) -> WhileParts | None:
    """The parts of a while equation; None for any other equation."""
    if eqn.primitive.name != "while":
        return None
    p = eqn.params
    return WhileParts(
        p["cond_jaxpr"], p["body_jaxpr"], p["cond_nconsts"], p["body_nconsts"]
    )


def linear_solver(eqn: JaxprEqn, operands: Sequence[Any], /):
    """The program that solves a `custom_linear_solve` and its inputs; else None."""
    if eqn.primitive.name != "custom_linear_solve":
        return None
    counts = eqn.params["const_lengths"]
    start = counts.matvec + counts.vecmat
    consts = operands[start : start + counts.solve]
    return eqn.params["jaxprs"].solve, [*consts, *operands[sum(counts) :]]


def bind(eqn: JaxprEqn, operands: Sequence[Any], /, **changed) -> list:
    """The results of the equation for other operands, its rule included.

    Args:
        eqn: the equation.
        operands: in the place of its own.
        **changed: parameters of the equation, in the place of its own.
    """
    if (name := given_name(eqn)) is not None:
        return [checkpoint_name(operand, name) for operand in operands]
    params = eqn.primitive.get_bind_params(eqn.params | changed)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def widened_parameters(eqn: JaxprEqn, /, dtype) -> dict[str, Any]:
    """The parameters that make an equation compute in another floating dtype.

    Args:
        eqn: the equation.
        dtype: in which it shall compute.

    Returns:
        Parameters for `bind`: those that name a floating dtype, and the program by
        which a scatter combines two numbers, with these numbers in the new one.
    """
    changed: dict[str, Any] = {
        key: jnp.dtype(dtype)
        for key in _DTYPES
        if eqn.params.get(key) is not None
        and jnp.issubdtype(eqn.params[key], jnp.floating)
    }
    if (combined := eqn.params.get("update_jaxpr")) is not None:
        kinds = [e.primitive for e in combined.eqns]
        if len(kinds) != 1:
            raise NotImplementedError(
                f"{eqn.primitive.name} by more than one operation"
            )
        number = jnp.zeros((), dtype)
        made = jax.make_jaxpr(kinds[0].bind)(number, number)
        changed["update_jaxpr"] = made.jaxpr
    return changed


def without_rules(program, /):
    """The program, open or closed, with a plain call of its body for every rule.

    Raises:
        NotImplementedError: the body of a hijax primitive cannot be traced.
    """
    jaxpr = getattr(program, "jaxpr", program)
    eqns = [_without_rules(eqn) for eqn in jaxpr.eqns]
    if all(new is old for new, old in zip(eqns, jaxpr.eqns, strict=True)):
        return program  # the same object, which JAX may have compiled before
    changed = jaxpr.replace(eqns=eqns)
    return changed if jaxpr is program else program.replace(jaxpr=changed)


def _without_rules(eqn):
    if not holds_rule(eqn):
        return eqn
    if reason := why_no_body(eqn):
        raise NotImplementedError(reason)
    if is_rule(eqn) or eqn.primitive.name == "call_hi_primitive":
        (body,) = inner_programs(eqn)[:1]
        params = {"call_jaxpr": without_rules(body)}
        return eqn.replace(primitive=closed_call_p, params=params)
    params = {name: _stripped(value) for name, value in eqn.params.items()}
    return eqn.replace(params=params)


def _stripped(value):
    if _is_program(value):
        return without_rules(value)
    if not isinstance(value, (tuple, list)) or not any(map(_is_program, value)):
        return value
    items = [_stripped(item) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _is_program(value):
    return hasattr(value, "eqns")


def as_custom_vjp(eqn: JaxprEqn, /) -> Callable[..., list] | None:
    """The function of a hijax primitive, with its VJP, as a `jax.custom_vjp`.

    JAX finds by itself how to map such a function.

    Returns:
        None if the equation is no such primitive, or has no VJP, or is mapped and
        linearised by rules of its own.
    """
    body = rule_body(eqn) if needs_custom_vjp(eqn) else None
    if body is None:
        return None

    def plain(*operands):
        return closed_function(body)(*operands)

    plain.__name__ = rule_name(eqn)
    expanded = jax.custom_vjp(plain)

    def forward(*operands):
        def pulled(*operands):
            return jax.vjp(lambda *operands: bind(eqn, operands), *operands)

        closed, shapes = jax.make_jaxpr(pulled, return_shape=True)(*operands)
        # The primitive may call itself for its value: that is to be mapped too.
        values = closed_function(without_rules(closed))(*operands)
        return jax.tree.unflatten(jax.tree.structure(shapes), values)

    expanded.defvjp(forward, lambda pullback, w: pullback(w))
    return expanded


def unit_axes(eqn: JaxprEqn, position: int, /) -> tuple[tuple[int, ...], int]:
    """Of the weights of a product: the axes along which all units sum the same data.

    And the fan-in: how many entries a unit sums over.

    Args:
        eqn: a ``dot_general`` or ``conv_general_dilated`` equation.
        position: which operand the data are; the other one holds the weights.
    """
    shape = shape_of(eqn.invars[1 - position])
    numbers = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "conv_general_dilated":
        axis = numbers.rhs_spec[0]
        grouped = eqn.params["feature_group_count"] != 1
        return () if grouped else (axis,), math.prod(shape) // shape[axis]
    contracted, batched = (pair[1 - position] for pair in numbers)
    free = set(range(len(shape))) - set(contracted) - set(batched)
    return tuple(sorted(free)), math.prod(shape[i] for i in contracted)


def num_summed(eqn: JaxprEqn, position: int, /) -> int:
    """Over how many entries of an operand one result of a contraction sums."""
    shape = shape_of(eqn.invars[position])
    ragged = eqn.params.get("ragged_dot_dimension_numbers")
    numbers = (
        ragged.dot_dimension_numbers if ragged else eqn.params["dimension_numbers"]
    )
    if eqn.primitive.name == "conv_general_dilated":
        return math.prod(shape) // shape[numbers.rhs_spec[0]]
    return math.prod(shape[i] for i in numbers[0][position])


def product(eqn: JaxprEqn, lhs, rhs, /):
    """The product of an equation for other operands, in their own dtype."""
    params = {**eqn.params, "preferred_element_type": None}
    return eqn.primitive.bind(lhs, rhs, **params)


@contextlib.contextmanager
def float64(wide: bool, /):
    """Float64 in this thread, if ``wide``; constants of NumPy's keep their digits.

    JAX remembers the constant that it makes of an array by the array alone: with
    float64 it gives that of float32, which does not compile. So it is remembered here.
    """
    _remember_constants()
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        yield


@functools.cache
def _remember_constants() -> None:
    known: dict[tuple, tuple] = {}

    def constant(x):
        key = id(x), dtypes.canonicalize_dtype(x.dtype)
        array, made = known.get(key, (None, None))
        if array is not None and array() is x and (found := made()) is not None:
            return found
        found = literals.TypedNdArray(np.asarray(x, key[1]))
        forget = functools.partial(lambda key, _: known.pop(key, None), key)
        known[key] = weakref.ref(x, forget), weakref.ref(found)
        return found

    dtypes.register_canonicalize_value_handler(np.ndarray, constant)
