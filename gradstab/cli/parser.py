"""From the options, which are flat, to a parser whose help has groups and defaults."""

import dataclasses
import functools
import inspect
import types
import typing
from typing import Annotated, Any

import tyro

from gradstab import _model_options
from gradstab._text import field_texts
from gradstab.cli.demo_options import Demo
from gradstab.cli.options import (
    Analyze,
    Check,
    CompareGradients,
    DataOptions,
    Doctor,
    MeasureOptions,
    ModelOptions,
    Replay,
    ReportOptions,
    RunOptions,
    SubjectOptions,
    Train,
)
from gradstab.cli.transfer_options import Transfer

# In the order of the help.
_GROUPS = {
    ModelOptions: "model",
    DataOptions: "data",
    SubjectOptions: "subject",
    MeasureOptions: "measure",
    ReportOptions: "report",
    RunOptions: "run",
}
_COMMANDS = {
    Analyze: "analyze",
    Check: "check",
    Train: "train",
    Replay: "replay",
    CompareGradients: "compare-gradients",
    Transfer: "transfer",
    Demo: "demo",
    Doctor: "doctor",
}

_EXAMPLES = """Are gradients right, do they reach every layer, what to change?

gradstab demo

gradstab analyze

gradstab analyze my_package.my_module:make --json report.json

gradstab train --model resnet --steps 1000; gradstab train --resume results/train-1

gradstab train --watch; gradstab replay results/train-1

gradstab compare-gradients results/train-1 --with-b dtype=bfloat16

gradstab transfer --model transformer --parametrization mup --widths 64,128,256

gradstab check my_package.ops:cases --strict

Each command has a --help of its own; gradstab --version prints the version."""


def parse(arguments, /):
    """The options of one command; prints help or what is wrong, and exits."""
    commands: Any = None
    for kind, verb in _COMMANDS.items():
        subcommand = tyro.conf.subcommand(verb, description=_paragraphs(kind))
        command = Annotated[_grouped(kind), subcommand]
        commands = command if commands is None else commands | command
    chosen = tyro.cli(commands, prog="gradstab", description=_EXAMPLES, args=arguments)
    return chosen.flat()


@functools.cache
def _grouped(kind):
    """The class of a command with its groups as fields, for the parser."""
    groups = [g for g in _GROUPS if issubclass(kind, g)]
    inherited = {field.name for group in groups for field in dataclasses.fields(group)}
    own = [f for f in dataclasses.fields(kind) if f.name not in inherited]
    fields: list[Any] = [_field(kind, field) for field in own]
    for group in groups:
        made = dataclasses.make_dataclass(
            group.__name__,
            [_field(group, field) for field in dataclasses.fields(group)],
            frozen=True,
        )
        made.__doc__ = group.__doc__
        wanted = tyro.conf.OmitArgPrefixes[made]
        fields.append((_GROUPS[group], wanted, dataclasses.field(default=made())))

    def flat(options):
        values = {field.name: getattr(options, field.name) for field in own}
        for group in groups:
            part = getattr(options, _GROUPS[group])
            values |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        return kind(**values)

    made = dataclasses.make_dataclass(
        kind.__name__, fields, frozen=True, namespace={"flat": flat}
    )
    made.__doc__ = _paragraphs(kind)
    return made


def _field(kind, field):
    """A field of a dataclass for the parser: name, type with help, default."""
    hint = typing.get_type_hints(kind, include_extras=True)[field.name]
    help_ = tyro.conf.arg(
        help=field_texts(kind)[field.name],
        help_behavior_hint=_default(kind, field),
        metavar=_metavar(hint),
    )
    if field.default is dataclasses.MISSING:
        return field.name, Annotated[hint, help_]
    return field.name, Annotated[hint, help_], dataclasses.field(default=field.default)


def _paragraphs(kind):
    text = inspect.getdoc(kind) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _metavar(hint):
    """What to write for an optional value; None leaves it to the parser."""
    if typing.get_origin(hint) is Annotated:
        return None
    kinds = [k for k in typing.get_args(hint) if k is not type(None)]
    if not isinstance(hint, types.UnionType) or len(kinds) != 1:
        return None
    of = {int: "INT", float: "FLOAT", str: "STR", bool: "{True,False}"}
    if typing.get_origin(kinds[0]) is tuple:
        return f"[{of[typing.get_args(kinds[0])[0]]} ...]"
    return of.get(kinds[0], "PATH")


def _default(kind, field):
    """The default as the help shows it; of the models, it depends on their kind."""
    if kind is ModelOptions and field.default is None:
        return _of_models(field.name)
    if field.default is None or field.default is dataclasses.MISSING:
        return ""  # the text says what happens
    return f"(default: {field.default})"


def _of_models(name: str):
    """Which models have an option, and its default in each.

    >>> _of_models("depth")
    '(default: mlp, resnet 20; lstm, rnn 1; transformer 6)'
    """
    values = {k: o[name] for k, o in _model_options.OPTIONS.items() if name in o}
    kinds: dict[Any, list[str]] = {}
    for kind, value in values.items():
        kinds.setdefault(_said(value), []).append(kind)
    if len(kinds) == 1:
        every = len(values) == len(_model_options.OPTIONS)
        of = "" if every else f"; of {', '.join(values)}"
        return f"(default: {next(iter(kinds))}{of})"
    parts = [f"{', '.join(names)} {value}" for value, names in kinds.items()]
    return f"(default: {'; '.join(parts)})"


def _said(value):
    return "none" if value is None or value == () else str(value)
