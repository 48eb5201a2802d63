"""The `gradstab` command."""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from gradstab.cli import failures
from gradstab.cli.demo_options import Demo
from gradstab.cli.options import (
    Analyze,
    Check,
    CompareGradients,
    Doctor,
    Replay,
    Train,
)
from gradstab.cli.parser import parse
from gradstab.cli.transfer_options import Transfer

_VERBS = {
    Analyze: "gradstab.cli.analyze",
    Check: "gradstab.cli.check",
    Train: "gradstab.cli.train",
    Replay: "gradstab.cli.replay",
    CompareGradients: "gradstab.cli.compare_gradients",
    Transfer: "gradstab.cli.transfer",
    Demo: "gradstab.cli.demo",
    Doctor: "gradstab.cli.doctor",
}
_CACHE = "gradstab._compilation_cache"


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Run the command; returns its exit status: 0, 1 for a bad result, 2 for misuse.

    3 is for what could not be done because something raised, 130 for an interruption.
    Of a check, 2 is also for what could not be seen, if strict.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"gradstab {metadata.version('gradstab')}")
        return 0
    options = parse(arguments)
    wanted: str | None = options.platform
    if wanted is not None:
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(wanted, wanted)
    try:
        if not isinstance(options, Doctor) and options.compilation_cache:
            # JAX takes a second to import, which help and misuse do not wait for.
            importlib.import_module(_CACHE).use_compilation_cache()
        return importlib.import_module(_VERBS[type(options)]).run(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return failures.report(error, options)
