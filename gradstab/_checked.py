"""Values that options may take. For use inside of gradstab.

Each function returns the value, or raises a `ValueError` (of a wrong kind of thing a
`TypeError`) with what was given and what was expected.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any

from gradstab.errors import UserTypeError, UserValueError


def whole_number(value: Any, name: str, /, *, least: int = 0, most: int | None = None):
    """A whole number in a range, NumPy's among them.

    >>> whole_number(3, "depth", least=1)
    3
    >>> whole_number(0, "depth", least=1)
    Traceback (most recent call last):
    gradstab.errors.UserValueError: depth must be a whole number from 1, got 0
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least or (most is not None and found > most):
        bounds = f"from {least}" if most is None else f"from {least} to {most}"
        raise UserValueError(f"{name} must be a whole number {bounds}, got {value!r}")
    return found


def number(
    value: Any,
    name: str,
    /,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    above: float = -math.inf,
):
    """A finite number in a range; ``above`` and ``below`` do not belong to it.

    >>> number(-1, "learning_rate", least=0)
    Traceback (most recent call last):
    gradstab.errors.UserValueError: learning_rate must be a number from 0, got -1
    """
    try:
        found = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if math.isfinite(found) and least <= found <= most and above < found < below:
        return value
    words = {"from": least, "above": above, "to": most, "below": below}
    said = [f"{word} {end:g}" for word, end in words.items() if math.isfinite(end)]
    kind = " ".join(["number", *said]) if said else "finite number"
    raise UserValueError(f"{name} must be a {kind}, got {value!r}")


def truth(value: Any, name: str, /) -> bool:
    """True or False, and nothing that only counts as one of them.

    >>> truth("no", "batched")
    Traceback (most recent call last):
    gradstab.errors.UserValueError: batched must be True or False, got 'no'
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise UserValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def one_of(value: Any, name: str, known: Iterable, /):
    """One of the values that are known.

    >>> one_of("test", "mode", ["train", "eval"])
    Traceback (most recent call last):
    gradstab.errors.UserValueError: mode must be 'train' or 'eval', got 'test'
    """
    known = list(known)
    if not any(type(value) is type(k) and value == k for k in known):
        *first, last = map(repr, known)
        text = f"{', '.join(first)} or {last}" if first else last
        raise UserValueError(f"{name} must be {text}, got {value!r}")
    return value


def seed(value: Any, /, name: str = "seed"):
    """A seed that JAX and NumPy take: of more than 32 bits JAX sees only the last 32.

    >>> seed(2**64)
    Traceback (most recent call last):
    gradstab.errors.UserValueError: seed must be a whole number from 0 to 4294...
    """
    return whole_number(value, name, most=2**32 - 1)


def transformation(value: Any, name: str, /):
    """What Optax calls a gradient transformation.

    >>> transformation(0.1, "optimizer")
    Traceback (most recent call last):
    gradstab.errors.UserTypeError: optimizer must be an Optax transformation, ...
    """
    if not all(callable(getattr(value, part, None)) for part in ("init", "update")):
        raise UserTypeError(
            f"{name} must be an Optax transformation, like optax.sgd(0.1), got "
            f"{value!r}"
        )
    return value
