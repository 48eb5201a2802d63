"""The progress bar of a run."""

import contextlib
import math

import jax
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gradstab._progress import is_drawn, progress


class _StepsPerSecond(ProgressColumn):
    def render(self, task):
        return Text(f"{task.speed or 0:.3g} steps/s")


_COLUMNS = (
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("loss {task.fields[loss]:.4g}"),
    _StepsPerSecond(),
    TimeRemainingColumn(),
)


@contextlib.contextmanager
def progress_bar(
    show: bool, first_step: int, num_steps: int, /, said=None, beneath=None
):
    """A bar with loss, steps per second and the time left, on standard error.

    Processes other than the first show nothing.

    Args:
        show: whether to show it at all.
        first_step: steps taken before.
        num_steps: steps in all.
        said: gives more words for the line where no bar is seen.
        beneath: a renderable of rich to show beneath the bar.

    Yields:
        ``advance(step, loss)``, and whether a bar is drawn.
    """
    wanted = show and jax.process_index() == 0
    state = {"total": num_steps, "completed": first_step, "loss": math.nan}

    def line(task):
        done = f"step {task.completed:g} of {task.total:g}"
        loss = f"loss {task.fields['loss']:.4g}{said() if said else ''}"
        return f"{done}, {loss}, {task.elapsed or 0:.0f} s"

    shown = {"line": line, "wanted": wanted, "beneath": beneath}
    with progress(*_COLUMNS, **shown, **state) as update:
        yield lambda step, loss: update(completed=step, loss=loss), is_drawn()
