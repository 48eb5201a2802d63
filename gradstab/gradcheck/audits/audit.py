"""Every custom rule of differentiation inside of a function, checked by itself."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.errors import UserTypeError, UserValueError
from gradstab.gradcheck.audits.audited import Audit, severity
from gradstab.gradcheck.audits.calls import Call
from gradstab.gradcheck.audits.capture import calls_in
from gradstab.gradcheck.audits.one_rule import check_rule, fingerprint, moving
from gradstab.gradcheck.subject.host_calls import calls_host, trouble
from gradstab.gradcheck.subject.modes import REFUSALS
from gradstab.gradcheck.subject.settings import settings
from gradstab.gradcheck.subject.time_limit import share_of_time, time_limit


def audit(
    f: Callable[..., Any],
    /,
    *args,
    skip: Sequence[str] = (),
    max_seconds: float | None = None,
    **options,
) -> Audit:
    """Checks every custom rule of differentiation that a function or model calls.

    Such are `jax.custom_vjp`, `jax.custom_jvp` and hijax primitives.

    The function is run once, in float64 if it can be, and what its rules are called
    with is kept: under `jax.jit`, `jax.checkpoint` and `jax.shard_map`, in loops (the
    first and the last iteration), in branches (the one that is taken; rules of the
    others are named), in the bodies of other rules, and around Pallas kernels. Each
    rule is then checked alone at these operands by `check`: against differences of its
    value and, where JAX can differentiate it, against plain automatic differentiation
    of its body.

    A rule is differentiated with respect to those of its operands that the arguments of
    f can move: constants stay constant. Rules with the same derivative program and
    shapes are checked once, at the first and at the last of their operands.

    Args:
        f: a function; or a model, which is an `nnx.Module`, a pair (linen module,
            variables) or a callable pytree with array leaves.
        *args: its arguments. The floating ones are those to differentiate.
        skip: rules to leave out: patterns of their names (``"relu"``, ``"log*"``) or of
            the package that defines them (``"jax"``).
        max_seconds: the time after which the audit ends with what it knows by then, for
            all rules together: each has an equal share of what those before it have
            left, and is INCONCLUSIVE if that was not enough. It is looked at between
            compiled programs, none of which is interrupted. None is no limit.
        **options: the other options of `check`.

    Returns:
        The rules with their checks, the worst first. Nothing is raised for a wrong one.

    Raises:
        TypeError: f is not callable.
        ValueError: none of its arguments has a floating entry.

    Cost:
        One run of f, twice that of its loops, and for each distinct rule one check and
        one of the operands as given.

    >>> result = audit(lambda x: jax.nn.relu(x) + jax.nn.relu(-x), jnp.ones(3))
    >>> [(rule.name, rule.count, rule.check.verdict.value) for rule in result.rules]
    [('relu', 2, 'PASS')]
    """
    f, args = _function(f, args)
    leaves = jax.tree.leaves(args)
    if not any(map(_tree.is_floating, filter(_is_traced, leaves))):
        raise UserValueError(
            "nothing to audit: no argument of f has a floating entry; the leaves are "
            f"[{', '.join(type(leaf).__name__ for leaf in leaves)}]."
        )
    with time_limit(max_seconds):
        calls = _calls(f, args, options.get("precision"))
        wanted = [call for call in calls if not _skipped(call, skip)]
        skipped = [call for call in calls if _skipped(call, skip)]
        open_ = [call for call in wanted if not call.place.hidden]
        alive = [call for call in wanted if call.reached and moving(call)]
        groups: dict[object, list[Call]] = {}
        for call in alive:
            groups.setdefault(fingerprint(call), []).append(call)
        rules = _rules(groups.values(), options)
    return Audit(
        rules=tuple(sorted(rules, key=lambda r: severity(r.check), reverse=True)),
        unreached=_paths(open_, except_of=[c for c in wanted if c.reached]),
        hidden=_paths([c for c in wanted if c.place.hidden], except_of=()),
        constant=_paths([c for c in wanted if c.reached], except_of=alive),
        skipped=_paths(skipped, except_of=()),
    )


def _rules(groups, options):
    """The rules, checked one after the other."""
    rules = []
    for left, group in zip(range(len(groups), 0, -1), groups, strict=True):
        with share_of_time(left):
            rules.append(check_rule(group, options))
    return rules


def _function(f: Callable[..., Any], args: Sequence[Any]):
    """A model as a function of its parameters and its inputs."""
    model = isinstance(f, tuple) or (
        callable(f) and any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(f))
    )
    if not model:
        if not callable(f):
            raise UserTypeError(
                f"expected a function or a model, got {type(f).__name__}"
            )
        return f, args
    # Flax takes longer to import than most audits take to run.
    from gradstab.network.adapters import as_target

    target = as_target(f, args)

    def of_params(params: Any, *inputs):
        return target.apply(params, target.state, *inputs)

    return of_params, (target.params, *target.inputs)


def _calls(
    f: Callable[..., Any], args: Sequence[Any], precision: str | None
) -> list[Call]:
    """The calls of all rules, in float64 unless f does not trace there."""
    if precision != "own":
        try:
            with settings(wide=True):
                return _run(f, args, wide=True)
        except REFUSALS:
            if precision is not None:
                raise
    with settings(wide=False):
        return _run(f, args, wide=False)


def _run(f: Callable[..., Any], args: Sequence[Any], *, wide):
    leaves, structure = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if _is_traced(leaf)]
    arrays = [_lifted(leaves[place]) if wide else leaves[place] for place in places]

    def flat(*arrays):
        full = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        return jax.tree.leaves(f(*jax.tree.unflatten(structure, full)))

    closed = jax.make_jaxpr(flat)(*arrays)
    moved = [_tree.is_floating(a) for a in arrays]
    if not wide or not calls_host(closed):
        return calls_in(closed, arrays, moved=moved)
    with settings(wide=True, everywhere=True):
        if error := trouble([(flat, arrays)]):
            raise UserTypeError(error)
        return calls_in(closed, arrays, moved=moved)


def _is_traced(leaf: Any):
    return isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array)


def _lifted(leaf: Any):
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jnp.asarray(leaf, jnp.complex128)
    return jnp.asarray(leaf, jnp.float64) if _tree.is_floating(leaf) else leaf


def _skipped(call, patterns):
    names = _compat.rule_name(call.place.eqn), _package(call.place.eqn)
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns for name in names)


def _package(eqn: _compat.JaxprEqn):
    """The package that defines the rule; empty outside of installed packages."""
    _, found, inside = _compat.rule_source(eqn).rpartition("site-packages/")
    return inside.partition("/")[0] if found else ""


def _paths(calls, *, except_of):
    """The paths of the calls, each once, but for those of other calls there."""
    known = {(call.place.path, id(call.place.eqn)) for call in except_of}
    left = [c.place for c in calls if (c.place.path, id(c.place.eqn)) not in known]
    return tuple(dict.fromkeys(place.path for place in left))
