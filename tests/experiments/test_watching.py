"""A head whose gradient grows and a divergence are told apart."""

import jax
import pytest
from held import broken, measured

from experiments import watching

SMALL = {"depth": 2, "width": 16, "batch_size": 32, "begin": 120, "steps": 200}


def _claims(**changes):
    with jax.numpy_dtype_promotion("standard"):  # Adam counts its steps
        return measured(watching, **changes)


@pytest.mark.slow
def test_a_growing_head_and_a_divergence_are_told_apart():
    assert not broken(_claims())


@pytest.mark.slow
def test_a_head_that_does_not_grow_is_no_driver():
    assert broken(_claims(**SMALL, growth=0.0), "its share of the growth")
