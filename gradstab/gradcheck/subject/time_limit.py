"""A limit to the time of a check, looked at between evaluations."""

import contextlib
import contextvars
import time

_END: contextvars.ContextVar[float] = contextvars.ContextVar(
    "end", default=float("inf")
)


class OutOfTimeError(Exception):
    """The time is over."""


@contextlib.contextmanager
def time_limit(seconds: float | None):
    """Lets `still_in_time` raise so many seconds from now; never if None.

    Of two limits, one inside of the other, the earlier one holds.
    """
    end = float("inf") if seconds is None else time.monotonic() + seconds
    token = _END.set(min(end, _END.get()))
    try:
        yield
    finally:
        _END.reset(token)


def still_in_time() -> None:
    """Call it before what takes long.

    Raises:
        OutOfTimeError: the time is over.
    """
    if time.monotonic() > _END.get():
        raise OutOfTimeError
