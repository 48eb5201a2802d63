"""Functions of the user's, named on the command line."""

import importlib.util
import os
import sys
from collections.abc import Callable


class TargetError(ValueError):
    """What was named is not there, or not of the form that is asked for."""


def load_function(target: str, /) -> Callable:
    """The function that ``package.module:function`` names.

    Modules of the current folder are found too.

    Raises:
        TargetError: if the name is of another form, or there is no such module or
            function.
    """
    module, colon, function = target.partition(":")
    if not colon:
        raise TargetError(f"{target!r} is not of the form package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not _exists(module):
        raise TargetError(f"there is no module {module!r} here or among the installed")
    found = importlib.import_module(module)
    if not hasattr(found, function):
        raise TargetError(f"module {module!r} has no {function!r}")
    return getattr(found, function)


def _exists(module):
    parent = module.rpartition(".")[0]
    return (not parent or _exists(parent)) and bool(importlib.util.find_spec(module))
