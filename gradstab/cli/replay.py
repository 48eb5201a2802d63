"""``gradstab replay``."""

from rich.console import Console

from gradstab import training
from gradstab.cli.options import Replay
from gradstab.cli.runs import started_with
from gradstab.cli.train import optimizer_of, prepare_training


def run(options: Replay, /) -> int:
    """Take the step again and print it; returns the exit status."""
    console = Console()
    started = started_with(
        options.directory,
        instead="gradstab.training.replay takes it, with its optimiser and loss",
    )
    task = prepare_training(started)
    found = training.replay(
        options.directory,
        task.model,
        optimizer=optimizer_of(started, task),
        loss=task.loss,
        data=task.data,
        step=options.step,
    )
    found.stats.show(console)
    console.print(str(found), soft_wrap=True, markup=False, highlight=False)
    return 0 if found.is_same else 1
