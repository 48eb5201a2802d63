"""The `gradstab` command."""

import importlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from gradstab.cli.options import Analyze, Train

_VERBS = {Analyze: "gradstab.cli.analyze", Train: "gradstab.cli.train"}

_PACKAGE = pathlib.Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Run the command; returns its exit status: 0, 1 for a bad result, 2 for misuse."""
    options = tyro.cli(
        Annotated[Analyze, tyro.conf.subcommand("analyze")]
        | Annotated[Train, tyro.conf.subcommand("train")],
        prog="gradstab",
        description="Are gradients right, do they reach every layer, what to change?",
        args=arguments,
    )
    if options.platform is not None:
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(
            options.platform, options.platform
        )
    try:
        return importlib.import_module(_VERBS[type(options)]).run(options)
    except (ValueError, KeyError, TypeError, OSError) as error:
        if not _is_message(error):
            raise
        text = error if isinstance(error, OSError) else error.args[0]
        print(f"gradstab: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _is_message(error):
    """Whether the error says what the user can mend, and not that a program is wrong.

    That is so if gradstab itself raised it, or a file could not be used.
    """
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = pathlib.Path(trace.tb_frame.f_code.co_filename)
    return isinstance(error, OSError) or _PACKAGE in path.parents
