"""How a record is made: frozen, and a pytree."""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

# Of a longer tuple the ends are shown.
_MOST_ITEMS = 6

T = TypeVar("T")


def static(**options):
    """A field of a record that is not an array."""
    return dataclasses.field(metadata={"static": True}, **options)


@typing.overload
def record(cls: type[T], /) -> type[T]: ...


@typing.overload
def record(*, eq: bool) -> Callable[[type[T]], type[T]]: ...


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static,))
def record(cls=None, /, *, eq: bool = True):
    """A frozen dataclass that is a pytree; fields made by `static` are not leaves.

    Its ``repr`` is of a few lines, however large the arrays are.

    Args:
        cls: the class.
        eq: whether records are equal if their fields are; else each is equal to itself.
    """
    if cls is None:
        return functools.partial(record, eq=eq)
    cls = dataclasses.dataclass(frozen=True, repr=False, eq=eq)(cls)
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _in_short
    fields = dataclasses.fields(cls)
    return jax.tree_util.register_dataclass(
        cls,
        data_fields=[f.name for f in fields if not f.metadata.get("static")],
        meta_fields=[f.name for f in fields if f.metadata.get("static")],
    )


def _in_short(self):
    """The record with its arrays by dtype, shape and range; defaults are left out."""
    fields = []
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if not _is_default(value, field.default):
            fields.append(f"{field.name}={short(value)}")
    return f"{type(self).__name__}({', '.join(fields)})"


def _is_default(value: Any, default):
    # By what is written: NaN is not equal to itself.
    return type(value) is type(default) and repr(value) == repr(default)


def short(value: Any, /) -> str:
    """A value in a few words.

    >>> import numpy as np
    >>> short(np.arange(6.0).reshape(2, 3)), short(tuple(range(9))), short(0.25)
    ('float64[2,3] 0 .. 5', '(0, 1, 2, ..., 7, 8: 9 items)', '0.25')
    """
    if isinstance(value, tuple | list):
        items = list(map(short, value))
        if len(items) > _MOST_ITEMS:
            items = [*items[:3], "...", *items[-2:]]
            return f"({', '.join(items)}: {len(value)} items)"
        return f"({', '.join(items)})"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value)
    return repr(value)


def _array(value: Any):
    kind = f"{value.dtype}[{','.join(map(str, value.shape))}]"
    array = numbers(value)
    if array is None or not array.size:
        return kind
    if array.size == 1:
        return f"{array.item():.4g}" if not array.ndim else f"{kind} {array.item():.4g}"
    known = array[~np.isnan(array)]
    if not known.size:
        return f"{kind} nan"
    lost = f", {array.size - known.size} nan" if known.size < array.size else ""
    return f"{kind} {known.min():.4g} .. {known.max():.4g}{lost}"


def numbers(value: Any, /):
    """The array in float64; None inside of jit, and of what is no array of reals."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def reduced(reduce, value: Any, /) -> str:
    """The result of a function of an array, in short, where it has numbers."""
    array = numbers(value)
    if array is None or not array.size:
        return short(value)
    return short(float(reduce(array)))
