"""Reports survive being saved, whatever they hold."""

import dataclasses
import json
import math

import chex
import numpy as np
import pytest
from report_samples import layer, recurrence, report

import gradstab as gs


@pytest.fixture
def sample():
    layers = [
        layer("NaN", rms=math.inf, gradient=math.nan),
        layer("blocks.0", jacobian=False, note="no Jacobian: its input is integers"),
        layer("Infinity", rms=-0.0),
    ]
    steps = 0.9 ** np.arange(5.0)
    found = report(layers, [recurrence(steps, steps)], [x.name for x in layers])
    made = found.made | {"nothing": None, "text": "NaN", "flag": True, "nan": math.nan}
    return dataclasses.replace(found, made=made)


@pytest.fixture
def path(tmp_path, sample):
    sample.save(tmp_path / "run.json")
    return tmp_path / "run.json"


def _fields(record):
    """A record as nested dictionaries of arrays and other values."""
    if dataclasses.is_dataclass(record):
        names = [field.name for field in dataclasses.fields(record)]
        return {name: _fields(getattr(record, name)) for name in names}
    if isinstance(record, (tuple, list)):
        return [_fields(item) for item in record]
    return record


def _assert_equal(found, expected, where="report"):
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            _assert_equal(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, pair in enumerate(zip(found, expected, strict=True)):
            _assert_equal(*pair, f"{where}.{i}")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, where
        chex.assert_trees_all_equal(found, expected)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found), where
    else:
        assert found == expected, where


def test_everything_comes_back_as_it_was(sample, path):
    _assert_equal(_fields(gs.load(path)), _fields(sample))


def test_what_comes_back_is_a_report(path):
    found = gs.load(path)
    assert isinstance(found, gs.Report)
    assert found.growth.forward.law == "unknown"
    assert found.layer("blocks.0").note.startswith("no Jacobian")
    assert np.isneginf(-found.layers[0].forward_rms)


def test_arrays_of_every_kind_come_back(tmp_path, sample):
    odd = {
        "empty": np.zeros((0, 3)),
        "single": np.array(1.5, np.float32),
        "whole": np.arange(3),
        "truth": np.array([True, False]),
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        "float32": np.array([0.1, 1e-45], np.float32),
    }
    sample = dataclasses.replace(sample, made=odd)
    sample.save(tmp_path / "odd.json")
    _assert_equal(gs.load(tmp_path / "odd.json").made, odd)


def test_the_file_is_strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["schema"] == 2
    assert data["layers"][0]["forward_rms"] == {"number": "Infinity"}
    assert data["verdict"] == "broken"


def test_an_existing_file_is_not_overwritten_unasked(sample, path):
    before = path.read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        sample.save(path)
    assert path.read_text() == before
    sample.save(path, overwrite=True)
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_folders_on_the_way_are_made(sample, tmp_path):
    sample.save(tmp_path / "a" / "b" / "run.json")
    assert (tmp_path / "a" / "b" / "run.json").exists()


def test_exponents_of_an_older_file_are_those_of_a_finite_time(path):
    data = json.loads(path.read_text())
    old = data["recurrences"][0]
    expected = gs.load(path).recurrences[0].exponents
    del old["finite_time_exponents"], old["finite_time_errors"], data["digest"]
    path.write_text(json.dumps(data))
    found = gs.load(path).recurrences[0]
    np.testing.assert_array_equal(found.finite_time_exponents, expected)
    assert np.isnan(found.exponents).all()
    assert found.exponents.shape == expected.shape
    assert "finite time" in found.note


def test_a_file_of_a_newer_schema_is_refused_with_the_reason(path):
    data = json.loads(path.read_text()) | {"schema": 3}
    path.write_text(json.dumps(data))
    with pytest.raises(
        ValueError, match=r"schema 3, this gradstab .* reads 2.*0\.1\.0"
    ):
        gs.load(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a JSON file"),
        ("{", "not a JSON file"),
        ("[1, 2]", "not a report"),
        ('{"accuracy": 0.9}', "not a report"),
        ('{"schema": 2, "layers": [], "made": {}}', "damaged: it has no growth"),
    ],
)
def test_what_is_no_report_is_refused_by_name(tmp_path, text, reason):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        gs.load(path)
    assert "other.json" in str(error.value)


def test_bytes_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x93NUMPY\xff\x00")
    with pytest.raises(ValueError, match=r"weights\.bin is not a JSON file"):
        gs.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        gs.load(tmp_path / "none.json")


def test_a_file_without_what_a_record_has_learnt_since_is_read(path):
    data = json.loads(path.read_text())
    del data["digest"]
    for name in ("forward_max", "forward_median", "gradient_max", "gradient_median"):
        del data["layers"][0][name]
    del data["recurrences"][0]["state_max"], data["recurrences"][0]["dtype"]
    path.write_text(json.dumps(data))
    found = gs.load(path)
    assert math.isnan(found.layers[0].forward_max)
    assert found.recurrences[0].state_max is None
    del data["layers"][0]["forward_rms"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="damaged"):
        gs.load(path)
