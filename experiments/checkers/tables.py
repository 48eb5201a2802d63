"""The rows of a comparison as tables in Markdown.

Of kept rows too, also of a run that was cut short:

python -m experiments.checkers.tables results/checkers-1/rows.jsonl ...
"""

import sys

import numpy as np

from experiments.checkers import compare, judges

# The relative error above which a mutant counts, and the recall that is asked for.
HEADLINES = {"float64": 1e-3, "float32": 1e-2, "bfloat16": 1e-1}

# Below this a rule is right: what remains is the rounding of float64.
RIGHT = 1e-10

_BINS = ((1e-10, 1e-4), (1e-4, 1e-3), (1e-3, 1e-2), (1e-2, 1e-1), (1e-1, np.inf))


def tables(rows) -> str:
    """All tables for which there are rows."""
    everyone = dict.fromkeys(row.judge for row in rows)
    judged = [judge for judge in everyone if judge != compare.CORPUS]
    parts = [
        f"## Mutants, {half} half\n\n{_mutants(rows, judged, half)}"
        for half in ("tuned", "frozen")
        if any(row.half == half and row.part == "mutants" for row in rows)
    ]
    for part in ("twins", "correct", "operations"):
        if chosen := [row for row in rows if row.part == part]:
            parts.append(
                f"## {part.capitalize()}\n\n{_right_and_wrong(chosen, judged)}"
            )
    if chosen := [row for row in rows if row.part == compare.FOUND]:
        lines = [[row.name, row.judge, row.verdict, row.reason] for row in chosen]
        head = ["function", "judge", "verdict", "reason"]
        parts.append(f"## Wrong in JAX itself\n\n{_table(head, lines)}")
    if chosen := [row for row in rows if row.part == "torch"]:
        names = list(dict.fromkeys(row.judge for row in chosen))
        parts.append(f"## Ported to torch\n\n{_right_and_wrong(chosen, names)}")
    parts.append(f"## Cost\n\n{_cost(rows, judged)}")
    parts.append(f"## What gradstab.check got wrong\n\n{_failures(rows)}")
    return "\n\n".join(parts)


def _mutants(rows, judged, half):
    mutants = [row for row in rows if row.part == "mutants" and row.half == half]
    head = ["dtype", "size", "mutants"]
    for judge in judged:
        head += [judge, "PASS", "other"]
    lines = []
    for dtype, least in HEADLINES.items():
        of_dtype = [row for row in mutants if row.dtype == dtype]
        bins = [(f"from {least:.0e}", least, np.inf)]
        bins += [(f"{low:.0e} to {high:.0e}", low, high) for low, high in _BINS]
        for label, low, high in bins:
            inside = [
                row
                for row in of_dtype
                if low * 0.999 <= row.size < high or row.size == high == np.inf
            ]
            cells = [dtype, label, _number(inside)]
            for judge in judged:
                cells += _recall([row for row in inside if row.judge == judge])
            if inside:
                lines.append(cells)
    right = _number([row for row in mutants if row.size <= RIGHT])
    over = [row for row in mutants if _claims_too_much(row)]
    note = (
        f"\n\n{right} cases are not wrong at their point and do not count. PASS "
        f"above twice the stated resolution: {len(over)}."
    )
    return _table(head, lines) + note


def _number(rows) -> int:
    """Cases, each judged by several."""
    return len({row.name for row in rows})


def _recall(rows):
    caught = sum(row.verdict == judges.FAIL for row in rows)
    passed = sum(row.verdict == judges.PASS for row in rows)
    recall = f"{100 * caught / len(rows):.1f} %" if rows else ""
    return [recall, passed, len(rows) - caught - passed]


def _claims_too_much(row):
    return row.verdict == judges.PASS and row.size > max(2 * row.resolution, RIGHT)


def _right_and_wrong(rows, judged):
    head = ["judge", "right", "FAIL", "INCONCLUSIVE", "ERROR"]
    head += ["wrong", "caught", "PASS", "INCONCLUSIVE", "ERROR"]
    lines = []
    for judge in judged:
        mine = [row for row in rows if row.judge == judge]
        right = [row.verdict for row in mine if not row.wrong]
        wrong = [row.verdict for row in mine if row.wrong and row.size > RIGHT]
        order = ("FAIL", "INCONCLUSIVE", "ERROR")
        cells = [judge, len(right), *(right.count(v) for v in order), len(wrong)]
        order = ("FAIL", "PASS", "INCONCLUSIVE", "ERROR")
        lines.append([*cells, *(wrong.count(v) for v in order)])
    return _table(head, lines)


def _cost(rows, judged):
    lines = []
    for judge in judged:
        mine = [row for row in rows if row.judge == judge and row.verdict != "ERROR"]
        numbers = np.array([(row.evaluations, row.seconds) for row in mine])
        if len(numbers):
            middle = np.median(numbers, axis=0)
            lines.append([judge, len(mine), f"{middle[0]:.0f}", f"{middle[1]:.2f}"])
    return _table(
        ["judge", "cases", "evaluations", "seconds, compilation included"], lines
    )


def _failures(rows):
    """Misses, false alarms and errors of gradstab.check, one line each."""
    lines = []
    for row in rows:
        if row.judge not in ("gradstab.check", compare.CORPUS):
            continue
        missed = row.wrong and row.size > RIGHT and row.verdict != judges.FAIL
        least = HEADLINES[row.dtype] if row.part == "mutants" else 0
        counts = missed and (row.size >= 0.999 * least or _claims_too_much(row))
        if counts or (not row.wrong and row.verdict != judges.PASS):
            what = f"{row.name} (size {row.size:.1e}): {row.verdict}, resolution "
            lines.append(f"- {what}{row.resolution:.1e}; {row.reason}")
    return "\n".join(lines) or "Nothing."


def _table(head, lines):
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(c) for c in row) + " |" for row in rows)


if __name__ == "__main__":
    print(tables([row for path in sys.argv[1:] for row in compare.kept(path)]))
