"""Orthogonal tanh networks are near an isometry only at small critical lengths."""

import pytest
from held import broken, measured

from experiments import dynamical_isometry

TINY = {"width": 8, "depth": 3, "networks": (2,), "kinds": ("orthogonal",)}
SMALL = {"width": 100, "depth": 20, "networks": (30, 100)}


@pytest.mark.slow
def test_dynamical_isometry_runs_when_tiny():
    assert measured(dynamical_isometry, **TINY)


@pytest.mark.slow
def test_orthogonal_weights_are_isometric_only_where_tanh_is_nearly_linear():
    assert not broken(measured(dynamical_isometry, **SMALL))
    # Another critical point: chi is one there too.
    far = {"sigma_w": 1.409281, "sigma_b": 0.1**0.5, "kinds": ("orthogonal",)}
    assert broken(measured(dynamical_isometry, **SMALL | far), "orthogonal")
