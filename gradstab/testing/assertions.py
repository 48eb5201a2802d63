"""The gradient checker as an assertion, for test suites."""

import warnings
from collections.abc import Callable

from gradstab.errors import UserValueError
from gradstab.gradcheck import GradCheck, Verdict, check
from gradstab.testing import ledger

_INCONCLUSIVE = ("raise", "warn")


def assert_grads(
    f: Callable,
    /,
    *args,
    rtol: float | None = None,
    inconclusive: str = "raise",
    max_seconds: float | None = None,
    **options,
) -> GradCheck:
    """Asserts that the derivatives of f at the arguments are right.

    Args:
        f: see `gradstab.gradcheck.check`.
        *args: the point.
        rtol: the relative error that must not go unnoticed.
        inconclusive: what to do if such an error could have gone unnoticed: ``raise``,
            or ``warn`` by a `UserWarning`.
        max_seconds: the time after which the check ends with what it knows by then:
            INCONCLUSIVE, unless something is wrong already; no limit if None.
        **options: the other options of `check`.

    Returns:
        The check that was passed, or not failed.

    Raises:
        AssertionError: the verdict is FAIL, or INCONCLUSIVE unless that only warns.
        ValueError: an unknown value of ``inconclusive``.

    >>> import jax.numpy as jnp
    >>> assert_grads(jnp.sin, jnp.arange(3.0)).verdict
    <Verdict.PASS: 'PASS'>
    """
    __tracebackhide__ = True  # a test shows its own line, not ours
    validate(inconclusive)
    result = check(f, *args, rtol=rtol, max_seconds=max_seconds, **options)
    ledger.enter(result)
    return settle(result, inconclusive, stacklevel=3)


def validate(inconclusive: str, /) -> None:
    """Refuses an unknown answer to what cannot be seen."""
    if inconclusive not in _INCONCLUSIVE:
        raise UserValueError(
            f"inconclusive is one of {_INCONCLUSIVE}, got {inconclusive!r}"
        )


def settle(result: GradCheck, inconclusive: str, /, *, stacklevel: int) -> GradCheck:
    """Returns a check that passed; raises or warns otherwise."""
    __tracebackhide__ = True
    if result.verdict is Verdict.PASS:
        return result
    if result.verdict is Verdict.INCONCLUSIVE and inconclusive == "warn":
        warnings.warn(str(result), stacklevel=stacklevel)
        return result
    raise AssertionError(str(result))
