"""Rows that all sizes have: layers and parameters, matched by name or by depth."""

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstab.errors import UserValueError

_NUMBER = re.compile(r"(?:(?<=[./_])|^)\d+(?=[./_]|$)")


class Matched(NamedTuple):
    """Names of rows, and for each size which of its own entries are in each row.

    Attributes:
        names: of the rows.
        members: for each size, for each row the positions.
    """

    names: tuple[str, ...]
    members: tuple[tuple[tuple[int, ...], ...], ...]

    def of(self, size: int, values: np.ndarray) -> np.ndarray:
        """One value for each row from those of a size, along the last axis.

        The root mean square where several entries are in a row.
        """
        columns = [values[..., list(own)] for own in self.members[size]]
        return np.stack([_rms(column) for column in columns], axis=-1)


def _rms(column: np.ndarray) -> np.ndarray:
    largest = np.max(column, axis=-1, keepdims=True)
    safe = np.where(largest > 0, largest, 1)
    return np.sqrt(np.mean(np.square(column / safe), axis=-1)) * safe[..., 0]


def matched(names: Sequence[Sequence[str]], sizes: Sequence[int]) -> Matched:
    """The rows of models of several sizes.

    If all have the same names, these are the rows. Else entries whose names differ by
    numbers alone, such as ``blocks.0`` and ``blocks.1``, are rows by where they are in
    their stack: the first, the middle and the last of it.

    Args:
        names: for each size those of its entries, in depth order.
        sizes: widths or depths, for what is said.

    Raises:
        ValueError: the models have no rows in common.
    """
    first = tuple(names[0])
    if all(tuple(own) == first for own in names):
        each = tuple((i,) for i in range(len(first)))
        return Matched(first, (each,) * len(names))
    groups = [_groups(own) for own in names]
    shared = [key for key in groups[0] if all(key in group for group in groups)]
    if not shared:
        raise UserValueError(
            f"the models of sizes {sizes[0]} and {sizes[-1]} have no layers in common: "
            f"{', '.join(names[0][:3])} and {', '.join(names[-1][:3])}"
        )
    lengths = {key: min(len(group[key]) for group in groups) for key in shared}
    rows = [
        (key, place, mark)
        for key in shared
        for place, mark in _places(lengths[key], {len(g[key]) for g in groups})
    ]
    members = tuple(
        tuple(
            (group[key][round(place * (len(group[key]) - 1))],)
            for key, place, _ in rows
        )
        for group in groups
    )
    return Matched(tuple(key.replace("#", mark) for key, _, mark in rows), members)


def _groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Positions by the name with its first number taken out, in depth order."""
    found = collections.defaultdict(list)
    for position, name in enumerate(names):
        found[key_of(name)].append(position)
    return found


def key_of(name: str, /) -> str:
    """A name with its first number taken out: that of its stack.

    >>> key_of("blocks.3.mlp.kernel")
    'blocks.#.mlp.kernel'
    """
    return _NUMBER.sub("#", name, count=1)


def _places(least: int, lengths: set[int]) -> list[tuple[float, str]]:
    """Where in a stack to look, as shares of it, and what to call that."""
    if lengths == {least}:  # as many at every size
        share = max(least - 1, 1)
        return [(i / share, str(i)) for i in range(least)]
    if least == 1:
        return [(1.0, "last")]
    if least == 2:
        return [(0.0, "first"), (1.0, "last")]
    return [(0.0, "first"), (0.5, "middle"), (1.0, "last")]
