"""What a run of ``gradstab train`` was started with."""

import pathlib

from gradstab import training
from gradstab.cli.options import Train, from_json
from gradstab.errors import UserValueError


def started_with(folder: pathlib.Path, /, *, instead: str) -> Train:
    """The options of a run, from its folder.

    Args:
        folder: of the run.
        instead: what takes a run of other code, for the message.

    Raises:
        FileNotFoundError: it is no folder of a run.
        ValueError: it is one of other code, whose model is not known.
    """
    content = training.read_config(folder)
    if content is None:
        raise FileNotFoundError(
            f"{folder} has no config.json: give the folder of a run"
        )
    if not content["config"]:
        raise UserValueError(
            f"{folder} is no run of gradstab train, so its model is not known: "
            f"{instead}"
        )
    return from_json(Train, content["config"])
