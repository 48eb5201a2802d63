"""The checks that the running test has made; `gradstab.testing.plugin` reads it."""

_open: list[list[dict]] = []


def open_page() -> list[dict]:
    """A new list, to which `enter` adds until `close_page`."""
    _open.append([])
    return _open[-1]


def close_page() -> None:
    """Ends the list that was opened last."""
    _open.pop()


def enter(result, /, *, verdict: str = "") -> None:
    """Notes a `GradCheck` in plain values, which can travel between processes.

    Args:
        result: the check.
        verdict: what to note in the place of its verdict.
    """
    if _open:
        _open[-1].append(
            {
                "verdict": verdict or result.verdict.value,
                "resolution": float(result.resolution),
                "evaluations": int(result.evaluations),
            }
        )
