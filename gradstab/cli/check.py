"""``gradstab check``."""

import fnmatch
import sys
import traceback
from collections.abc import Mapping

from gradstab import _json
from gradstab._attempt import Refusal, attempt
from gradstab._checked import number, seed
from gradstab.cli.options import Check
from gradstab.cli.output import STANDARD_OUTPUT, console, prepared
from gradstab.cli.targets import TargetError, call
from gradstab.errors import UserTypeError
from gradstab.gradcheck import Verdict, check, views
from gradstab.gradcheck.subject.time_limit import share_of_time, time_limit

# What the command returns, see `gradstab.cli.options.Check`; the first that applies.
_FAILED, _RAISED, _UNSEEN, _INTERRUPTED = 1, 3, 2, 130

_FORM = (
    "must return {name: (f, args)} or {name: (f, args, options)}, with a tuple of "
    "arguments and a dict of options"
)


def run(options: Check, /) -> int:
    """Check all cases, print, write; returns the exit status."""
    seed(options.seed, "--seed")
    if options.rtol is not None:
        number(options.rtol, "--rtol", above=0, below=1)
    if options.max_seconds is not None:
        number(options.max_seconds, "--max-seconds", above=0)
    prepared(options.json, overwrite=options.overwrite)
    to_stdout = options.json == STANDARD_OUTPUT
    screen, results = console(quiet=options.quiet, stderr=to_stdout), {}
    made = _of_users_code(call, options.target)
    if isinstance(made, Refusal) and isinstance(made.error, TargetError):
        raise made.error
    if isinstance(made, Refusal):
        error = made.error
        print(f"gradstab: {options.target} {views.raised(error)}", file=sys.stderr)
        _finish(results, options, screen, trouble=error)
        return _RAISED
    cases = _wanted(made, options)
    try:
        with time_limit(options.max_seconds):
            for name, case in cases.items():
                left = len(cases) - len(results)
                about = f"{len(results) + 1} of {len(cases)}: {name}"
                with screen.status(about), share_of_time(left):
                    results[name] = _result(case, options)
    except KeyboardInterrupt:
        _finish(results, options, screen)
        print(f"interrupted after {len(results)} of {len(cases)}", file=sys.stderr)
        return _INTERRUPTED
    _finish(results, options, screen)
    return _status(results.values(), options.strict)


def _result(case, options: Check):
    """The check of one case, or what it raised."""
    given = {"rtol": options.rtol, "seed": options.seed}
    if options.exhaustive:
        given["exhaustive"] = True
    result = _of_users_code(_checked, case, given)
    return result.error if isinstance(result, Refusal) else result


def _checked(case, given):
    if not _is_case(case):
        raise UserTypeError(f"a case is (f, args) or (f, args, options), got {case!r}")
    f, args, *own = case
    return check(f, *args, **(given | dict(*own)))


def _of_users_code(function, *args, **kwargs):
    """The same as `attempt`; `sys.exit` in a script is a refusal too."""
    try:
        return attempt(function, *args, **kwargs)
    except SystemExit as error:
        return Refusal(error)


def _wanted(cases, options: Check) -> dict:
    """The cases that are wanted, by name."""
    if not isinstance(cases, Mapping) or (
        cases and not any(map(_is_case, cases.values()))
    ):
        raise TargetError(f"{options.target} {_FORM}")
    patterns = [pattern for group in options.only for pattern in group] or ["*"]
    wanted = {
        str(name): case
        for name, case in cases.items()
        if any(fnmatch.fnmatch(str(name), pattern) for pattern in patterns)
    }
    if not wanted:
        names = ", ".join(map(str, cases)) or "none"
        raise TargetError(f"no case is named like that; {options.target} has: {names}")
    return wanted


def _is_case(case):
    kinds = (object, (tuple, list), Mapping)
    return (
        isinstance(case, tuple)
        and len(case) in (2, 3)
        and all(map(isinstance, case, kinds))
    )


def _status(results, strict: bool) -> int:
    verdicts = {getattr(result, "verdict", None) for result in results}
    if Verdict.FAIL in verdicts:
        return _FAILED
    if None in verdicts:
        return _RAISED
    return _UNSEEN if strict and Verdict.INCONCLUSIVE in verdicts else 0


def _finish(results, options: Check, screen, *, trouble=None):
    """Writes what there is, and prints it."""
    if options.json is not None:
        _write(results, options.json, trouble)
    if results:
        screen.print(views.table(results))
    for name, result in results.items():
        if isinstance(result, BaseException):
            _print_error(name, result, options, screen)
        elif result.verdict is not Verdict.PASS:
            screen.print(f"\n{name}: {result}", markup=False, soft_wrap=True)
    if trouble is not None and options.verbose:
        screen.print(_traceback(trouble), markup=False, soft_wrap=True)
    if options.json not in (None, STANDARD_OUTPUT):
        screen.print(f"results: {options.json}", soft_wrap=True, markup=False)


def _print_error(name: str, error, options: Check, screen):
    text = f"\n{name}: ERROR: {views.raised(error)}"
    if options.verbose:
        text += f"\n{_traceback(error)}"
    screen.print(text, markup=False, soft_wrap=True, highlight=False)


def _traceback(error) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _write(results, path, trouble):
    written = {name: _as_json(result) for name, result in results.items()}
    whole = {"schema": 1, "cases": written}
    if trouble is not None:
        whole["error"] = _as_json(trouble)
    text = _json.dumps(whole, indent=1)
    if path == STANDARD_OUTPUT:
        print(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")


def _as_json(result):
    if not isinstance(result, BaseException):
        return views.as_json(result)
    return {
        "verdict": "ERROR",
        "reason": views.raised(result),
        "traceback": _traceback(result),
    }
