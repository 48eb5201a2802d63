"""How far an analysis has come."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import MofNCompleteColumn, Progress, Task, TimeElapsedColumn

from gradstab._progress import progress


class _Parts:
    """The parts of the work: first how many there are, then which one is done."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def begin(self, total: int, note: str, /) -> None:
        """So many parts are to come; the note is shown until the first one is done."""
        self._update(total=total, description=note)

    def advance(self, name: str, /) -> None:
        """One more part is done, and which one it was."""
        self._update(advance=1, description=name)


@contextlib.contextmanager
def progress_bar(wanted: bool, /) -> Iterator[_Parts]:
    """Yields the bar, with the methods ``begin(total, note)`` and ``advance(name)``.

    Args:
        wanted: whether to show it, where somebody can see it.
    """
    columns = Progress.get_default_columns()[:2]
    columns = (*columns, MofNCompleteColumn(), TimeElapsedColumn())
    with progress(
        *columns, line=_line, wanted=wanted, description="finding layers", total=None
    ) as update:
        yield _Parts(update)


def _line(task: Task) -> str:
    done = "" if task.total is None else f", {task.completed:g} of {task.total:g}"
    return f"{task.description}{done}, {task.elapsed or 0:.0f} s"
