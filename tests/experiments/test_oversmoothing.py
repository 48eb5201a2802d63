"""Graph convolutions on a cycle have the growth exponents of its Fourier modes."""

import numpy as np
import pytest
from held import broken, measured

from experiments import oversmoothing


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [9, 10])
def test_exponents_are_those_of_the_fourier_modes(nodes):
    assert not broken(measured(oversmoothing, nodes=nodes, depth=3))


@pytest.mark.slow
def test_heavier_self_loops_smooth_more_slowly():
    changed = measured(oversmoothing, nodes=9, depth=3, loop=2.0)
    assert len(broken(changed)) == 2


@pytest.mark.parametrize("nodes", [3, 8, 24])
def test_the_law_is_that_of_the_matrix_of_the_cycle(nodes):
    config = oversmoothing.Config(nodes=nodes, channels=1)
    eye = np.eye(nodes)
    matrix = (eye + np.roll(eye, 1, 0) + np.roll(eye, -1, 0)) / 3
    sizes = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(np.exp(oversmoothing.law(config)), sizes, atol=1e-12)


def test_an_exponent_that_is_off_by_a_millionth_does_not_hold():
    config = oversmoothing.Config(nodes=24)
    law = oversmoothing.law(config)
    assert not broken(oversmoothing.claims(config, {"exponents": law}))
    assert broken(oversmoothing.claims(config, {"exponents": law - 1e-6}), "difference")
    finite = np.maximum(law, -36)
    assert broken(oversmoothing.claims(config, {"exponents": finite}), "lost")
