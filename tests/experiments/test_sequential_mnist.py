"""Recurrent networks read images; clipped to nothing they do not."""

import jax
import pytest
from held import broken, measured

from experiments import sequential_mnist


@pytest.fixture(autouse=True)
def optax_promotes():
    """Adam of Optax multiplies integers with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


DIGITS = {"data": "digits", "cells": ("lstm",), "rates": (3e-3,)}


@pytest.mark.slow
def test_it_runs_when_tiny():
    tiny = {"hidden": 4, "batch": 4, "num_steps": 2, "validate_every": 1}
    assert len(measured(sequential_mnist, **DIGITS, **tiny, permuted=False)) == 1


@pytest.mark.slow
def test_a_gradient_clipped_to_nothing_teaches_nothing():
    short = {"num_steps": 300, "batch": 50, "permuted": False}
    assert not broken(measured(sequential_mnist, **DIGITS, **short))
    assert broken(measured(sequential_mnist, **DIGITS, **short, threshold=0.0))
