"""What is seen of a run: a bar, and of a watched one the norms of its layers."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Group
from rich.text import Text

from gradstab._text import printable
from gradstab.training.alarms import Alarms
from gradstab.training.heat_map import HeatMap
from gradstab.training.progress import progress_bar

_MOST_ALARMS = 4


class View(NamedTuple):
    """Where a run reports.

    Attributes:
        advance: called with the steps taken, and the loss of the last one.
        show: called with the number of a watched step, its statistics and records.
    """

    advance: Callable[[int, float], Any]
    show: Callable[..., Any]


@contextlib.contextmanager
def view(
    wanted: bool, first_step: int, num_steps: int, watched: bool
) -> Iterator[View]:
    """A `View` on standard error.

    On a terminal, a bar; beneath it, of a watched run, a map of the log norms of the
    gradients, layer by step, and the last alarms. Elsewhere lines: one every half
    minute, and each alarm, of which one that lasts is repeated every hundred steps.

    Args:
        wanted: whether to show anything.
        first_step: steps taken before.
        num_steps: steps in all.
        watched: whether steps are watched.
    """
    wanted = wanted and jax.process_index() == 0
    picture = _Picture() if watched else None
    said = picture.line if picture else None
    with progress_bar(wanted, first_step, num_steps, said, picture) as (advance, drawn):

        def show(step, stats, records):
            if picture is None:
                return
            for text in picture.add(step, stats, records):
                if wanted and not drawn:
                    print(f"gradstab: {printable(text)}", file=sys.stderr, flush=True)

        yield View(advance, show)


class _Picture:
    """The map of a run so far, and what was said of it."""

    def __init__(self):
        self._map: HeatMap | None = None
        self._alarms, self._said = Alarms(), []
        self._line = ""

    def add(self, step, stats, records) -> list[str]:
        """Add a watched step; what there is to say of it."""
        norms = np.asarray(stats.gradient_norm, np.float64)
        if self._map is None:
            self._map = HeatMap(stats.names[:-1])
        self._map.add(step, norms[:-1])
        largest = int(np.argmax(np.nan_to_num(norms, nan=np.inf)))
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.linalg.norm(norms)
            share = (norms[largest] / total) ** 2
        self._line = (
            f", gradient norm {total:.3g}, {share:.0%} of its square in "
            f"{printable(stats.names[largest])}"
        )
        new = self._alarms.look(step, stats, records)
        self._said = [*self._said, *new][-_MOST_ALARMS:]
        return new

    def line(self) -> str:
        """The last watched step in some words."""
        return self._line

    def __rich__(self):
        if self._map is None:
            return Text("")
        alarms = [Text(printable(text), style="red") for text in self._said]
        return Group(self._map, *alarms)
