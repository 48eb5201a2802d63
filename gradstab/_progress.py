"""Progress of long work on standard error. For use inside of gradstab.

On a terminal, and in notebooks with widgets, a bar is drawn. Elsewhere (the log of a
scheduler, a pipe) a line is written every half minute, so that silence means trouble.
"""

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, Task

EVERY = 30.0
"""Seconds between two lines."""


@contextlib.contextmanager
def progress(
    *columns, line: Callable[[Task], str], wanted: bool, beneath=None, **task
) -> Iterator[Callable[..., None]]:
    """Yields ``update(...)``, which takes what `rich.progress.Progress.update` takes.

    Args:
        *columns: of the bar.
        line: what to write, from the state of the work, where no bar is seen.
        wanted: whether to show anything.
        beneath: a renderable of rich that is shown beneath the bar, and left there.
        **task: what `rich.progress.Progress.add_task` takes: description, total,
            completed and fields of the columns.
    """
    console, drawn = Console(stderr=True), is_drawn()
    with _Bar(
        *columns, console=console, transient=True, disable=not (wanted and drawn)
    ) as bar:
        bar.beneath = beneath
        name = bar.add_task(task.pop("description", ""), **task)
        lines = wanted and not drawn
        with _heartbeat(lambda: line(bar.tasks[0])) if lines else _nothing():
            yield lambda **values: bar.update(name, **values)
    if beneath is not None and wanted and drawn:
        console.print(beneath)


def is_drawn() -> bool:
    """Whether a bar is drawn where standard error goes."""
    console = Console(stderr=True)
    # In a notebook rich draws with ipywidgets, and warns where it is missing.
    widgets = importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal or (console.is_jupyter and widgets)


class _Bar(Progress):
    """A bar with something beneath it."""

    beneath = None

    def get_renderables(self):
        yield from super().get_renderables()
        if self.beneath is not None:
            yield self.beneath


_nothing = contextlib.nullcontext


@contextlib.contextmanager
def _heartbeat(line):
    over = threading.Event()

    def beat():
        while not over.wait(EVERY):
            print(f"gradstab: {line()}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
