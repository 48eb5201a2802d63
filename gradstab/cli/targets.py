"""Functions of the user's, named on the command line."""

import ast
import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from gradstab.errors import UserValueError, call_of_user


class TargetError(UserValueError):
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
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise TargetError(f"{target!r} is not of the form package.module:function")
    plain = module.removesuffix(".py")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if plain != module and _exists(plain):
        raise TargetError(f"give {plain}:{function}, without .py")
    if not _exists(module):
        raise TargetError(f"there is no module {module!r} here or among the installed")
    found = call_of_user(importlib.import_module, module)
    if not hasattr(found, function):
        raise TargetError(f"module {module!r} has no {function!r}")
    wanted = getattr(found, function)
    if not callable(wanted):
        kind = type(wanted).__name__
        raise TargetError(f"{target} is of type {kind}, and no function to call")
    return wanted


def call(target: str, /) -> Any:
    """What the function that ``package.module:function`` names returns.

    Raises:
        TargetError: see `load_function`; if it needs arguments, or leaves Python.
    """
    function = load_function(target)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        text = f"{target} is called without arguments: {error}"
        raise TargetError(text) from error
    except ValueError:  # of some built-in functions nothing is known
        pass
    try:
        return call_of_user(function)
    except SystemExit as error:
        raise TargetError(f"{target} called sys.exit({error.code!r})") from error


def selector(text: str, /) -> Callable[[Any], Any]:
    """The function that takes one array from what a model returns.

    Args:
        text: ``module:function``, or a path of positions, keys and attributes.

    Examples:
        >>> selector("1.loc")((0, {"loc": 3}))
        3
    """
    if ":" in text:
        return load_function(text)
    return lambda result: functools.reduce(_part, text.split("."), result)


def keywords(items, /) -> dict[str, Any]:
    """Keyword arguments from ``name=value``; what is no Python literal is text.

    Raises:
        TargetError: for an item of another form.

    Examples:
        >>> keywords(["train=False", "mode=same", "sizes=(1, 2)"])
        {'train': False, 'mode': 'same', 'sizes': (1, 2)}
    """
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise TargetError(f"{item!r} is not of the form name=value")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _part(result, name: str):
    """One step of a path: an entry, or an attribute."""
    if isinstance(result, (tuple, list)) and name.lstrip("-").isdigit():
        if not -len(result) <= int(name) < len(result):
            raise TargetError(f"the result has {len(result)} parts, none at {name}")
        return result[int(name)]
    if isinstance(result, dict) and name in result:
        return result[name]
    if hasattr(result, name):
        return getattr(result, name)
    raise TargetError(f"a {type(result).__name__} of the result has no part {name!r}")


def _exists(module):
    parent = module.rpartition(".")[0]
    try:
        found = (
            importlib.util.find_spec(module) if not parent or _exists(parent) else None
        )
    except ModuleNotFoundError:  # the parent is a module and no package
        return False
    return found is not None
