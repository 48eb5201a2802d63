"""The coordinate check beside theory, on small models, and with single faults."""

import numpy as np
import pytest
from held import broken, measured

from experiments import coordinate_check

SMALL = {
    "widths": (32, 64, 128),
    "schemes": ("standard", "mup"),
    "optimizers": ("adam",),
    "plants": 4,
}


@pytest.mark.slow
def test_nothing_that_grows_is_called_flat_and_wrong_multipliers_are_named():
    claims = measured(coordinate_check, **SMALL)
    assert not broken(claims, "called flat")
    assert not broken(claims, "named")


def test_a_check_that_calls_everything_flat_does_not_hold():
    rows = np.array([[0.0, 0.01, 0, 1.0], [0.0, 0.01, 0, 0.0]])
    arrays = {f"mlp mup adam: {kind}": rows for kind in ("weights", "layers")}
    arrays["plants"] = np.zeros((2, 3))
    claims = coordinate_check.claims(coordinate_check.Config(**SMALL), arrays)
    assert len(broken(claims)) == len(claims)
