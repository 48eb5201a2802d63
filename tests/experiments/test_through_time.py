"""Gradients through time have the rates of deep networks."""

import pytest
from held import broken, measured

from experiments import through_time


@pytest.mark.slow
def test_it_runs_when_tiny():
    tiny = {"cells": ("tanh",), "steps": 4, "hidden": 3, "examples": 2}
    assert len(measured(through_time, **tiny)) == 1


@pytest.mark.slow
def test_smaller_recurrent_weights_change_the_rates():
    assert not broken(measured(through_time, cells=("tanh", "identity")))
    assert len(broken(measured(through_time, cells=("tanh",), gain=0.7))) == 1
