"""What gradstab raises for whoever gave it what it cannot use.

Each is also the error of Python that fits, so ``except ValueError`` catches it; files
that cannot be used raise Python's own `OSError` and its kinds. Anything else that
leaves gradstab is a mistake in gradstab or below it, or came out of the user's code.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class UserError(Exception):
    """What was given cannot be used; the message says what to give instead."""


class UserValueError(UserError, ValueError):
    """It has a value or a shape that cannot be."""


class UserTypeError(UserError, TypeError):
    """It is of another kind than what is asked for."""


class UserKeyError(UserError, KeyError):
    """There is nothing of that name.

    >>> str(UserKeyError("no layer named 'a'"))  # a KeyError adds marks of its own
    "no layer named 'a'"
    """

    __str__ = Exception.__str__


class UserIndexError(UserError, IndexError):
    """There is nothing at that position."""


class UserAttributeError(UserError, AttributeError):
    """A module has nothing of that name."""


class UserMemoryError(UserError, MemoryError):
    """It would need more memory than there is."""


class UserModuleNotFoundError(UserError, ModuleNotFoundError):
    """It needs a package that is not installed."""


def call_of_user(
    function: Callable[_Arguments, _Result],
    /,
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> _Result:
    """``function(*args, **kwargs)``, for a function that the user gave.

    What comes out of it is the user's, also where the traceback shows no line of his,
    but those of a layer of Flax, for instance, that is given a wrong shape.
    """
    return function(*args, **kwargs)


def kind(error: BaseException, /) -> str:
    """The name of an error's class; of a `UserError`, that of the one of Python's.

    >>> kind(UserValueError()), kind(ZeroDivisionError())
    ('ValueError', 'ZeroDivisionError')
    """
    if isinstance(error, UserError):
        classes = type(error).__mro__
        return next(c.__name__ for c in classes if c.__module__ == "builtins")
    return type(error).__name__
