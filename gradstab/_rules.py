"""Equations that carry a rule of differentiation, or only wrap a program: their parts.

For `_compat` only, through which all other rooms read programs. JAX writes the same
things down in two ways:

* first with a primitive for each kind: ``custom_jvp_call``, ``custom_vjp_call``,
  ``checkpoint``, ``name``;
* since hijax (with ``jax_custom_vjp3``, ``jax_custom_jvp3``, ``jax_remat3``, and
  whenever somebody writes a hijax primitive) as one ``call_hi_primitive``, whose
  parameter ``_prim`` is an object: its class says what it is, its method ``expand``
  computes it, ``jvp``, ``vjp_fwd`` and ``vjp_bwd`` differentiate it.

What a `jax.jvp` of a rule for the reverse mode leaves behind in a program is
``custom_lin`` or ``call_hi_primitive_linearized``.
"""

import contextlib
import functools
import inspect
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, primitives

from gradstab._attempt import Refusal, attempt

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
_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
_MARKS = frozenset({"custom_lin", "call_hi_primitive_linearized"})

# The classes of JAX's own hijax primitives: the program in those that only wrap one,
# those with the rule of a custom_vjp or custom_jvp, and those that pass data on.
_HI_WRAPPERS = {"RematTraced": "jaxpr", "OptRemat": "traced_fwd"}
_HI_RULES = {"CustomVJPTraced": "custom_vjp", "CustomJVPTraced": "custom_jvp"}
_HI_NAMES = {"CheckpointName", "CheckpointNameFwd"}
_HI_PLUMBING = {*_HI_NAMES, *_HI_WRAPPERS, "PrimalLeftTangentRight"}
_HI_BASES = {"HiPrim", "VJPHiPrimitive"}

_MODES = {"custom_jvp": ("forward",), "custom_vjp": ("reverse",)}


class RuleParts(NamedTuple):
    """What an equation with a custom rule of differentiation holds."""

    kind: str  # custom_jvp, custom_vjp or hijax
    body: Any  # operands -> results, to be differentiated as it stands; None without
    num_consts: int  # operands that the rule closes over: it has no derivative in them
    modes: tuple[str, ...]  # forward, reverse: in which the rule is written down


def inlined_body(eqn: JaxprEqn, /) -> Any:
    """The program inside a jit, remat or call equation; None for any other."""
    if (primitive := _hijax(eqn)) is not None:
        key = _HI_WRAPPERS.get(_own_class(primitive))
        return None if key is None else _program(getattr(primitive, key))
    return eqn.params.get(_WRAPPERS.get(eqn.primitive.name, ""))


def wrapped(eqn: JaxprEqn, function: Callable, /, *, saved: Sequence[str] = ()):
    """A function of one more argument, rematerialised or laid out like what it wraps.

    Args:
        eqn: an equation with an `inlined_body`.
        function: ``function(extra, *operands)``, which evaluates that body.
        saved: names that `checkpoint_name` gave to what is not to be made again.
    """
    held = _hijax(eqn)
    params = eqn.params if held is None else getattr(held, "params", {})
    if "policy" in params and "prevent_cse" in params:
        apart = params["prevent_cse"]
        apart = apart if isinstance(apart, bool) else any(apart)
        kept = jax.checkpoint_policies.save_only_these_names(*saved)
        if (policy := params["policy"]) is not None:
            kept = jax.checkpoint_policies.save_from_both_policies(policy, kept)
        return jax.checkpoint(function, policy=kept, prevent_cse=apart)
    laid = [params.get(key, ()) for key in ("in_shardings", "out_shardings")]
    if all(type(s).__name__ == "UnspecifiedValue" for side in laid for s in side):
        return function
    given, made = (
        [None if type(s).__name__ == "UnspecifiedValue" else s for s in side]
        for side in laid
    )
    return jax.jit(function, in_shardings=(None, *given), out_shardings=made)


def called_name(eqn: JaxprEqn, /) -> str:
    """The name of the function that a jit equation calls; empty for any other."""
    return str(eqn.params.get("name", "")) if inlined_body(eqn) is not None else ""


def scope_of(eqn: JaxprEqn, /) -> str:
    """The names of `jax.named_scope` around an equation, parted by dots; or none.

    Names of transformations, ``jvp(...)``, and of an einsum, ``bi,io->bo``, are not.
    """
    parts = str(eqn.source_info.name_stack).split("/")
    return ".".join(p for p in parts if p and not re.search(r"[(,]|->", p))


def scope(name: str, /) -> contextlib.AbstractContextManager:
    """The context of a `jax.named_scope` of that name, parted by dots; or of none."""
    return jax.named_scope(name.replace(".", "/")) if name else contextlib.nullcontext()


def given_name(eqn: JaxprEqn, /) -> str | None:
    """The name that `jax.ad_checkpoint.checkpoint_name` gave; None without one."""
    if (primitive := _hijax(eqn)) is not None:
        return primitive.name if _own_class(primitive) in _HI_NAMES else None
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def is_rule(eqn: JaxprEqn, /) -> bool:
    """Whether the equation carries a custom rule of differentiation."""
    return _kind(eqn) is not None


def _kind(eqn: JaxprEqn) -> str | None:
    """Of a rule: custom_jvp, custom_vjp or hijax; None for any other equation."""
    if (primitive := _hijax(eqn)) is not None:
        own = _own_class(_single(primitive))
        return None if own in _HI_PLUMBING else _HI_RULES.get(own, "hijax")
    if eqn.primitive.name not in _RULES:
        return None
    return "custom_jvp" if "jvp" in eqn.primitive.name else "custom_vjp"


def holds_rule(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, such a rule, not counting those of kernels.

    No derivative looks into a kernel.
    """
    inside = (inner for body in inner_programs(eqn) for inner in body.eqns)
    kernel = eqn.primitive.name == "pallas_call"
    return is_rule(eqn) or (not kernel and any(map(holds_rule, inside)))


def backward_only(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, a rule without a forward direction."""
    return _lacks_forward(eqn) or any(
        backward_only(inner) for body in inner_programs(eqn) for inner in body.eqns
    )


def _lacks_forward(eqn: JaxprEqn) -> bool:
    kind = _kind(eqn)
    if kind != "hijax":
        return kind == "custom_vjp"
    # `jax.linearize` asks for a rule of its own.
    primitive = _single(_hijax(eqn))
    return not (_has(primitive, "jvp") and _has(primitive, "lin"))


def needs_custom_vjp(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is a hijax primitive with a VJP that lacks other rules."""
    if _kind(eqn) != "hijax":
        return False
    primitive = _single(_hijax(eqn))
    mapped = _has(primitive, "batch") or _has(primitive, "batch_dim_rule")
    return _has(primitive, "vjp_fwd") and (_lacks_forward(eqn) or not mapped)


def lacks_jvp(eqn: JaxprEqn, /) -> bool:
    """Whether the equation is, or holds, what a `jax.jvp` of a custom_vjp leaves."""
    return contains(eqn, _MARKS)


def inner_programs(eqn: JaxprEqn, /) -> list:
    """All programs inside an equation: bodies, branches, conditions, rules' primals."""
    if _hijax(eqn) is not None:
        body = rule_body(eqn) if is_rule(eqn) else inlined_body(eqn)
        return [] if body is None else [body]
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


def is_builtin(eqn: JaxprEqn, /) -> bool:
    """Whether JAX lists the primitive of an equation among its own."""
    return eqn.primitive.name in _builtins()


@functools.cache
def _builtins() -> set[str]:
    names = {getattr(value, "name", "") for value in vars(primitives).values()}
    # Of these it does not say so.
    names |= {"split", "tile", "optimization_barrier", "ragged_dot_general"}
    return names | {"random_wrap", "random_unwrap", "reshard", "pvary", "mesh_cast"}


def rule_parts(eqn: JaxprEqn, /) -> RuleParts | None:
    """The parts of an equation with a custom rule; None for any other equation."""
    kind = _kind(eqn)
    if kind is None:
        return None
    body, primitive = rule_body(eqn), _hijax(eqn)
    if primitive is None:
        return RuleParts(kind, body, eqn.params["num_consts"], _MODES[kind])
    single = _single(primitive)
    modes = _MODES.get(kind) or tuple(
        mode
        for mode, has in (
            ("forward", _has(single, "jvp")),
            ("reverse", _has(single, "vjp_fwd")),
        )
        if has
    )
    return RuleParts(kind, body, _num_consts(single), modes)


def rule_body(eqn: JaxprEqn, /):
    """The program that a rule stands for; None if it cannot be traced."""
    body = _body(eqn)
    return None if isinstance(body, Refusal) else body


def why_no_body(eqn: JaxprEqn, /) -> str:
    """What tracing the program of a rule raised; empty if there is one."""
    body = _body(eqn) if is_rule(eqn) else None
    if not isinstance(body, Refusal):
        return ""
    return f"{rule_name(eqn)} cannot be expanded: {body}"


def rule_name(eqn: JaxprEqn, /) -> str:
    """The name of the function whose rule of differentiation the equation carries."""
    if _kind(eqn) == "hijax":
        return type(_single(_hijax(eqn))).__name__
    name = getattr(_origin(eqn), "func_name", None) or eqn.params.get("name")
    return str(name or "rule").split(" ")[0]


def rule_source(eqn: JaxprEqn, /) -> str:
    """Where the rule is defined, as ``file:line``; empty if that is unknown.

    Of a `custom_linear_solve` that is where its solver is.
    """
    if eqn.primitive.name == "custom_linear_solve":
        return _source(eqn.params["jaxprs"].solve.jaxpr.debug_info)
    if (primitive := _hijax(eqn)) is not None:
        source = _line(_user_function(_single(primitive)))
        if _own_class(_single(primitive)) not in _HI_RULES:
            return source
    else:
        rule = eqn.params.get("bwd") or eqn.params.get("jvp_jaxpr_fun")
        source = _source(getattr(rule, "debug_info", None))
    # `defjvps` makes the rule itself: then the function says more.
    made = any(f"{name}.py:" in source for name in ("custom_derivatives", "hijax"))
    return _source(_origin(eqn)) if made or not source else source


def looks_at_zeros(eqn: JaxprEqn, /) -> bool:
    """Whether a rule may depend on which of its tangents or cotangents are zero."""
    primitive = _hijax(eqn)
    params = eqn.params if primitive is None else _single(primitive).params
    return bool(params.get("symbolic_zeros"))


def is_leak(error: BaseException, /) -> bool:
    """Whether JAX raises this where a rule closes over what is differentiated."""
    leaked = isinstance(error, jax.errors.UnexpectedTracerError)
    return leaked or type(error).__name__ == "CustomVJPException"


def rule_identity(eqn: JaxprEqn, /):
    """What two equal hijax primitives have in common; None for other rules."""
    return _hijax(eqn) if _kind(eqn) == "hijax" else None


def _hijax(eqn: JaxprEqn):
    """The object of a hijax equation; None for any other."""
    return eqn.params["_prim"] if eqn.primitive.name == "call_hi_primitive" else None


def _single(primitive):
    """The primitive that a mapped one maps."""
    while _own_class(primitive) == "VmapOf":
        primitive = primitive.prim
    return primitive


def _own_class(primitive) -> str:
    """The name of the class if it is one of JAX's own; else empty."""
    kind = type(primitive)
    return kind.__name__ if kind.__module__.startswith("jax.") else ""


def _has(primitive, method: str) -> bool:
    """Whether a method of the base class, which only raises, is overridden."""
    owners = (c for c in type(primitive).__mro__ if method in vars(c))
    owner = next(owners, None)
    return owner is not None and owner.__name__ not in _HI_BASES


def _num_consts(primitive) -> int:
    """The leading operands of a custom rule that hold what its function closes over."""
    kind = _own_class(primitive)
    if kind == "CustomVJPTraced" and hasattr(primitive, "drop_fwd_consts"):
        return len(jax.tree.leaves(primitive.in_avals[:2]))
    # Up to jax 0.10 the function may not close over anything.
    return len(jax.tree.leaves(primitive.in_avals[:1])) * (kind == "CustomJVPTraced")


def _body(eqn: JaxprEqn):
    """The program of a rule, or what tracing it raised."""
    if (primitive := _hijax(eqn)) is None:
        return eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")
    if _own_class(primitive) in _HI_RULES:
        program = _program(primitive.traced)
        if len(program.jaxpr.invars) == len(eqn.invars):
            return program
    return _expanded(primitive)


def _program(traced):
    """The program of what `jax.jit` traced, or the program itself."""
    return traced if hasattr(traced, "eqns") else traced.jaxpr


_KNOWN: dict[tuple[int, bool], Any] = {}


def _expanded(primitive):
    """The program of what a hijax primitive computes, or what tracing it raised."""
    wide = any(str(getattr(a, "dtype", "")) in _WIDE for a in primitive.in_avals_flat)
    # A program in float64 was made where there is float64, and is traced there only.
    context = jax.enable_x64(True) if wide else contextlib.nullcontext()
    with context:
        # By identity: equal primitives may expand to programs of different shapes.
        key = id(primitive), jnp.result_type(float) == jnp.float64
        if key not in _KNOWN:
            _KNOWN[key] = _traced(primitive)
            weakref.finalize(primitive, _KNOWN.pop, key, None)
        return _KNOWN[key]


_WIDE = ("float64", "int64", "uint64", "complex128")


def _traced(primitive):
    def flat(*leaves):
        results = primitive.expand(*primitive.in_tree.unflatten(leaves))
        return primitive.out_tree.flatten_up_to(results)

    shapes = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type)
        for a in primitive.in_avals_flat
    ]
    return attempt(jax.make_jaxpr(flat), *shapes)


def _origin(eqn: JaxprEqn):
    body = _body(eqn)
    return getattr(getattr(body, "jaxpr", body), "debug_info", None)


def _source(info) -> str:
    return str(getattr(info, "func_src_info", None) or "").partition(" at ")[2]


def _user_function(primitive):
    """The function of the user in which a rule is written."""
    if _own_class(primitive) not in _HI_RULES:
        kind, methods = type(primitive), ("vjp_bwd_retval", "vjp_bwd", "jvp", "expand")
        found = [name for name in methods if name in vars(kind)]
        return getattr(kind, found[0]) if found else None
    rule = getattr(primitive, "bwd", None) or getattr(primitive, "jvp_rule", None)
    rule = inspect.unwrap(rule) if callable(rule) else rule
    if not inspect.isfunction(rule):
        return rule
    # JAX wraps it in one of its own, which holds it by this name.
    around = inspect.getclosurevars(rule).nonlocals
    return around.get("bwd") or around.get("jvp_fun") or rule


def _line(function) -> str:
    code = getattr(getattr(function, "func", function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""
