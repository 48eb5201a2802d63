"""Steps of a run of which some are watched, and what is done with what they show."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _checked
from gradstab.errors import UserTypeError
from gradstab.training.schedule import expect_count
from gradstab.watch import History, Statistics, value_and_grad


@dataclasses.dataclass(frozen=True)
class Watch:
    """Which steps of a run are watched, and how closely.

    Attributes:
        every: watch the first step and, from then on, one for so many: that which
            begins a dispatch at or after each multiple of it.
        level: ``"light"`` or ``"full"``, see `gradstab.value_and_grad`.
        include: a regular expression: only layers in whose name it is found.
        exclude: a regular expression: no layers in whose name it is found.

    Raises:
        ValueError: ``every`` is no whole number from 1, or ``level`` is none.
    """

    every: int = 1
    level: str = "light"
    include: str | None = None
    exclude: str | None = None

    def __post_init__(self):
        expect_count("every", self.every)
        _checked.one_of(self.level, "level", ["light", "full"])

    @property
    def value_and_grad(self) -> Callable:
        """In place of `jax.value_and_grad`."""
        return _Watched(self.level, self.include, self.exclude)

    def num_watched(self, before: int, length: int, /) -> int:
        """How many steps of a dispatch are watched, which are its first.

        All of them if every step is; else one, at the first start of a dispatch at or
        after each multiple of ``every``.

        Args:
            before: steps taken before the dispatch.
            length: steps of a dispatch.

        >>> [Watch(every=15).num_watched(before, 10) for before in range(0, 70, 10)]
        [1, 0, 1, 1, 0, 1, 1]
        >>> Watch().num_watched(20, 10)
        10
        """
        if self.every == 1:
            return length
        last = before - (before % length or length)  # where the one before started
        return int(before // self.every > last // self.every)


@dataclasses.dataclass(frozen=True)
class _Watched:
    """`value_and_grad` with its options; equal ones compile one program."""

    level: str
    include: str | None
    exclude: str | None

    def __call__(self, loss, has_aux):
        return value_and_grad(loss, has_aux=has_aux, **dataclasses.asdict(self))


def as_watch(watch: Any, /) -> Watch | None:
    """What `fit` takes for ``watch``: a `Watch`, True, how often, or None.

    Raises:
        TypeError: it is none of these.
        ValueError: a number below 1.

    >>> as_watch(True), as_watch(False)
    (Watch(every=1, level='light', include=None, exclude=None), None)
    """
    if watch is None or isinstance(watch, Watch):
        return watch
    if isinstance(watch, bool):
        return Watch() if watch else None
    if isinstance(watch, int):
        return Watch(every=watch)
    raise UserTypeError(
        f"watch is {watch!r}; expected gradstab.training.Watch(...), True, or every "
        "how many steps"
    )


class Part(NamedTuple):
    """Steps of a dispatch that one program takes."""

    first: int  # steps taken before
    records: dict[str, jax.Array]  # of each step, perhaps not computed yet
    stats: Statistics | None  # of each step, if they are watched


def parted(bare: Callable, watched: Callable | None, watch: Watch | None, /):
    """A function that takes the steps of a dispatch, each by the program for it.

    Args:
        bare: from `make_steps`.
        watched: from `make_steps` with a ``watch``.
        watch: which steps are watched; None for none.

    Returns:
        ``steps(state, x, y, plan, stop, first) -> (state, parts)``, with ``first`` the
        number of steps that are taken before.
    """

    def steps(state: Any, x, y, plan, stop, first):
        num = watch.num_watched(first, len(plan)) if watch is not None else 0
        parts = []
        if num and watched is not None:
            state, records, stats = watched(state, x, y, plan[:num], stop)
            parts.append(Part(first, records, stats))
        if num < len(plan):
            # Of one length wherever a step is watched: two programs in all.
            state, records = bare(state, x, y, plan[num:], stop)
            parts.append(Part(first + num, records, None))
        return state, parts

    return steps


def joined(parts: list[Part], /) -> dict[str, np.ndarray]:
    """What the steps of all parts measured, on the host."""
    records = jax.device_get([part.records for part in parts])
    return {name: np.concatenate([r[name] for r in records]) for name in records[0]}


class Watcher:
    """Writes the statistics of a run to its history, and shows them.

    Args:
        folder: of the run; None to write nothing.
        show: called with the number of a step (from 1), its `Statistics` and its
            records.
    """

    def __init__(self, folder, show: Callable[..., Any]):
        self._history = None if folder is None else History(folder)
        self._show = show

    def write(self, part: Part, end: int, /) -> None:
        """Write and show the statistics of the steps of a part, if it is watched.

        Args:
            part: of the dispatch.
            end: how many steps have been taken or, of the last one, tried.

        Raises:
            OSError: they cannot be written.
        """
        if part.stats is None or end <= part.first:
            return
        stats, records = jax.device_get((part.stats, part.records))
        stats, records = jax.tree.map(lambda x: x[: end - part.first], (stats, records))
        if self._history is not None:
            scalars = {name: records[name] for name in _KEPT if name in records}
            self._history.append(part.first + 1, stats, **scalars)
        for i in range(len(records["loss"])):
            one = jax.tree.map(lambda x, i=i: x[i], (stats, records))
            self._show(part.first + 1 + i, *one)


# What the history keeps beside the statistics.
_KEPT = ("pre_norm", "post_norm", "clipped", "clip_cosine")
