"""`check_grads`, `check_jvp` and `check_vjp` with the signatures of `jax.test_util`."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gradstab import _tree
from gradstab._attempt import Refusal, attempt
from gradstab.errors import UserValueError
from gradstab.gradcheck import GradCheck, Verdict, check
from gradstab.gradcheck.subject.abilities import LOOP
from gradstab.gradcheck.subject.problem import problem
from gradstab.gradcheck.subject.time_limit import time_limit
from gradstab.testing import contract, ledger
from gradstab.testing.acceptance import Acceptance
from gradstab.testing.assertions import settle, validate
from gradstab.testing.tolerances import tolerances

# What `jax.test_util.check_grads` calls the modes; ``lin`` is a JVP by linearisation.
_MODES = {"fwd": "forward", "lin": "forward", "rev": "reverse"}

_log = logging.getLogger(__name__)


def check_grads(
    f: Callable,
    args: Sequence,
    order: int,
    modes: Iterable[str] = ("fwd", "rev"),
    atol: float | dict | None = None,
    rtol: float | dict | None = None,
    eps: float | None = None,
    *,
    inconclusive: str = "raise",
    max_seconds: float | None = None,
    **options,
) -> None:
    r"""Asserts that the derivatives of f are right, up to an order.

    The signature is that of `jax.test_util.check_grads`: an import line is all that
    changes. Tolerances say how large an error is accepted, and need not be given. With
    E the error of a rule and J the true Jacobian, both with respect to one leaf of the
    arguments, the rule is accepted if :math:`\|E\|_F \le atol + rtol \|J\|_F`.

    Like the original it speaks of the arguments. Where f is not finite the original
    decides, to which NaN is like NaN. What is wrong only at points moved from the
    arguments is an error too, unless these points lie outside of what the arguments'
    form says (bounds change places or become equal, a symmetric matrix does not stay
    symmetric, an iteration need not converge) and f is right within: then it is logged
    as a warning of the logger ``gradstab.testing.drop_in``, and the cause named.

    Args:
        f: function of pytrees to a pytree.
        args: its arguments. Those that are not floating need not be left out; if all
            that are floating are empty, or all results, there is nothing to check.
        order: 1 for first derivatives (0 too, as in the original), 2 for second ones
            too, and so on.
        modes: some of ``fwd``, ``rev`` and ``lin`` (checked as ``fwd``); without any
            nothing is checked. The forward mode of a `jax.custom_vjp`, which has none,
            is left out.
        atol: the absolute error that is accepted, for first derivatives: a number, or
            numbers by dtype, of which that of the arguments' dtype counts. By default
            that of JAX (2e-3 in float32, 1e-5 in float64), times f's value over the
            size of the argument where that is less than one, and not more than an
            ``rtol`` that was given.
        rtol: the relative error that is accepted, likewise; by default that of JAX, and
            5e-3 for narrower dtypes if f can be lifted to float64. If both are zero no
            error is accepted that differences can see, and they must see 1e-7.
        eps: not needed: steps are found.
        inconclusive: what to do if a larger error could have gone unnoticed: ``raise``,
            or ``warn`` by a `UserWarning`.
        max_seconds: the time after which all of it ends with what is known by then:
            INCONCLUSIVE, unless something is wrong already; no limit if None.
        **options: the other options of `gradstab.check`.

    Raises:
        AssertionError: a derivative is wrong, or, unless that only warns, cannot be
            seen.
        TypeError: only ``fwd`` was asked for, and f has no forward mode.
        ValueError: an unknown mode or order.

    >>> import jax.numpy as jnp
    >>> check_grads(jnp.sin, (jnp.arange(3.0),), order=1, rtol=1e-3)
    """
    __tracebackhide__ = True  # a test shows its own line, not ours
    del eps
    validate(inconclusive)
    if order < 0:
        raise UserValueError(f"order is not negative, got {order!r}")
    wanted, args = _modes(modes), tuple(args)
    if not wanted or _is_empty(f, args):
        return
    given = tolerances(args, rtol, atol)
    options = {"rtol": given.asked, "modes": wanted, **options}
    with time_limit(max_seconds):
        for result, accepted in _results(f, args, order, given, options):
            passed = result.verdict is Verdict.PASS
            ledger.enter(result, verdict="accepted" if accepted and not passed else "")
            if not accepted:
                settle(result, inconclusive, stacklevel=3)


def check_jvp(
    f: Callable,
    f_jvp: Callable,
    args: Sequence,
    atol: float | dict | None = None,
    rtol: float | dict | None = None,
    eps: float | None = None,
    err_msg: str = "",
    **options,
) -> None:
    """Asserts that a function computes the JVP of another one.

    The signature is that of `jax.test_util.check_jvp`, and what is checked is f with
    the rule that the function makes: see `check_grads`.

    Args:
        f: function of pytrees to a pytree.
        f_jvp: ``f_jvp(args, tangents)``, f's value and its tangent: such as
            ``functools.partial(jax.jvp, f)``.
        args: the arguments of f.
        atol: see `check_grads`.
        rtol: see `check_grads`.
        eps: not needed: steps are found.
        err_msg: what the error says first.
        **options: the other options of `check_grads`.

    Raises:
        AssertionError: the value or the tangent is wrong, or cannot be seen.

    >>> import functools, jax, jax.numpy as jnp
    >>> check_jvp(jnp.sin, functools.partial(jax.jvp, jnp.sin), (jnp.arange(3.0),))
    """
    rule = jax.custom_jvp(lambda *args: f(*args))
    rule.defjvp(lambda primals, tangents: f_jvp(tuple(primals), tuple(tangents)))
    __tracebackhide__ = True
    _check_rule(rule, args, "fwd", atol, rtol, eps, err_msg, options)


def check_vjp(
    f: Callable,
    f_vjp: Callable,
    args: Sequence,
    atol: float | dict | None = None,
    rtol: float | dict | None = None,
    eps: float | None = None,
    err_msg: str = "",
    **options,
) -> None:
    """Asserts that a function computes the VJP of another one.

    The signature is that of `jax.test_util.check_vjp`, and what is checked is f with
    the rule that the function makes: see `check_grads`.

    Args:
        f: function of pytrees to a pytree.
        f_vjp: ``f_vjp(*args)``, f's value and a function from a cotangent to the
            gradients of all arguments: such as ``functools.partial(jax.vjp, f)``.
        args: the arguments of f.
        atol: see `check_grads`.
        rtol: see `check_grads`.
        eps: not needed: steps are found.
        err_msg: what the error says first.
        **options: the other options of `check_grads`.

    Raises:
        AssertionError: the value or a gradient is wrong, or cannot be seen.

    >>> import functools, jax, jax.numpy as jnp
    >>> check_vjp(jnp.sin, functools.partial(jax.vjp, jnp.sin), (jnp.arange(3.0),))
    """
    rule = jax.custom_vjp(lambda *args: f(*args))
    rule.defvjp(
        lambda *args: (f_vjp(*args)[0], args),
        lambda args, w: tuple(f_vjp(*args)[1](w)),
    )
    __tracebackhide__ = True
    _check_rule(rule, args, "rev", atol, rtol, eps, err_msg, options)


def _results(
    f: Callable[..., Any], args: tuple, order: int, given, options
) -> Iterator[tuple[GradCheck, bool]]:
    """The checks of the orders, and whether what they found is accepted."""
    modes = options["modes"]
    for g, point, depth in _ladder(f, args, max(order, 1), modes):
        accepts = Acceptance(g, point, given, modes=modes)
        result = check(g, *point, order=depth, **options)
        yield (
            result,
            accepts(result)
            or _is_right_within(result, g, point, given, options | {"order": depth}),
        )


def _check_rule(
    rule,
    args,
    mode: str,
    atol,
    rtol,
    eps,
    err_msg,
    options,
):
    __tracebackhide__ = True
    try:
        check_grads(rule, args, 1, (mode,), atol, rtol, eps, **options)
    except AssertionError as error:
        raise AssertionError(f"{err_msg} {error}".strip()) from error


def _modes(modes) -> tuple[str, ...]:
    if isinstance(modes, str):  # as in the original, any text that holds the names
        named = [m for m in _MODES if m in modes] or [modes] * bool(modes)
    else:
        named = list(modes)
    if any(m not in _MODES for m in named):
        raise UserValueError(f"modes is some of {tuple(_MODES)}, got {named!r}")
    return tuple(dict.fromkeys(ours for m, ours in _MODES.items() if m in named))


def _is_empty(f: Callable[..., Any], args: tuple) -> bool:
    """Whether no floating argument has an entry, or no floating result."""
    given = _floating_sizes(args)
    if given and not any(given):
        f(*args)  # what it raises is to be seen
        return True
    results = attempt(jax.eval_shape, f, *args)
    if isinstance(results, Refusal):
        return False  # it looks at values, or raises what the check of it will raise
    sizes = _floating_sizes(results)
    return bool(sizes) and not any(sizes)


def _floating_sizes(tree: Any) -> list[int]:
    known = float, complex, np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, known)]
    return [int(np.prod(np.shape(x))) for x in leaves if _tree.is_floating(x)]


def _ladder(f: Callable[..., Any], args: tuple, order: int, modes: tuple[str, ...]):
    """Functions, points and orders: `check` sees two orders of each at most."""
    while order > 2:
        yield f, args, 1
        f, args = _derivative(f, args, modes)
        order -= 1
    yield f, args, order


def _derivative(f: Callable[..., Any], args: tuple, modes: tuple[str, ...]):
    """The VJP of f (its JVP in forward mode) as a function of the point and of w."""
    task = problem(f, args, modes=modes)
    rng = np.random.default_rng(0)
    like = task.outputs if "reverse" in task.modes else task.leaves
    with task.context():
        w = tuple(rng.standard_normal(y.shape).astype(y.dtype) for y in like)

    def derivative(leaves, w):
        if "reverse" in task.modes:
            return jax.vjp(task.f, leaves)[1](w)
        return jax.jvp(task.f, (leaves,), (w,))[1]

    return derivative, (tuple(map(np.asarray, task.leaves)), w)


def _is_right_within(
    result: GradCheck, f: Callable[..., Any], args: tuple, given, options
) -> bool:
    """Whether f is right at the arguments and wherever their form holds; it is logged.

    Nothing else is excused: a rule that is wrong where the form holds stays wrong.
    """
    fixed = options | {"at": "given"}

    def holds(g, point, options):
        accepts = Acceptance(g, point, given, modes=options["modes"])
        return accepts(check(g, *point, **options))

    same = contract.symmetrized(f, args)
    if (
        same is not None
        and holds(f, args, fixed | {"order": 1})
        and holds(same, args, options)
    ):
        return _logged(result, contract.SYMMETRIC)
    if options.get("at") == "given" or not contract.is_elsewhere(result):
        return False
    if not holds(f, args, fixed):
        return False
    if result.verdict is Verdict.INCONCLUSIVE:
        return True  # what could not be seen lies elsewhere
    others = contract.in_order(args)
    if others:
        within = all(holds(f, other, fixed) for other in others)
        return within and _logged(result, contract.ORDERED)
    task = problem(f, args, modes=options["modes"])
    if task.iterates or task.engine == LOOP:
        cause = contract.CONVERGES if task.iterates else contract.LOOKS
        return _logged(result, cause)
    return False


def _logged(result, cause) -> bool:
    _log.warning("only away from the arguments: %s. %s", result.reason, cause)
    return True
