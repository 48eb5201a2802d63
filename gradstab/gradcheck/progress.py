"""How far a long comparison has come."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import Progress, TimeRemainingColumn

from gradstab._progress import progress


@contextlib.contextmanager
def share_done(*, wanted: bool) -> Iterator[Callable[[str, float], None]]:
    """Yields ``advance(name, share)``: what is under way, and how much is done of all.

    Args:
        wanted: whether to show it, where somebody can see it.
    """
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn())
    with progress(*columns, line=_line, wanted=wanted, total=1.0) as update:
        yield lambda name, share: update(completed=share, description=name)


def _line(task):
    return f"{task.description}, {task.completed:.0%}, {task.elapsed or 0:.0f} s"
