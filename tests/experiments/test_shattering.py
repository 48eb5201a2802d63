"""Gradients of different examples lose their likeness at the rates on paper."""

import numpy as np
import pytest
from held import broken, measured

from experiments import shattering

TINY = {
    "width": 8,
    "batch": 4,
    "layers": 2,
    "plain_layers": 5,
    "networks": 2,
    "plain_networks": 2,
}


def test_it_runs_when_tiny():
    assert len(measured(shattering, **TINY)) == 4


def test_the_product_is_the_published_one():
    product = shattering.of_plain_network(20)[[0, 1, 4, 19]]
    np.testing.assert_allclose(product, [0.893, 0.794, 0.541, 0.0082], rtol=5e-3)


@pytest.mark.slow
def test_without_normalisation_or_from_another_angle_the_laws_are_others():
    assert not broken(measured(shattering))
    changed = measured(shattering, norm=False, shared=1.0)
    assert len(broken(changed)) == 4
