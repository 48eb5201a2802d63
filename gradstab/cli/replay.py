"""``gradstab replay``."""

from rich.console import Console

from gradstab import training
from gradstab.cli.options import Replay, Train, from_json
from gradstab.cli.prepare import prepare
from gradstab.cli.train import optimizer_of
from gradstab.errors import UserValueError


def run(options: Replay, /) -> int:
    """Take the step again and print it; returns the exit status."""
    console = Console()
    content = training.read_config(options.directory)
    if content is None:
        raise FileNotFoundError(
            f"{options.directory} has no config.json: give the folder of a run"
        )
    if not content["config"]:
        raise UserValueError(
            f"{options.directory} is no run of gradstab train, so its model is not "
            "known: gradstab.training.replay takes it, with its optimiser and loss"
        )
    started = from_json(Train, content["config"])
    task = prepare(started, aux_weight=started.aux_weight)
    found = training.replay(
        options.directory,
        task.model,
        optimizer=optimizer_of(started),
        loss=task.loss,
        data=task.data,
        step=options.step,
    )
    found.stats.show(console)
    console.print(str(found), soft_wrap=True, markup=False, highlight=False)
    return 0 if found.is_same else 1
