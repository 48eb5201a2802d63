"""``gradstab demo``."""

import pathlib
import time

from rich.console import Console

from gradstab._console import text
from gradstab.cli.demo_options import Demo
from gradstab.cli.output import console, folder_of, prepared
from gradstab.demo import CASES, Case, overview

OVERVIEW, HISTORY = "overview.png", "history.jsonl"


def run(options: Demo, /) -> int:
    """Find the faults, draw and print them; returns the exit status."""
    began, screen = time.monotonic(), console(quiet=options.quiet)
    folder = folder_of(options.folder, "demo", options="--folder")
    pictures = [folder / f"{name}.png" for name in CASES]
    for path in (*pictures, folder / OVERVIEW, folder / HISTORY):
        prepared(path, overwrite=options.overwrite)
    (folder / HISTORY).unlink(missing_ok=True)  # one that is there is gone on with
    cases = []
    for (name, examined), path in zip(CASES.items(), pictures, strict=True):
        with screen.status(name.replace("_", " ")):
            case = examined(folder)
            case.plot().savefig(path)
        _show(case, path, screen)
        cases.append(case)
    overview(cases).savefig(folder / OVERVIEW, facecolor="white")
    lost = [case.program for case in cases if not case.found]
    for program in lost:
        _say(screen, f"NOT FOUND: the fault of {program}", "bold red")
    seconds = time.monotonic() - began
    _say(screen, f"all of it in one picture: {folder / OVERVIEW} ({seconds:.0f} s)")
    return int(bool(lost))


def _show(case: Case, path: pathlib.Path, screen: Console) -> None:
    _say(screen, case.program, "bold")
    for line in case.says:
        _say(screen, f"  {line}")
    _say(screen, f"  by {case.call}: {path}", "dim")
    screen.print()


def _say(screen: Console, words: str, style: str = "") -> None:
    screen.print(text(words, style), soft_wrap=True, highlight=False)
