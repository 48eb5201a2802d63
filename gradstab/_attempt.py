"""Calls of code that is not ours, which may raise anything; internal.

A user's function, model, rule or loader is asked what it can do by trying. Only such
calls go through `attempt`: an error of our own is to be seen.
"""

import dataclasses
from typing import Any

from gradstab import errors


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a call raised.

    Attributes:
        error: the exception.
    """

    error: BaseException

    @property
    def kind(self) -> str:
        """The name of the exception's class, of Python's where it is one of ours."""
        return errors.kind(self.error)

    def words(self, length: int = 160, /) -> str:
        """The kind, and the first line of the message up to a length."""
        line = (str(self.error).splitlines() or [""])[0][:length]
        return f"{self.kind}: {line}"

    def __str__(self) -> str:
        return self.words()


def attempt(function, /, *args, **kwargs) -> Any:
    """What a function of the user's returns, or the `Refusal` if it raises.

    What ends a program, such as an interruption, is raised.

    >>> str(attempt(int, "one"))
    "ValueError: invalid literal for int() with base 10: 'one'"
    """
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return Refusal(error)


def works(function, /, *args, **kwargs) -> bool:
    """Whether a function of the user's returns."""
    return not isinstance(attempt(function, *args, **kwargs), Refusal)
