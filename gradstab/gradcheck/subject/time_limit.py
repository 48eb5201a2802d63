"""A limit to the time of a check, looked at between evaluations."""

import contextlib
import contextvars
import dataclasses
import time

from gradstab._checked import number


@dataclasses.dataclass(frozen=True)
class _Budget:
    """When the time is over, and whose limit that is, in words."""

    end: float = float("inf")
    words: str = "any time"


_ENDLESS = _Budget()
_BUDGET = contextvars.ContextVar("budget", default=_ENDLESS)


class OutOfTimeError(BaseException):
    """The time is over; the message says which limit there was.

    It is no error of anyone's code: a call of the user's does not refuse by it.
    """


@contextlib.contextmanager
def time_limit(seconds: float | None):
    """Lets `still_in_time` raise so many seconds from now; never if None.

    Of two limits, one inside of the other, the earlier one holds: one budget of time
    serves all checks that are made within.

    Raises:
        ValueError: the seconds are not a positive number.
    """
    budget = _BUDGET.get()
    if seconds is not None:
        number(seconds, "max_seconds", above=0)
        own = _Budget(time.monotonic() + seconds, f"max_seconds={seconds}")
        budget = min(budget, own, key=lambda b: b.end)
    with _within(budget):
        yield


@contextlib.contextmanager
def share_of_time(num: int, /):
    """One of the last so many parts of the time that is left.

    Args:
        num: how many tasks are still to be done, this one included.
    """
    budget, now = _BUDGET.get(), time.monotonic()
    if num > 1:
        words = f"its share of {budget.words.removeprefix('its share of ')}"
        budget = _Budget(now + (budget.end - now) / num, words)
    with _within(budget):
        yield


@contextlib.contextmanager
def _within(budget):
    token = _BUDGET.set(budget)
    try:
        yield
    finally:
        _BUDGET.reset(token)


def still_in_time() -> None:
    """Call it before what takes long.

    Raises:
        OutOfTimeError: the time is over.
    """
    budget = _BUDGET.get()
    if time.monotonic() > budget.end:
        raise OutOfTimeError(budget.words)
