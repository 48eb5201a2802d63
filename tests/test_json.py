"""One way of writing JSON, which other programs than Python read."""

import dataclasses
import enum
import json
import math
import struct

import numpy as np
import pytest

from gradstab import _json


class Kind(enum.Enum):
    GOOD = "good"


@dataclasses.dataclass
class Record:
    kind: Kind
    values: np.ndarray
    parts: tuple


def test_a_record_is_written_without_what_json_does_not_have():
    record = Record(Kind.GOOD, np.array([1.5, np.nan, -np.inf]), (1, None, 1j))
    text = _json.dumps(_json.encoded(record))
    assert json.loads(text, parse_constant=pytest.fail) == {
        "kind": "good",
        "values": [1.5, "NaN", "-Infinity"],
        "parts": [1, None, {"real": 0.0, "imag": 1.0}],
    }


@pytest.mark.parametrize("number", [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan])
def test_a_number_comes_back_to_the_bit(number):
    back = _json.loads(_json.dumps(_json.number(number)))
    assert struct.pack("d", float(back)) == struct.pack("d", number)
    if isinstance(back, str):
        assert struct.pack("d", _json.SPECIAL[back]) == struct.pack("d", number)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_number_that_json_does_not_have_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        _json.dumps([number])
    text = _json.dumps([number], strict=False)
    with pytest.raises(ValueError, match="is no JSON"):
        _json.loads(text)
    assert repr(_json.loads(text, strict=False)) == repr([number])


def test_a_name_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="'a' is there twice"):
        _json.loads('{"a": 1, "b": {"a": 1, "a": 2}}')
