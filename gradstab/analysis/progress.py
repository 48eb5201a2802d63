"""A progress bar on standard error, or in a notebook."""

import contextlib
import importlib.util

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn


@contextlib.contextmanager
def progress_bar(wanted, total, /, *, note=""):
    """Yields ``advance(name)``: one more part is done, and which one it was.

    Args:
        wanted: whether to show it, where somebody can see it.
        total: how many parts there are.
        note: what to say before the first one is done.
    """
    console = Console(stderr=True)
    # In a notebook rich draws with ipywidgets, and warns where it is missing.
    widgets = importlib.util.find_spec("ipywidgets") is not None
    seen = console.is_terminal or (console.is_jupyter and widgets)
    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (wanted and seen),
    ) as bar:
        task = bar.add_task(note, total=total)
        yield lambda name: bar.update(task, advance=1, description=name)
