"""`check_grads` with the signature of `jax.test_util.check_grads`."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from gradstab.gradcheck import GradCheck, Verdict, check
from gradstab.gradcheck.subject.problem import problem
from gradstab.testing import ledger
from gradstab.testing.assertions import settle, validate

# What `jax.test_util.check_grads` calls the modes; ``lin`` is a JVP by linearisation.
_MODES = {"fwd": "forward", "lin": "forward", "rev": "reverse"}

# Directions and relative step for the size of a Jacobian: three digits are plenty.
_NUM_DIRECTIONS, _STEP = 8, 1e-4


def check_grads(
    f: Callable,
    args: Sequence,
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    *,
    inconclusive: str = "raise",
    **options,
) -> None:
    r"""Asserts that the derivatives of f are right, up to an order.

    The signature is that of `jax.test_util.check_grads`: an import line is all that
    changes. Tolerances say how large an error is accepted, and need not be given. With
    E the error of a rule and J the true Jacobian, both with respect to one leaf of the
    arguments, the rule is accepted if :math:`\|E\|_F \le atol + rtol \|J\|_F`.

    Args:
        f: function of pytrees to a pytree.
        args: its arguments. Those that are not floating need not be left out.
        order: 1 for first derivatives, 2 for second ones too, and so on.
        modes: some of ``fwd``, ``rev`` and ``lin`` (checked as ``fwd``). The forward
            mode of a `jax.custom_vjp`, which has none, is left out.
        atol: the absolute error that is accepted, for first derivatives.
        rtol: the relative error that is accepted; 1e-6 in float64, 1e-2 in float32 if
            neither is given.
        eps: not needed: steps are found.
        inconclusive: what to do if a larger error could have gone unnoticed: ``raise``,
            or ``warn`` by a `UserWarning`.
        **options: the other options of `gradstab.check`.

    Raises:
        AssertionError: a derivative is wrong, or, unless that only warns, cannot be
            seen.
        TypeError: only ``fwd`` was asked for, and f has no forward mode.
        ValueError: an unknown mode or order.

    >>> import jax.numpy as jnp
    >>> check_grads(jnp.sin, (jnp.arange(3.0),), order=1, rtol=1e-3)
    """
    validate(inconclusive)
    if order < 1:
        raise ValueError(f"order is 1 or more, got {order!r}")
    asked = min(rtol, 0.5) if rtol else None
    options = {"rtol": asked, "modes": _modes(modes), **options}
    for g, point, depth in _ladder(f, tuple(args), order, options["modes"]):
        result = check(g, *point, order=depth, **options)
        accepted = _is_accepted(result, g, point, rtol or 0.0, atol or 0.0)
        ledger.enter(result, verdict="accepted" if accepted else "")
        if not accepted:
            settle(result, inconclusive, stacklevel=3)


def _modes(modes) -> tuple[str, ...]:
    unknown = [] if isinstance(modes, str) else [m for m in modes if m not in _MODES]
    found = dict.fromkeys(ours for theirs, ours in _MODES.items() if theirs in modes)
    if unknown or not found:
        raise ValueError(f"modes is some of {tuple(_MODES)}, got {modes!r}")
    return tuple(found)


def _ladder(f, args, order, modes):
    """Functions, points and orders: `check` sees two orders of each at most."""
    while order > 2:
        yield f, args, 1
        f, args = _derivative(f, args, modes)
        order -= 1
    yield f, args, order


def _derivative(f, args, modes):
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


def _is_accepted(result: GradCheck, f, args, rtol, atol) -> bool:
    """Whether nothing was seen, and nothing overlooked, above the tolerances."""
    if result.verdict is Verdict.PASS or not (rtol or atol):
        return False
    doubted = [g for g in result.findings if g.state != "agrees"]
    norms = _jacobian_norms(f, args) if atol and doubted else {}

    def within(finding):
        tolerance = rtol + atol / norms.get(finding.leaf, np.inf)
        if finding.error > finding.bar:  # an error was seen: how large is it at most?
            return finding.error + finding.bar <= tolerance
        return finding.resolution <= tolerance

    lawful = all(law.holds or law.error <= rtol for law in result.identities)
    return lawful and bool(doubted) and all(map(within, doubted))


def _jacobian_norms(f, args) -> dict[str, float]:
    """The Frobenius norm of the Jacobian in every leaf, by differences of the value."""
    task = problem(f, args)
    rng = np.random.default_rng(0)

    def moved(i, v, h):
        return tuple(x + h * v if n == i else x for n, x in enumerate(task.leaves))

    def square(i, v, h):
        pairs = zip(task.f(moved(i, v, h)), task.f(moved(i, v, -h)), strict=True)
        return sum(np.sum(np.square((a - b) / (2 * h))) for a, b in pairs)

    norms = {}
    for i, (name, x) in enumerate(zip(task.names, task.leaves, strict=True)):
        h = _STEP * float(np.sqrt(np.mean(np.square(x))) or 1.0)
        with task.context():
            squares = [
                square(i, rng.standard_normal(x.shape).astype(x.dtype), h)
                for _ in range(_NUM_DIRECTIONS)
            ]
        norms[name] = float(np.sqrt(np.mean(squares)))
    return norms
