"""A custom rule of differentiation, taken out of its program and checked alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab._attempt import Refusal
from gradstab.errors import UserTypeError
from gradstab.gradcheck.audits.audited import Rule
from gradstab.gradcheck.audits.calls import Call, bind_on_shards
from gradstab.gradcheck.checker import check
from gradstab.gradcheck.findings import REFERENCE, GradCheck, Verdict
from gradstab.gradcheck.subject import bodies
from gradstab.gradcheck.subject.modes import REFUSALS
from gradstab.gradcheck.subject.settings import settings


def check_rule(calls: list[Call], options: dict, /) -> Rule:
    """Checks one rule at the first and, if they differ, at the last of its operands."""
    first, last = calls[0], calls[-1]
    place, refusal = first.place, _refusal(first)
    checks = [_check(first, refusal, options)]
    if not _same(first.operands, last.operands):
        # What does not depend on the operands was tried at the first.
        fewer = {**options, "at": "given", "transformations": False}
        checks.append(_check(last, refusal, fewer))
    return Rule(
        checks=tuple(checks),
        name=_compat.rule_name(place.eqn),
        kind=place.rule.kind,
        source=_compat.rule_source(place.eqn),
        paths=tuple(dict.fromkeys(call.place.path for call in calls)),
        shapes=tuple(map(_shape, place.eqn.invars)),
        count=sum(not call.place.repeated for call in calls),
        body=refusal,
    )


def moving(call: Call, /) -> list[int]:
    """The positions of the operands in which the rule has a derivative that matters.

    Those that the arguments of the program can move, and that the rule does not close
    over.
    """
    first, moved = call.place.rule.num_consts, call.place.moved
    return [i for i, can_move in enumerate(moved) if can_move and i >= first]


def fingerprint(call: Call, /):
    """Equal for two calls if both compute the same derivative of the same shapes.

    The program of the derivative says it all but for the arrays that it closes over.
    """

    def derivatives(operands: Sequence[Any]):
        f, given = _alone(call._replace(operands=operands))
        modes = call.place.rule.modes
        return [bodies.derivative(f, given, mode=mode) for mode in modes]

    with settings(wide=_is_wide(call)):
        try:
            closed = jax.make_jaxpr(derivatives)(call.operands)
            constants = [_data(c).tobytes() for _, c in _compat.constants(closed)]
        except REFUSALS:
            return id(call.place.eqn)
    return _compat.rule_name(call.place.eqn), str(closed), tuple(constants)


def _alone(call):
    """The rule as a function of its operands, and these: None for those held fixed."""
    first = call.place.rule.num_consts
    dtypes = [_compat.dtype_of(v) for v in call.place.eqn.invars]
    fixed = call.operands

    def alone(*given):
        if _is_wide(call) and jnp.result_type(float) != jnp.float64:
            raise UserTypeError("the rule was traced in float64 and exists there only")
        chosen = [
            x if y is None else y for x, y in zip(fixed[first:], given, strict=True)
        ]
        operands = map(jnp.asarray, [*fixed[:first], *chosen])
        # In another precision the rule's program does not hold together.
        pairs = zip(operands, dtypes, strict=True)
        cast = [x if x.dtype == dtype else x.astype(dtype) for x, dtype in pairs]
        return bind_on_shards(call.place, cast)

    given = [x if i in moving(call) else None for i, x in enumerate(fixed)]
    return alone, tuple(given[first:])


def _check(call, refusal, options) -> GradCheck:
    """The check of one call; a rule that does not even trace is not judged."""
    f, given = _alone(call)
    if _is_wide(call):  # its program exists in no other precision
        options = {**options, "precision": "float64"}
    try:
        if refusal:
            return check(f, *given, **options)
        plain = bodies.without_rules(f)
        result = check(f, *given, reference=plain, **options)
        if not _is_accused_by_body_alone(result):
            return result
        # Many a rule is written because its body has no good derivative.
        without = check(f, *given, **options)
    except REFUSALS as error:
        return _unjudged(str(Refusal(error)), options)
    error = max(g.error for g in result.findings if g.differs)
    note = (
        f"plain differentiation of the body differs by {error:.1e} somewhere, and "
        "differences of its value do not side with it"
    )
    return dataclasses.replace(without, notes=(*without.notes, note))


def _is_accused_by_body_alone(result):
    accusers = {g.oracle for g in result.findings if g.differs}
    lawful = all(law.holds for law in result.identities)
    return accusers == {REFERENCE} and lawful


def _refusal(call):
    """Why plain differentiation of the rule's body is no oracle; empty if it is one."""
    f, given = _alone(call)
    with settings(wide=_is_wide(call)):
        modes = call.place.rule.modes
        return bodies.refusal(bodies.without_rules(f), given, modes=modes)


def _unjudged(reason, options) -> GradCheck:
    return GradCheck(
        findings=(),
        resolution=np.inf,
        verdict=Verdict.INCONCLUSIVE,
        reason=f"it cannot be checked: {reason}",
        rtol=options.get("rtol") or np.nan,
        precision="",
        evaluations=0,
        seed=options.get("seed", 0),
        notes=(),
    )


def _is_wide(call):
    wide = ("float64", "int64", "complex128")
    return any(str(_compat.dtype_of(v)) in wide for v in call.place.eqn.invars)


def _same(operands: Sequence[Any], others):
    pairs = zip(operands, others, strict=True)
    return all(np.array_equal(_data(x), _data(y)) for x, y in pairs)


def _data(x):
    return np.asarray(jax.random.key_data(x) if _tree.is_key(x) else x)


def _shape(variable: _compat.Var):
    sizes = ",".join(map(str, _compat.shape_of(variable)))
    return f"{_compat.dtype_of(variable)}[{sizes}]"
