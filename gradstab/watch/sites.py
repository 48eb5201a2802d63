"""Where in the order of the computation a layer stands."""

import itertools
from typing import NamedTuple

import numpy as np


class Site(NamedTuple):
    """Where in the order of the computation a layer stands.

    Attributes:
        loops: for each loop around it, but for one over layers, its number and its
            length, the outermost first.
        order: numbers by which layers of the same iterations follow each other.
        apart: whether an iteration of these loops needs nothing of the one before.
    """

    loops: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()
    apart: bool = True


def position(site: Site, step: int, /) -> tuple:
    """What a layer at an iteration is sorted by, in the order of the computation."""
    if not site.loops:
        return site.order
    indices = np.unravel_index(step, [length for _, length in site.loops])
    numbers = (number for number, _ in site.loops)
    pairs = zip(numbers, map(int, indices), strict=True)
    return (*itertools.chain.from_iterable(pairs), *site.order)


def iteration(site: Site, step: int, /) -> int | tuple[int, ...] | None:
    """Which iteration of its loops a layer is at; of several one for each."""
    if not site.loops or step < 0:
        return None
    lengths = [length for _, length in site.loops]
    if len(lengths) == 1:
        return step
    return tuple(int(index) for index in np.unravel_index(step, lengths))
