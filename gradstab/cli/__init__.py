"""The `gradstab` command."""

import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import tyro

from gradstab.cli.options import Analyze, Check, Train

_VERBS = {
    Analyze: "gradstab.cli.analyze",
    Check: "gradstab.cli.check",
    Train: "gradstab.cli.train",
}

_PACKAGE = pathlib.Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Run the command; returns its exit status: 0, 1 for a bad result, 2 for misuse.

    Of a check, 2 is also for what could not be seen, if strict, and 3 for a case that
    raised.
    """
    options = tyro.cli(
        Annotated[Analyze, tyro.conf.subcommand("analyze")]
        | Annotated[Check, tyro.conf.subcommand("check")]
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

    That is so if a ``raise`` in gradstab made it, or a file could not be used.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = _PACKAGE in pathlib.Path(last.filename).parents
    raised = (last.line or "").startswith("raise ")
    return isinstance(error, OSError) or (ours and raised)
