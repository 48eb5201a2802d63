"""``gradstab check``."""

import fnmatch
import json
from collections.abc import Mapping

from rich.console import Console

from gradstab.cli.targets import load_function
from gradstab.gradcheck import Verdict, check, views

_FAILED, _UNSEEN = 1, 2


def run(options, /) -> int:
    """Check all cases, print, write; returns the exit status."""
    if options.json is not None and options.json.exists() and not options.overwrite:
        raise FileExistsError(f"{options.json} exists; choose another or --overwrite")
    cases = _cases(options)
    console = Console()
    results = {}
    for name, (f, args, own) in cases.items():
        given = {"rtol": options.rtol, "seed": options.seed}
        if options.exhaustive:
            given["exhaustive"] = True
        with console.status(f"{len(results) + 1} of {len(cases)}: {name}"):
            results[name] = check(f, *args, **(given | own))
    console.print(views.table(results))
    for name, result in results.items():
        if result.verdict is not Verdict.PASS:
            console.print(f"\n{name}: {result}", markup=False, soft_wrap=True)
    if options.json is not None:
        _write(results, options.json)
        console.print(f"results: {options.json}", soft_wrap=True)
    return _status({result.verdict for result in results.values()}, options.strict)


def _cases(options):
    """The cases that are wanted, as ``{name: (f, args, options)}``."""
    cases = load_function(options.target)()
    if not isinstance(cases, Mapping) or not all(map(_is_case, cases.values())):
        raise ValueError(
            f"{options.target} must return {{name: (f, args)}} or "
            "{name: (f, args, options)}, with a tuple of arguments and a dict of "
            "options"
        )
    patterns = options.only or ("*",)
    wanted = {
        str(name): case if len(case) == 3 else (*case, {})
        for name, case in cases.items()
        if any(fnmatch.fnmatch(str(name), pattern) for pattern in patterns)
    }
    if not wanted:
        names = ", ".join(map(str, cases)) or "none"
        raise ValueError(f"no case is named like that; {options.target} has: {names}")
    return wanted


def _is_case(case):
    kinds = (object, (tuple, list), Mapping)
    return (
        isinstance(case, tuple)
        and len(case) in (2, 3)
        and all(map(isinstance, case, kinds))
    )


def _status(verdicts, strict):
    if Verdict.FAIL in verdicts:
        return _FAILED
    return _UNSEEN if strict and Verdict.INCONCLUSIVE in verdicts else 0


def _write(results, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {name: views.as_json(result) for name, result in results.items()}
    text = json.dumps({"schema": 1, "cases": values}, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
