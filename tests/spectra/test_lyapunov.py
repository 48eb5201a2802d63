"""Lyapunov exponents of maps whose exponents are known."""

import math

import numpy as np
import pytest

from gradstab.spectra.exponents import exponents
from gradstab.spectra.lyapunov import FEWEST, lyapunov


def along(step, jacobian, start, num_steps, transient=200):
    """The Jacobians (examples, n, n) of a map along its orbits."""
    state, found = start, []
    for number in range(transient + num_steps):
        if number >= transient:
            found.append(jacobian(state))
        state = step(state)
    return found


def logistic(num_steps, orbits):
    start = np.random.default_rng(0).random(orbits)
    return along(
        lambda x: 4 * x * (1 - x),
        lambda x: (4 - 8 * x)[:, None, None],
        start,
        num_steps,
    )


def henon(num_steps, orbits):
    def step(x):
        return np.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], axis=1)

    def jacobian(x):
        found = np.zeros((len(x), 2, 2))
        found[:, 0, 0], found[:, 0, 1], found[:, 1, 0] = -2.8 * x[:, 0], 1, 0.3
        return found

    start = 0.1 * np.random.default_rng(0).random((orbits, 2))
    return along(step, jacobian, start, num_steps)


def lorenz(num_steps, orbits, dt=0.01):
    """By the classical method of Runge and Kutta, differentiated."""

    def field(x):
        return np.stack(
            [
                10 * (x[:, 1] - x[:, 0]),
                x[:, 0] * (28 - x[:, 2]) - x[:, 1],
                x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2],
            ],
            axis=1,
        )

    def slope(x):
        found = np.zeros((len(x), 3, 3))
        found[:, 0, :2] = -10, 10
        found[:, 1, 0], found[:, 1, 1], found[:, 1, 2] = 28 - x[:, 2], -1, -x[:, 0]
        found[:, 2, 0], found[:, 2, 1], found[:, 2, 2] = x[:, 1], x[:, 0], -8 / 3
        return found

    def both(x):
        total, inner, moved, turned = 0, np.eye(3), x, 0
        for weight, reach in ((1, dt / 2), (2, dt / 2), (2, dt), (1, 0)):
            flow, turn = field(moved), slope(moved) @ inner
            total, turned = total + weight * flow, turned + weight * turn
            moved, inner = x + reach * flow, np.eye(3) + reach * turn
        return x + dt / 6 * total, np.eye(3) + dt / 6 * turned

    start = np.random.default_rng(0).normal([1, 1, 25], 1, (orbits, 3))
    return along(lambda x: both(x)[0], lambda x: both(x)[1], start, num_steps, 1000)


def share_within(found, truth, unit=1.0):
    inside = np.abs(found.values - np.asarray(truth) * unit) <= found.errors
    return inside.mean(axis=0)


def test_the_logistic_map_at_four_has_ln_2():
    found = lyapunov(logistic(200, 40), num_values=1)
    assert (share_within(found, [math.log(2)]) >= 0.9).all()
    assert np.median(found.errors) < 0.15


def test_the_henon_map_has_its_published_exponents():
    found = lyapunov(henon(400, 20), num_values=2)
    assert (share_within(found, [0.41922, -1.62319]) >= 0.9).all()
    assert np.median(found.errors) < 0.15


@pytest.mark.slow
def test_the_lorenz_system_has_its_published_exponents():
    """Sprott (2003), Chaos and Time-Series Analysis: 0.9056, 0, -14.5723."""
    found = lyapunov(lorenz(4000, 8), num_values=3)
    assert (share_within(found, [0.9056, 0, -14.5723], 0.01) >= 0.8).all()
    assert (found.errors < 0.01).all()


def test_the_cat_map_has_the_logarithms_of_the_golden_section():
    found = lyapunov([np.array([[[2.0, 1.0], [1.0, 1.0]]])] * 100, num_values=2)
    truth = np.array([1, -1]) * math.log((3 + math.sqrt(5)) / 2)
    np.testing.assert_allclose(found.values[0], truth, rtol=1e-14)
    assert (np.abs(found.values[0] - truth) <= found.errors).all()
    assert (found.errors < 1e-13).all()


@pytest.mark.parametrize("num_steps", [64, 200, 600])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_jordan_block_has_the_logarithm_of_its_eigenvalue(size, num_steps):
    """The transient of a product that is not normal dies out like 1 / t only."""
    block = 0.9 * np.eye(size) + np.diag(np.ones(size - 1), 1)
    found = lyapunov([block[None]] * num_steps, num_values=size)
    assert (np.abs(found.values - math.log(0.9)) <= found.errors).all()
    assert (found.errors < 8 / num_steps).all()


def test_a_finite_time_is_biased_upwards():
    block = 0.9 * np.eye(3) + np.diag(np.ones(2), 1)
    finite = exponents([block[None]] * 200)
    assert finite.values[0, 0] - math.log(0.9) > 0.045
    assert (finite.errors < 1e-6).all()


@pytest.mark.parametrize("seed", range(4))
def test_tied_weights_have_the_logarithms_of_their_eigenvalues(seed):
    w = np.random.default_rng(seed).standard_normal((6, 6)) / 6**0.5
    truth = np.sort(np.log(np.abs(np.linalg.eigvals(w))))[::-1]
    found = lyapunov([w[None]] * 300, num_values=6)
    assert (np.abs(found.values - truth) <= found.errors).all()
    leading = lyapunov([w[None]] * 300, num_values=2)
    assert (np.abs(leading.values - truth[:2]) <= leading.errors).all()


def test_independent_gaussian_steps_have_newmans_exponents():
    """Newman (1986): mean logarithms of chi with n, n - 1, .. degrees of freedom."""
    rng = np.random.default_rng(0)
    found = lyapunov(
        [rng.standard_normal((30, 3, 3)) for _ in range(256)], num_values=3
    )
    digamma = np.array([0.036489974, -0.577215665, -1.963510026])
    # psi(3/2), psi(1), psi(1/2); the mean of ln chi_k is (psi(k / 2) + ln 2) / 2.
    truth = (digamma + math.log(2)) / 2
    assert (share_within(found, truth) >= 0.9).all()


def test_a_direction_that_does_not_get_through_is_minus_infinity():
    found = lyapunov([np.diag([2.0, 0.5, 0.0])[None]] * 100, num_values=3)
    np.testing.assert_allclose(found.values[0], [math.log(2), -math.log(2), -np.inf])
    assert not np.isnan(found.errors).any()


def test_too_few_steps_have_no_error_and_broken_ones_no_value():
    steps = [np.eye(2)[None]] * (FEWEST - 1)
    assert np.isnan(lyapunov(steps, num_values=2).errors).all()
    assert np.isfinite(lyapunov([*steps, steps[0]], num_values=2).errors).all()
    broken = [*steps, np.full((1, 2, 2), np.nan)]
    assert np.isnan(lyapunov(broken, num_values=2).values).all()
