"""Only a network that remembers can add two distant numbers."""

import jax
import pytest
from held import broken, measured

from experiments import adding_problem


@pytest.fixture(autouse=True)
def optax_promotes():
    """Adam of Optax multiplies integers with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


TINY = {"cells": ("lstm",), "lengths": (4,), "rates": (1e-3,), "hidden": 3}
SHORT = {"cells": ("identity",), "lengths": (50,), "rates": (1e-3,), "num_steps": 1200}


@pytest.mark.slow
def test_it_runs_when_tiny():
    assert len(measured(adding_problem, **TINY, batch=2, num_steps=3)) == 1


@pytest.mark.slow
def test_without_the_identity_it_is_not_learnt_in_time():
    assert not broken(measured(adding_problem, **SHORT))
    assert broken(measured(adding_problem, **SHORT, recurrent=0.0))
