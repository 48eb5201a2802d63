"""The progress bar of a run."""

import contextlib

import jax
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def progress_bar(show: bool, first_step: int, num_steps: int, /):
    """A bar with loss, steps per second and the time left.

    Nothing is shown where the output is no terminal, or by processes other than the
    first.

    Args:
        show: whether to show it at all.
        first_step: steps taken before.
        num_steps: steps in all.

    Yields:
        ``advance(step, loss)``.
    """
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TextColumn("{task.fields[rate]:.3g} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not show or jax.process_index() != 0) as bar:
        if not bar.console.is_terminal:
            bar.disable = True
        task = bar.add_task(
            "", total=num_steps, completed=first_step, loss=float("nan"), rate=0.0
        )

        def advance(step, loss):
            rate = bar.tasks[0].speed or 0.0
            bar.update(task, completed=step, loss=loss, rate=rate)

        yield advance
