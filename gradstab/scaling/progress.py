"""How far a coordinate check has come."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import MofNCompleteColumn, Progress, Task, TimeElapsedColumn

from gradstab._progress import progress


@contextlib.contextmanager
def progress_bar(wanted: bool, total: int, /) -> Iterator[Callable[[str], None]]:
    """Yields ``advance(name)``, to be called when the next run begins.

    Args:
        wanted: whether to show it, where somebody can see it.
        total: how many runs there are.
    """
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    begun = 0
    with progress(
        *columns, line=_line, wanted=wanted, description="first run", total=total
    ) as update:

        def advance(name: str) -> None:
            nonlocal begun
            update(completed=begun, description=name)
            begun += 1

        yield advance


def _line(task: Task) -> str:
    done = f"{task.completed:g} of {task.total:g}"
    return f"{task.description}, {done}, {task.elapsed or 0:.0f} s"
