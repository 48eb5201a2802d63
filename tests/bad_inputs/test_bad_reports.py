"""Reports that are damaged, edited, hostile or something else, told in one line."""

import errno
import json
import math
import multiprocessing
import os
import pathlib
import resource
import sys

import numpy as np
import pytest
from clear_lines import refused

import gradstab as gs

sys.path.append(str(pathlib.Path(__file__).parents[1] / "report"))

from report_samples import layer, recurrence, report

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def sample():
    steps = 0.9 ** np.arange(5.0)
    layers = [layer("input"), layer("blocks.0", rms=0.5), layer("head")]
    return report(layers, [recurrence(steps, steps)], [x.name for x in layers])


@pytest.fixture(scope="module")
def text(sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run.json"
    sample.save(path)
    return path.read_text()


def replaced(data, place, value):
    *way, last = place.split("/")
    node = data
    for name in way:
        node = node[int(name) if isinstance(node, list) else name]
    node[int(last) if isinstance(node, list) else last] = value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


GROWTH = "growth/0"
VALUES = "layers/0/jacobian/values"
# Where, what is put there, and what the line says beside the field's name.
FIELDS = [
    ("layers", None, "expected a list, got None"),
    ("layers", "input", "expected a list, got 'input'"),
    ("layers", {}, "expected a list"),
    ("layers/0", 3, "expected a record Layer, got 3"),
    ("layers/0", {"record": "Growth"}, "expected a record Layer, got a record Growth"),
    ("layers/0/record", "Layr", "expected a record Layer, got a record Layr"),
    ("layers/0/record", ["Layer"], "expected a record Layer"),
    ("layers/0/name", 3, "expected a text, got 3"),
    ("layers/0/name", None, "expected a text, got None"),
    ("layers/0/name", ["a"], "expected a text"),
    ("layers/0/name", "other", "there is no layer 'input'"),
    ("layers/0/forward_rms", "1.0", "expected a number, got '1.0'"),
    ("layers/0/forward_rms", None, "expected a number, got None"),
    ("layers/0/forward_rms", True, "expected a number, got True"),
    ("layers/0/forward_rms", [1.0], "expected a number, got [1.0]"),
    ("layers/0/forward_rms", {"number": "nan"}, "NaN, Infinity, -Infinity, got 'nan'"),
    ("layers/0/forward_rms", {"number": 3}, "NaN, Infinity, -Infinity, got 3"),
    ("layers/0/forward_rms", {"value": 3}, "expected a number, got an object"),
    ("layers/0/forward_rms", 10**400, "expected a number, got a huge one"),
    ("layers/0/num_params", 1.5, "expected a whole number from 0, got 1.5"),
    ("layers/0/num_params", -4, "expected a whole number from 0, got -4"),
    ("layers/0/num_params", True, "expected a whole number from 0, got True"),
    ("layers/0/num_params", 10**30, "expected a whole number from 0, got a huge one"),
    ("layers/0/coupled", "no", "expected true or false, got 'no'"),
    ("layers/0/coupled", 1, "expected true or false, got 1"),
    ("layers/0/disconnected", None, "expected true or false, got None"),
    ("layers/0/in_shape", 2, "expected a list, got 2"),
    ("layers/0/in_shape", [2.5], "expected a whole number from 0, got 2.5"),
    ("layers/0/out_shape", None, "expected a list, got None"),
    ("layers/0/params", "kernel", "expected a list, got 'kernel'"),
    ("layers/0/params", [1], "expected a text, got 1"),
    ("layers/0/gradient_norm", 1.0, "expected an array, got 1.0"),
    ("layers/0/gradient_norm", [1.0], "expected an array, got [1.0]"),
    ("layers/0/gradient_norm/shape", [4], "expected that of 3 entries, got [4]"),
    ("layers/0/gradient_norm/shape", [-3], "expected a list of whole numbers"),
    ("layers/0/gradient_norm/shape", 3, "expected a list of whole numbers, got 3"),
    ("layers/0/gradient_norm/shape", [3, 1], "expected 1 axes, got shape (3, 1)"),
    ("layers/0/gradient_norm/dtype", "object", "name of a dtype of numbers"),
    ("layers/0/gradient_norm/dtype", "O", "name of a dtype of numbers"),
    ("layers/0/gradient_norm/dtype", "S8", "name of a dtype of numbers"),
    ("layers/0/gradient_norm/dtype", "f8,f8", "name of a dtype of numbers"),
    ("layers/0/gradient_norm/dtype", 8, "name of a dtype of numbers, got 8"),
    ("layers/0/gradient_norm/dtype", "int32", None),
    ("layers/0/gradient_norm/array/0", "0.3", "one of NaN, Infinity, -Infinity"),
    ("layers/0/gradient_norm/array/0", None, "expected entries of dtype float64"),
    ("layers/0/gradient_norm/array/0", [1], "expected entries of dtype float64"),
    ("layers/0/gradient_norm/array/0", True, "expected entries of dtype float64"),
    ("layers/0/gradient_norm/array/0", 10**400, "out of the range of float64"),
    ("layers/0/jacobian", 3, "expected a record Spectrum, got 3"),
    ("layers/0/jacobian/method", "magic", "'svd', 'gram', 'golub-kahan', got 'magic'"),
    ("layers/0/jacobian/shape", [2], "expected 2 values, got [2]"),
    ("layers/0/jacobian/shape", [2, 2, 2], "expected 2 values"),
    (f"{VALUES}/shape", [2, 1], "expected shape (2, 1), as of values, got (1, 2)"),
    ("layers/0/jacobian/frobenius_square/low/shape", [1, 1], "expected 1 axes"),
    ("growth", None, "expected a list, got None"),
    ("growth", [1], "expected 2 values, got [1]"),
    (f"{GROWTH}/rate", "fast", "expected a number, got 'fast'"),
    (f"{GROWTH}/rate", None, "expected a number, got None"),
    (f"{GROWTH}/law", "linear", "'exponential', 'unknown', got 'linear'"),
    (f"{GROWTH}/law", None, "expected a text, got None"),
    (f"{GROWTH}/compatible", ["constant", "cubic"], "got 'cubic'"),
    (f"{GROWTH}/layers", ["nowhere"], "there is no layer 'nowhere'"),
    (f"{GROWTH}/depth", "3", "expected a whole number from 0, got '3'"),
    ("recurrences", 1, "expected a list, got 1"),
    ("recurrences/0/state_size", 0.5, "expected a whole number from 0, got 0.5"),
    ("recurrences/0/jacobian_steps", [0, 1], "expected shape (1,), as of jacobians"),
    ("recurrences/0/state_rms/shape", [5, 1], "expected 1 axes, got shape (5, 1)"),
    ("recurrences/0/exponents/shape", [2, 1], "as of exponents, got (1, 2)"),
    ("verdict", "great", "'critical', 'stable', got 'great'"),
    ("verdict", None, "expected a text, got None"),
    ("verdict", ["stable"], "expected a text, got ['stable']"),
    ("reasons", "because", "expected a list, got 'because'"),
    ("reasons", [None], "expected a text, got None"),
    ("loss", "small", "expected a number, got 'small'"),
    ("loss", [], "expected a number, got []"),
    ("made", 3, "expected an object, got 3"),
    ("made", [], "expected an object, got []"),
    ("made/seed", 10**30, "expected a number, got a huge one"),
    ("made/batch", {"number": "x"}, "one of NaN, Infinity, -Infinity, got 'x'"),
    ("exponents", [[0.1]], "expected an array"),
    ("exponents", 0.1, "expected an array, got 0.1"),
    ("theory", "mean field", "expected a record Prediction, got 'mean field'"),
    ("ranges", None, "expected a list, got None"),
    ("ranges", [{"record": "Range"}], "is missing"),
    ("ensemble", [], "expected a record Ensemble, got []"),
    ("notes", [3], "expected a text, got 3"),
]


@pytest.mark.parametrize(("place", "value", "said"), FIELDS)
def test_a_field_of_another_type_is_named(text, tmp_path, place, value, said):
    data = json.loads(text)
    replaced(data, place, value)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with refused(ValueError, f"{path} is damaged: ", said or "digest"):
        gs.load(path)


@pytest.mark.parametrize("name", ["growth", "verdict", "layers", "made", "schema"])
def test_a_missing_field_is_named(text, tmp_path, name):
    data = json.loads(text)
    del data[name]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    needed = name in ("layers", "made", "schema")
    said = "is not a report" if needed else f"it has no {name}"
    with refused(ValueError, str(path), said):
        gs.load(path)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (3, "has schema 3, this gradstab"),
        (1, "has schema 1, this gradstab"),
        (10**200, "has schema 1000"),
        ("2", "field schema: expected a whole number, got '2'"),
        (2.0, "field schema: expected a whole number, got 2.0"),
        (None, "field schema: expected a whole number, got None"),
        (True, "field schema: expected a whole number, got True"),
    ],
)
@pytest.mark.parametrize("made", [{"gradstab": "9.9"}, {"gradstab": "\x1b]0;x"}, None])
def test_another_schema_is_said_whatever_else_there_is(
    text, tmp_path, schema, said, made
):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(json.loads(text) | {"schema": schema, "made": made}))
    with refused(ValueError, str(path), said):
        gs.load(path)


CONTENTS = {
    "nothing": (b"", "is not a JSON file"),
    "blanks": (b" \n", "is not a JSON file"),
    "half": (b'{"schema": 2, "layers": [', "is not a JSON file"),
    "bytes": (b"\x93NUMPY\xff\x00", "is not a JSON file"),
    "zeros": (b"\x00" * 64, "is not a JSON file"),
    "page": (b"<html><body>log in</body></html>", "is not a JSON file"),
    "list": (b"[1, 2]", "is not a report of gradstab"),
    "text": (b'"report"', "is not a report of gradstab"),
    "other": (b'{"accuracy": 0.9}', "is not a report of gradstab"),
    "twice": (b'{"schema": 2, "schema": 2}', "'schema' is there twice"),
    "constant": (b'{"schema": NaN, "layers": [], "made": {}}', "NaN is no JSON"),
    "digits": (b'{"schema": ' + b"9" * 5000 + b"}", "is not a JSON file"),
    "deep": (b"[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize(("content", "said"), CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_report_is_told(tmp_path, content, said):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with refused(ValueError, str(path), said):
        gs.load(path)


@pytest.mark.parametrize("depth", [200, 5000])
@pytest.mark.parametrize("place", ["made/deep", "layers/0/forward_rms", "notes"])
def test_a_deep_nest_is_told(text, tmp_path, place, depth):
    data = json.loads(text)
    replaced(data, place, "HERE")
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data).replace('"HERE"', "[" * depth + "]" * depth))
    with refused(ValueError, f"{path} is damaged"):
        gs.load(path)


def test_a_folder_and_a_missing_file_are_told(tmp_path):
    with refused(ValueError, str(tmp_path), "is a folder"):
        gs.load(tmp_path)
    with refused(FileNotFoundError, "none.json does not exist"):
        gs.load(tmp_path / "none.json")


def test_a_content_that_was_changed_is_told_by_its_digest(text, tmp_path):
    data = json.loads(text)
    data["layers"][1]["forward_rms"] = 0.75
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with refused(ValueError, "is damaged", "digest"):
        gs.load(path)
    del data["digest"]  # as files of older versions
    path.write_text(json.dumps(data))
    assert gs.load(path).layers[1].forward_rms == 0.75
    # Reformatted is not changed.
    path.write_text(json.dumps(json.loads(text), sort_keys=True, indent=7))
    gs.load(path)


@pytest.mark.parametrize(
    "place", ["thing", "layers/0/forward_mex", "growth/1/thing", "digset"]
)
def test_without_a_digest_no_field_is_ignored(text, tmp_path, place):
    data = json.loads(text)
    del data["digest"]
    replaced(data, place, 1.0)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with refused(ValueError, f"no report has a field {place.replace('/', '.')}"):
        gs.load(path)


def test_no_flipped_bit_is_read_in_silence(text, tmp_path):
    content, path = text.encode(), tmp_path / "bad.json"
    rng = np.random.default_rng(0)
    original = json.loads(text)
    for place, bit in rng.integers((0, 0), (len(content), 8), (60, 2)):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            same = json.loads(bytes(changed)) == original  # in blanks only
        except ValueError:
            same = False
        if same:
            gs.load(path)
        else:
            with refused(ValueError, str(path)):
                gs.load(path)


def test_no_text_of_a_file_reaches_the_terminal_with_its_controls(
    text, tmp_path, capsys
):
    data = json.loads(text)
    evil = "\x1b]0;pwned\x07\x9b31m\r\u202e"
    del data["digest"]
    for growth in data["growth"]:
        growth["layers"][0] = f"input{evil}"
    data["layers"][0] |= {"name": f"input{evil}", "note": f"[red]{evil}[/blue]"}
    data["recurrences"][0] |= {"name": evil, "note": evil}
    data["reasons"], data["notes"] = [evil, "[/]"], [evil]
    data["made"] |= {"command": evil, evil: evil}
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(data))
    found = gs.load(path)
    found.show()
    with pytest.raises(KeyError) as error:
        found.layer("none")
    shown = capsys.readouterr().out + str(found) + repr(found) + str(error.value)
    for control in evil.replace("]0;pwned", "").replace("31m", ""):
        assert control not in shown, ascii(control)
    assert "input]0;pwned" in shown


def save_at_once(path, barrier, results):
    steps = np.ones(4)
    sample = report([layer(f"layer{os.getpid()}")], [recurrence(steps, steps)])
    barrier.wait()
    try:
        sample.save(path)
    except FileExistsError as error:
        results.put((os.getpid(), str(error)))
    else:
        results.put((os.getpid(), None))


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_programs_that_save_at_once_exactly_one_wins(tmp_path):
    context = multiprocessing.get_context("fork")
    path, num = tmp_path / "same.json", 6
    barrier, results = context.Barrier(num), context.SimpleQueue()
    programs = [
        context.Process(target=save_at_once, args=(path, barrier, results))
        for _ in range(num)
    ]
    for program in programs:
        program.start()
    found = [results.get() for _ in programs]
    for program in programs:
        program.join()
    (winner,) = (pid for pid, said in found if said is None)
    assert gs.load(path).layers[0].name == f"layer{winner}"
    lost = {said for _, said in found if said is not None}
    assert lost == {f"{path} exists; choose another name or overwrite=True"}
    assert os.listdir(tmp_path) == ["same.json"]


def test_a_full_disk_leaves_nothing_and_is_told_in_one_line(sample, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with refused(OSError, f"{tmp_path / 'run.json'} was not written: File too"):
            sample.save(tmp_path / "run.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


FAILURES = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES]


@pytest.mark.parametrize("number", FAILURES, ids=os.strerror)
@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_whatever_fails_while_a_report_is_saved_the_old_one_stays(
    sample, tmp_path, monkeypatch, number, call, overwrite
):
    path = tmp_path / "run.json"
    if overwrite:
        sample.save(path)
    before = path.read_bytes() if overwrite else None

    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "somewhere else")

    monkeypatch.setattr(os, call, fail)
    used = {"fsync": True, "link": not overwrite, "replace": overwrite}[call]
    if call == "link" and used:
        sample.save(path)  # there are file systems without links
    elif used:
        with refused(OSError, f"{path} was not written: {os.strerror(number)}"):
            sample.save(path, overwrite=overwrite)
        assert os.listdir(tmp_path) == (["run.json"] if overwrite else [])
        assert before is None or path.read_bytes() == before


def test_without_links_too_an_existing_file_is_not_replaced(
    sample, tmp_path, monkeypatch
):
    path = tmp_path / "run.json"

    def appears(*_):
        path.write_text("of another program")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", appears)
    with refused(FileExistsError, f"{path} exists"):
        sample.save(path)
    assert path.read_text() == "of another program"
    assert os.listdir(tmp_path) == ["run.json"]


def test_the_longest_name_of_a_file_is_no_obstacle(sample, tmp_path):
    path = tmp_path / f"{'n' * 250}.json"
    sample.save(path)
    assert math.isfinite(gs.load(path).loss)


def test_a_folder_that_cannot_be_made_is_told(sample, tmp_path):
    (tmp_path / "taken").write_text("")
    with refused(OSError, "taken is a file and no folder"):
        sample.save(tmp_path / "taken" / "run.json")
