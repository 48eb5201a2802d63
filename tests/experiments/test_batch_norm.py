"""Batch normalisation explodes in training mode, and only there."""

import pytest
from held import broken, measured

from experiments import batch_norm

TINY = {
    **{"width": 8, "depth": 4, "first": 1, "seeds": 2, "layer_seeds": 2},
    **{"batches": (8,), "scales": (), "beside": False},
}
SMALL = {
    **{"width": 200, "depth": 16, "batches": (64,), "seeds": 6},
    **{"scales": (1.0,), "layer_seeds": 8},
}


@pytest.mark.slow
def test_batch_norm_runs_when_tiny():
    assert measured(batch_norm, **TINY)


@pytest.mark.slow
def test_gradients_explode_in_training_mode_and_look_stable_in_the_other():
    assert not broken(measured(batch_norm, **SMALL))
    claims = measured(batch_norm, **SMALL, training=False)
    assert len(broken(claims, "per layer: relu")) == 1
    assert len(broken(claims, "verdict exploding")) == 1
    assert not broken(claims, "layer norm")
    assert not broken(claims, "verdict stable")
