"""Every use of a part of JAX that is not promised to stay, in one place, and why.

JAX offers no public way to take a traced program apart. `jax.extend.core` holds the
types; the primitives' names and parameters are read here and nowhere else.

* `jit` is inlined: its equation is called ``jit`` (``pjit`` before jax 0.7).
* `scan` says how many of its operands are constants and carries by ``num_consts`` and
  ``num_carry`` up to jax 0.11, and by a flat tree ``ft_in`` from 0.12 on.
* A closed jaxpr is a `ClosedJaxpr` around a `Jaxpr` up to jax 0.11; from 0.12 on both
  are one type. `Jaxpr` here takes all its inputs as ``invars``, so neither matters.
* A rule of differentiation is an equation whose parameters hold the function's body as
  a program, and the rule as functions that only its primitive can call.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr as ClosedJaxpr
from jax.extend.core import DropVar as DropVar
from jax.extend.core import Jaxpr
from jax.extend.core import JaxprEqn as JaxprEqn
from jax.extend.core import Literal as Literal
from jax.extend.core import Var as Var
from jax.extend.core.primitives import closed_call_p
from jax.interpreters import partial_eval

# Equations that only wrap a program: evaluating the program inside is the same thing.
# Rematerialisation changes memory, not values; rules of differentiation are not here.
_WRAPPERS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
# Parameters that say in which dtype an equation computes.
_DTYPES = ("new_dtype", "preferred_element_type", "dtype", "accumulation_type")
# Without a note of where it comes from, building a program is deprecated.
_ORIGIN = jex.DebugInfo("gradstab", "part of a program", None, None)
_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


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


class ShardMapParts(NamedTuple):
    """What a shard_map equation holds, as `jax.shard_map` takes it."""

    body: Any  # shards of the operands -> shards of the results
    mesh: Any
    in_specs: tuple
    out_specs: tuple
    axis_names: frozenset
    check_vma: bool


class RuleParts(NamedTuple):
    """What an equation with a custom rule of differentiation holds."""

    kind: str  # custom_jvp or custom_vjp
    body: Any  # operands -> results, to be differentiated as it stands
    num_consts: int  # operands that the rule closes over: it has no derivative in them


def program_function(
    invars: Sequence[Var], outvars: Sequence[Any], eqns: Sequence[JaxprEqn]
) -> Callable[..., list]:
    """The function ``invars -> outvars`` that the equations compute, in order."""
    effects = frozenset().union(*(eqn.effects for eqn in eqns))
    jaxpr = Jaxpr((), list(invars), list(outvars), list(eqns), effects, _ORIGIN)
    closed = ClosedJaxpr(jaxpr, ())
    return lambda *values: jex.jaxpr_as_fun(closed)(*values)


def closed_function(closed, /) -> Callable[..., list]:
    """The function that a closed program computes."""
    return lambda *values: jex.jaxpr_as_fun(closed)(*values)


def needed_program(closed, wanted: Sequence[int], /) -> tuple[Any, list[bool]]:
    """What some of the results of a program need: fewer equations, fewer inputs.

    Equations are dropped inside of scans as well, and carries that nothing needs.

    Args:
        closed: the program.
        wanted: positions of the results.

    Returns:
        ``(program, used)``; the latter says for each input whether it is kept.
    """
    keep = [position in wanted for position in range(len(closed.jaxpr.outvars))]
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, keep)
    return ClosedJaxpr(jaxpr, closed.consts), list(used)


def shape_of(variable: Var | Literal, /) -> tuple[int, ...]:
    """The shape of a variable or a literal."""
    return variable.aval.shape  # pyright: ignore[reportAttributeAccessIssue]


def dtype_of(variable: Var, /):
    """The dtype of a variable."""
    return variable.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]


def is_floating(variable: Var, /) -> bool:
    """Whether a variable is a real or complex floating array."""
    return jnp.issubdtype(dtype_of(variable), jnp.inexact)


def constants(closed, /) -> list[tuple[Var, Any]]:
    """The constants of a program, each with its variable."""
    return list(zip(closed.jaxpr.constvars, closed.consts, strict=True))


def given_name(eqn: JaxprEqn, /) -> str | None:
    """The name that `jax.ad_checkpoint.checkpoint_name` gave; None without one."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def inlined_body(eqn: JaxprEqn, /):
    """The program inside a jit, remat or call equation; None for any other."""
    return eqn.params.get(_WRAPPERS.get(eqn.primitive.name, ""))


def is_rule(eqn: JaxprEqn, /) -> bool:
    """Whether the equation carries a custom rule of differentiation."""
    return eqn.primitive.name in _RULES


def holds_rule(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, such a rule, not counting those of kernels.

    No derivative looks into a kernel.
    """
    inside = (inner for body in inner_programs(eqn) for inner in body.eqns)
    kernel = eqn.primitive.name == "pallas_call"
    return is_rule(eqn) or (not kernel and any(map(holds_rule, inside)))


def backward_only(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, a rule without a forward direction."""
    return contains(eqn, frozenset({"custom_vjp_call", "custom_vjp_call_jaxpr"}))


def lacks_jvp(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, what a `jax.jvp` of a custom_vjp leaves."""
    return contains(eqn, frozenset({"custom_lin"}))


def inner_programs(eqn: JaxprEqn, /) -> list:
    """All programs inside an equation: bodies, branches, conditions, rules' primals."""
    found = []
    for value in eqn.params.values():
        items = value if isinstance(value, (tuple, list)) else (value,)
        found += [item for item in items if hasattr(item, "eqns")]
    return found


def contains(eqn: JaxprEqn, names: frozenset[str], /) -> bool:
    """Whether the equation is, or holds at any depth, one of these primitives."""
    return eqn.primitive.name in names or any(
        contains(inner, names) for body in inner_programs(eqn) for inner in body.eqns
    )


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


def rule_name(eqn: JaxprEqn, /) -> str:
    """The name of the function whose rule of differentiation the equation carries."""
    name = getattr(_rule_origin(eqn), "func_name", None) or eqn.params.get("name")
    return str(name or "rule").split(" ")[0]


def rule_source(eqn: JaxprEqn, /) -> str:
    """Where the rule is defined, as ``file:line``; empty if that is unknown."""
    rule = eqn.params.get("bwd") or eqn.params.get("jvp_jaxpr_fun")
    source = _source(getattr(rule, "debug_info", None))
    # `defjvps` makes the rule itself: then the function says more.
    made = "custom_derivatives.py:" in source
    return _source(_rule_origin(eqn)) if made or not source else source


def _source(info):
    return str(getattr(info, "func_src_info", None) or "").partition(" at ")[2]


def rule_parts(eqn: JaxprEqn, /) -> RuleParts | None:
    """The parts of an equation with a custom rule; None for any other equation."""
    if not is_rule(eqn):
        return None
    kind = "custom_jvp" if "jvp" in eqn.primitive.name else "custom_vjp"
    return RuleParts(kind, _rule_body(eqn), eqn.params["num_consts"])


def _rule_body(eqn):
    return eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")


def _rule_origin(eqn):
    body = _rule_body(eqn)
    return getattr(getattr(body, "jaxpr", body), "debug_info", None)


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


def shard_map_parts(eqn: JaxprEqn, /) -> ShardMapParts | None:
    """The parts of a shard_map equation; None for any other equation."""
    if eqn.primitive.name != "shard_map":
        return None
    p = eqn.params
    return ShardMapParts(
        ClosedJaxpr(p["jaxpr"], ()),
        p["mesh"],
        tuple(p["in_specs"]),
        tuple(p["out_specs"]),
        frozenset(p["newly_manual_axes"]),
        p["check_vma"],
    )


def bind(eqn: JaxprEqn, operands: Sequence[Any], /, **changed) -> list:
    """The results of the equation for other operands, its rule included.

    Args:
        eqn: the equation.
        operands: in the place of its own.
        **changed: parameters of the equation, in the place of its own.
    """
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
    """The program, open or closed, with a plain call of its body for every rule."""
    jaxpr = getattr(program, "jaxpr", program)
    eqns = [_without_rules(eqn) for eqn in jaxpr.eqns]
    if all(new is old for new, old in zip(eqns, jaxpr.eqns, strict=True)):
        return program  # the same object, which JAX may have compiled before
    changed = jaxpr.replace(eqns=eqns)
    return changed if jaxpr is program else program.replace(jaxpr=changed)


def _without_rules(eqn):
    if not holds_rule(eqn):
        return eqn
    if is_rule(eqn):
        params = {"call_jaxpr": without_rules(_rule_body(eqn))}
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


def product(eqn: JaxprEqn, lhs, rhs, /):
    """The product of an equation for other operands, in their own dtype."""
    params = {**eqn.params, "preferred_element_type": None}
    return eqn.primitive.bind(lhs, rhs, **params)
