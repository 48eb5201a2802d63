"""A progress bar of a long comparison, on standard error or in a notebook."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn


@contextlib.contextmanager
def share_done(*, wanted: bool) -> Iterator[Callable[[str, float], None]]:
    """Yields ``advance(name, share)``: what is under way, and how much is done of all.

    Args:
        wanted: whether to show it, where somebody can see it.
    """
    console = Console(stderr=True)
    # In a notebook rich draws with ipywidgets, and warns where it is missing.
    widgets = importlib.util.find_spec("ipywidgets") is not None
    seen = console.is_terminal or (console.is_jupyter and widgets)
    with Progress(
        *Progress.get_default_columns()[:3],
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (wanted and seen),
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, completed=share, description=name)
