"""Runs that were made elsewhere: event files of TensorBoard, exports of W&B."""

import csv
import importlib
import math
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np

from gradstab import _json
from gradstab.errors import UserModuleNotFoundError, UserTypeError, UserValueError
from gradstab.watch.history_rows import Rows

_GRADIENT = r"(?:grad|grads|gradient|gradients)"
_PLAIN = r"(?P<layer>.+?)(?:/(?:l2_)?norm)?$"
# Spellings of the norm of a layer's gradient: of this package and many others
# (grad_norm/x), of Levanter (grad/norm/x), of Lightning (grad_2.0_norm/x, once _x), of
# wandb.watch (gradients/x), and with the layer first (x/grad_norm).
PATTERNS = (
    rf"^(?:[\w-]+/)?{_GRADIENT}[_/](?:l2[_/])?norms?[/.:](?P<layer>.+)$",
    rf"^(?:[\w-]+/)?{_GRADIENT}_2(?:\.0)?_norm[/_](?P<layer>.+)$",
    rf"^(?:[\w-]+/)?{_GRADIENT}/(?!norm/|hist/){_PLAIN}",
    rf"^(?P<layer>.+)[/.]{_GRADIENT}_norm$",
)
# Columns of statistics that others write too.
_OTHERS = {
    "param_norm": r"^(?:[\w-]+/)?(?:param|params|parameter|parameters|weight|weights)"
    r"[_/]norms?[/.:](?P<layer>.+)$",
    "update_norm": r"^(?:[\w-]+/)?(?:update|updates)[_/]norms?[/.:](?P<layer>.+)$",
    "forward_rms": r"^(?:[\w-]+/)?(?:forward|activations?)_rms/(?P<layer>.+)$",
    "backward_rms": r"^(?:[\w-]+/)?backward_rms/(?P<layer>.+)$",
    "gradient_cosine": r"^(?:[\w-]+/)?gradient_cosine/(?P<layer>.+)$",
}
# What stands where a layer does, and is none.
_NO_LAYERS = re.compile(
    r"^(?:total|global|all|overall|mean|max|min|std|clip\w*|total_norm|global_norm|norm"
    r"|train|training|val|eval|optim|optimizer|metrics|stats|debug)$"
    r"|/(?:mean|max|min|std|var|median|hist|histogram|rms|zero_\w+|sparsity|cosine)$"
)
_TOTAL = re.compile(
    rf"(?:^|/){_GRADIENT}(?:_2(?:\.0)?)?[_/](?:global_|total_)?norm(?:[_/]total)?$"
    rf"|(?:^|/)(?:global_norm|total_grad_norm)$"
)
_LOSSES = (
    "value", "loss", "watch/loss", "train/loss", "train_loss", "training_loss",
    "loss/train",
    "training/loss", "train/lm_loss", "loss_metrics/global_avg_loss", "lm loss",
)  # fmt: skip
_STEPS = (
    "trainer/global_step",
    "train/global_step",
    "global_step",
    "step",
    "Step",
    "_step",
)
_EVENTS = "*tfevents*"

Tagged = Iterable[tuple[int, dict[str, float]]]


def read_run(path: pathlib.Path, pattern: str | None, /) -> tuple[Rows, tuple]:
    """The numbers of a run, by what its tags say that they are.

    Args:
        path: an event file or a folder of such, or a file ``.csv`` or ``.jsonl``.
        pattern: a regular expression with a group ``layer``: tags of the norm of a
            layer's gradient. By default `PATTERNS`.

    Returns:
        The rows, and what has to be said of them.
    """
    expression = _compiled(pattern)
    table: dict[int, dict[str, float]] = {}
    for step, numbers in _tagged(path):
        table.setdefault(step, {}).update(numbers)
    tags = tuple(dict.fromkeys(tag for row in table.values() for tag in row))
    if not tags:
        raise UserValueError(f"{path} holds no numbers of steps")
    places = _columns(tags, expression)
    layers = dict.fromkeys(layer for _, layer in places.values())
    if pattern is not None and not layers:
        raise UserValueError(
            f"no tag of {path} matches {pattern!r}; it has: {_some(tags)}"
        )
    rows = Rows(tuple(layers))
    order = {layer: i for i, layer in enumerate(layers)}
    loss = next((tag for tag in _LOSSES if tag in tags), None)
    for step in sorted(table):
        columns: dict[str, np.ndarray] = {}
        scalars = {"value": table[step].get(loss, math.nan) if loss else math.nan}
        for tag, number in table[step].items():
            if tag in places:
                column, layer = places[tag]
                new = np.full(len(layers), np.nan)
                columns.setdefault(column, new)[order[layer]] = number
            elif tag != loss:
                scalars[tag] = number
        rows.add(step, columns, scalars)
    return rows, tuple(_notes(rows, tags, loss))


def _compiled(pattern):
    if pattern is None:
        return None
    if not isinstance(pattern, str):
        raise UserTypeError(f"pattern must be a regular expression, got {pattern!r}")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserValueError(f"pattern {pattern!r} is none: {error}") from error
    if "layer" not in expression.groupindex:
        raise UserValueError(
            f"pattern {pattern!r} needs a group of the layer's name: (?P<layer>...)"
        )
    return expression


def _columns(tags, expression) -> dict[str, tuple[str, str]]:
    """For each tag that is of a layer the column and the layer."""
    if expression is not None:
        matches = {tag: expression.search(tag) for tag in tags}
        found = {tag: match["layer"] for tag, match in matches.items() if match}
    else:
        each = [_matching(tags, one) for one in PATTERNS]
        # One spelling: two of them would count a layer twice.
        found = max(each, key=len) if each else {}
        if found is each[-1] and len(found) < 2:
            found = {}
    places = {tag: ("gradient_norm", layer) for tag, layer in found.items()}
    for column, spelling in _OTHERS.items():
        for tag, layer in _matching(tags, spelling).items():
            places.setdefault(tag, (column, layer))
    return places


def _matching(tags, spelling):
    matches = {tag: re.match(spelling, tag) for tag in tags}
    found = {tag: match["layer"] for tag, match in matches.items() if match}
    return {tag: x for tag, x in found.items() if not _NO_LAYERS.search(x)}


def _notes(rows, tags, loss):
    """What is missing, and whether the layers make the total that was written."""
    if not rows.names:
        yield f"no tag is of a layer; there are: {_some(tags)}. pattern= says which are"
    missing = [c for c in ("gradient_norm", *_OTHERS) if c not in rows.columns()]
    if rows.names and missing:
        yield f"not there, and NaN: {', '.join(missing)}"
    if loss is None:
        yield "no tag is of the loss, which is NaN"
    total = next((t for t in rows.scalars() if _TOTAL.search(t)), None)
    if total is None or "gradient_norm" not in rows.columns():
        return
    sums = np.sqrt(np.sum(rows.column("gradient_norm") ** 2, axis=1))
    ratios = sums / np.where(rows.scalar(total) > 0, rows.scalar(total), np.nan)
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) and not 0.9 < np.median(ratios) < 1.1:
        yield (
            f"the norms of the layers make {np.median(ratios):.2g} of {total!r}: some "
            "are missing or counted twice, or one of both is clipped"
        )


def _some(tags):
    more = f" and {len(tags) - 12} more" if len(tags) > 12 else ""
    return ", ".join(map(repr, tags[:12])) + more


# Files


def _tagged(path) -> Tagged:
    if path.is_dir():
        export = path / "wandb-history.jsonl"
        return _tagged(export) if export.is_file() else _events(_event_files(path))
    if "tfevents" in path.name:
        return _events([path])
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_numbered(list(csv.DictReader(file))))
    if path.suffix in (".jsonl", ".ndjson"):
        return list(_numbered(list(_lines(path))))
    raise UserValueError(
        f"{path} is no history: it reads a folder of gs.History, event files of "
        "TensorBoard, and exports of W&B as .csv or .jsonl"
    )


def _event_files(folder):
    folders = {path.parent for path in folder.rglob(_EVENTS)}
    if len(folders) != 1:
        listed = ", ".join(sorted(str(f.relative_to(folder)) for f in folders))
        what = f"event files of {len(folders)} runs: {listed}" if folders else "none"
        raise UserValueError(
            f"{folder} is no history of one run: it holds no history.jsonl, no "
            f"wandb-history.jsonl, and of TensorBoard {what}"
        )
    return sorted(folders.pop().glob(_EVENTS))


def _events(paths) -> Tagged:
    """Of a run that went on in another file only what that does not repeat."""
    table: dict[str, dict[int, float]] = {}
    for path in paths:
        later: dict[str, dict[int, float]] = {}
        for step, tag, number in _event_numbers(path):
            later.setdefault(tag, {})[step] = number
        for tag, numbers in later.items():
            first = min(numbers)
            before = table.get(tag, {}).items()
            table[tag] = {s: x for s, x in before if s < first} | numbers
    return [(step, {tag: x}) for tag, xs in table.items() for step, x in xs.items()]


def _event_numbers(path) -> Iterator[tuple[int, str, float]]:
    try:
        loader = importlib.import_module(
            "tensorboard.backend.event_processing.event_file_loader"
        )
        tensor_util = importlib.import_module("tensorboard.util.tensor_util")
    except ModuleNotFoundError as error:
        raise UserModuleNotFoundError(
            "event files are read by tensorboard: pip install 'gradstab[tensorboard]'"
        ) from error
    for event in loader.EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if not value.HasField("tensor"):
                continue
            array = tensor_util.make_ndarray(value.tensor)
            if array.size == 1 and array.dtype.kind in "biuf":
                yield event.step, value.tag, float(array.reshape(()))


def _lines(path) -> Iterator[dict]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = _json.loads(line, strict=False)
            except ValueError as error:
                if not line.endswith(b"\n"):  # it is being written
                    return
                raise UserValueError(f"{path}, line {number} is no JSON") from error
            if not isinstance(row, dict):
                raise UserValueError(f"{path}, line {number} is no JSON object")
            yield dict(_flat(row))


def _flat(row, prefix=""):
    for key, value in row.items():
        if isinstance(value, dict) and "_type" not in value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _numbered(rows) -> Tagged:
    """Rows of a table as the numbers of steps."""
    numbers = [
        {
            _plain(tag): x
            for tag, text in row.items()
            if (x := _number(text)) is not None
        }
        for row in rows
    ]
    known = [key for key in _STEPS if all(key in row for row in numbers)]
    if rows and not known:
        raise UserValueError(
            f"no column has the number of every step; looked for: {', '.join(_STEPS)}"
        )
    for row in numbers:
        step = row[known[0]]
        taken = (*_STEPS, "_runtime", "_timestamp", "")
        yield int(step), {tag: x for tag, x in row.items() if tag not in taken}


def _plain(tag):
    """A tag without the name of the run, which W&B's page of a chart puts before it."""
    tag = (tag or "").split(" - ", 1)[-1]
    return "" if tag.endswith(("__MIN", "__MAX")) else tag


def _number(text):
    """A number, or None for anything else, such as an empty cell or a histogram."""
    if isinstance(text, bool | list | dict | None):
        return None
    try:
        return float(text)
    except ValueError:
        return None
