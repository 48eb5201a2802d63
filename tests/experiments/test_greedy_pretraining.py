"""Pre-training layer by layer lets a deep sigmoid network learn."""

import jax
import pytest
from held import broken, measured

from experiments import greedy_pretraining

TINY = {"depth": 2, "width": 6, "pretraining_steps": 2, "steps": 3, "num_seeds": 1}


@pytest.fixture(autouse=True)
def optax_promotes():
    """Adam of optax mixes integers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
def test_it_trains_when_tiny():
    assert len(measured(greedy_pretraining, **TINY)) == 7


@pytest.mark.slow
def test_what_is_said_of_pretraining_holds():
    assert not broken(measured(greedy_pretraining, num_seeds=1, seed=11))


@pytest.mark.slow
def test_without_pretraining_it_does_not_learn():
    claims = measured(greedy_pretraining, num_seeds=1, pretraining_steps=1)
    assert broken(claims) == ["accuracy after pre-training, worst"]


@pytest.mark.slow
def test_a_network_whose_gradients_reach_its_input_learns_from_scratch():
    claims = measured(
        greedy_pretraining, num_seeds=1, activation="tanh", pretraining_steps=1
    )
    assert "accuracy from scratch, best" in broken(claims)
