"""Flags, progress, the results folder of an experiment, and its table in RESULTS.md."""

import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import numpy as np
import rich.console
import rich.progress
import tyro

from experiments import _results
from experiments._claims import table
from gradstab._compilation_cache import use_compilation_cache
from gradstab._text import field_texts
from gradstab.training import new_results_folder

NO_DIFFERENCE = "defaults"

# What flags mean that many experiments have; others say it below their fields.
FLAGS = {
    "seed": "Of all random numbers",
    "seeds": "How many networks of each kind, each from a seed of its own",
    "num_seeds": "How many networks of each kind, each from a seed of its own",
    "networks": "How many networks of each kind",
    "width": "Units of each layer",
    "widths": "Units of each layer, one network for each",
    "hidden": "Units of each hidden layer",
    "depth": "Layers of each network",
    "depths": "Layers of the networks, one kind for each",
    "examples": "Examples that are sent through",
    "batch": "Examples that are sent through together",
    "batch_size": "Examples per training step",
    "steps": "Training steps",
    "epochs": "Passes over the training data",
    "learning_rate": "Of the optimiser",
    "data": "Name of the data set",
    "data_dir": "Folder of the data; GRADSTAB_DATA_DIR by default",
    "sigma_w": "Scale of the weights: N(0, sigma_w^2 / fan_in)",
    "sigma_b": "Standard deviation of the biases",
    "time_steps": "Length of the sequences",
    "repeats": "How often each is timed",
    "turns": "How often each is timed, in turn",
    "quick": "Smaller networks, fewer of them",
    "write": "Put the table into experiments/RESULTS.md",
    "only": "Names of what is run; all by default",
}


def experiment(
    config_class: type,
    run: Callable,
    claims: Callable,
    plot: Callable,
    report: Callable | None = None,
    /,
):
    """Read the flags, measure, compare with what was published, keep everything.

    Written to ``results/NAME/<what differs from the defaults>-1/``, or -2 and so on:
    the config, the arrays, the figure and the table of claims. ``--write`` puts what is
    printed into RESULTS.md. The exit code is 1 if one did not hold.

    Args:
        config_class: the experiment's frozen ``Config``; each field is a flag.
        run: takes a config, returns arrays by name.
        claims: takes the config and the arrays, returns `_claims.Claim` records.
        plot: takes the config and the arrays, returns a matplotlib figure.
        report: takes the config and the arrays, returns what else is to be printed,
            and kept as ``table.md``.
    """
    config, write = _read(config_class)
    arrays = run(config)
    text = report(config, arrays) if report else ""
    if text:
        print(f"{text}\n")
    compared = claims(config, arrays)
    print(table(compared))
    folder = new_results_folder(f"results/{_name()}", differences(config))
    _write_config(folder, config)
    np.savez(folder / "arrays.npz", **arrays)
    plot(config, arrays).savefig(folder / "figure.png", dpi=150)
    kept = [dataclasses.asdict(c) | {"held": c.held} for c in compared]
    (folder / "claims.json").write_text(json.dumps(kept, indent=1) + "\n")
    (folder / "claims.md").write_text(table(compared) + "\n")
    if text:
        (folder / "table.md").write_text(text + "\n")
    print(f"results: {folder}")
    if write:
        _results.write(_name(), text or table(compared), command=_command())
    sys.exit(not all(c.held for c in compared))


def print_table(config_class: type, run: Callable[[Any], str], /) -> None:
    """Read the flags, run what only makes a table, print the table and keep it.

    ``--write`` puts it into RESULTS.md.

    Args:
        config_class: a frozen ``Config``; each field is a flag.
        run: takes a config, returns a table as text.
    """
    config, write = _read(config_class)
    text = run(config)
    print(text)
    folder = new_results_folder("results", _name())
    _write_config(folder, config)
    (folder / "table.md").write_text(text + "\n")
    print(f"results: {folder}")
    if write:
        _results.write(_name(), text, command=_command())


def _read(config_class):
    """The config of the command line, and whether ``--write`` is there.

    The help is what the experiment's file says.
    """
    texts = flag_texts(config_class)
    fields: list[tuple[str, Any, Any]] = [
        (
            field.name,
            Annotated[field.type, tyro.conf.arg(help=texts[field.name])],
            field,
        )
        for field in dataclasses.fields(config_class)
    ]
    help_of_write = tyro.conf.arg(help=f"{FLAGS['write']}.")
    fields.append(("write", Annotated[bool, help_of_write], False))
    typed = dataclasses.make_dataclass("Config", fields, frozen=True)
    main = sys.modules["__main__"]
    name = f"python -m {main.__spec__.name}" if main.__spec__ else None
    use_compilation_cache()
    given = tyro.cli(typed, prog=name, description=main.__doc__)
    values = dataclasses.asdict(given)
    write = values.pop("write")
    return config_class(**values), write


def _command():
    """What was typed, but for ``--write``."""
    flags = [flag for flag in sys.argv[1:] if flag != "--write"]
    main = sys.modules["__main__"]
    module = main.__spec__.name if main.__spec__ else f"experiments.{_name()}"
    return shlex.join(["python", "-m", module, *flags])


def flag_texts(config_class: type, /) -> dict[str, str]:
    """What each flag means: the string below its field, or what it always means.

    Raises:
        KeyError: for a field without either.
    """
    own = field_texts(config_class)
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: own[name] if name in own else f"{FLAGS[name]}." for name in names}


def progress(items: Iterable, what: str, /) -> Iterator:
    """The items, with a bar on the terminal while they are worked on.

    >>> list(progress([1, 2], "seeds"))
    [1, 2]
    """
    console = rich.console.Console(stderr=True)
    yield from rich.progress.track(
        items, what, console=console, transient=True, disable=not sys.stderr.isatty()
    )


def differences(config, /) -> str:
    """The fields that are not at their defaults, as a folder's name.

    >>> Config = dataclasses.make_dataclass("Config", [("depth", int, 3)])
    >>> differences(Config()), differences(Config(depth=5))
    ('defaults', 'depth=5')
    """
    default = type(config)()
    named = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = {k: v for k, v in named.items() if v != getattr(default, k)}
    words = [f"{k}={_word(v)}" for k, v in changed.items()]
    return ",".join(words) or NO_DIFFERENCE


def _word(value):
    if isinstance(value, tuple):
        return "-".join(map(_word, value))
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(value))


def _write_config(folder, config):
    settings = {key: str(value) for key, value in dataclasses.asdict(config).items()}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")


def _name():
    return pathlib.Path(__import__("__main__").__file__).stem
