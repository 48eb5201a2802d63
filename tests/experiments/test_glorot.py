"""Glorot and Bengio's numbers are those of their weights, on images of digits."""

import numpy as np
import pytest
from held import broken, measured

from experiments import glorot

TINY = {"width": 12, "depth": 3, "networks": 2, "examples": 4, "data": "digits"}
SMALL = {"width": 300, "networks": 3, "examples": 100, "data": "digits"}


def test_glorot_runs_when_tiny():
    assert measured(glorot, **TINY | {"images": 2})


def test_without_the_files_row_3_is_not_held(tmp_path, capsys):
    claims = measured(glorot, **TINY | {"data": "mnist", "data_dir": str(tmp_path)})
    missing = [c for c in claims if c.row == "3"]
    assert len(missing) == 2
    assert not any(c.held for c in missing)
    assert all(np.isnan(c.measured) for c in missing)
    assert "row 3 is not measured" in capsys.readouterr().err


@pytest.mark.slow
def test_the_backward_ratio_is_three_for_the_standard_weights_only():
    assert not broken(measured(glorot, **SMALL), "ratio")
    claims = measured(glorot, **SMALL, scale=0.9)
    assert broken(claims, "backward signal")
    assert broken(claims, "singular value")
    assert not broken(claims, "weights' gradient")
