"""Flags and results folder of an experiment."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import tyro

from gradstab.training import new_results_folder


def main(config_class: type, run: Callable[[Any], str], /) -> None:
    """Read the flags, run the experiment, print its table and keep it.

    Args:
        config_class: the experiment's frozen ``Config``; each field is a flag.
        run: takes a config, returns a table as text.
    """
    config = tyro.cli(config_class)
    name = pathlib.Path(__import__("__main__").__file__).stem
    table = run(config)
    print(table)
    folder = new_results_folder("results", name)
    settings = {key: str(value) for key, value in dataclasses.asdict(config).items()}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "table.md").write_text(table + "\n")
    print(f"results: {folder}")
