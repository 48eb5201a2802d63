import numpy as np
import pytest

from gradstab.theory import relu_log_law

TABLE = {
    10: (-0.307461, 0.866734),
    20: (-0.137187, 0.311758),
    30: (-0.088396, 0.191148),
    50: (-0.051739, 0.108168),
    100: (-0.025421, 0.051940),
    200: (-0.012604, 0.025473),
    500: (-0.005016, 0.010075),
    1000: (-0.002504, 0.005019),
}


@pytest.mark.parametrize("width", TABLE.keys())
def test_the_law_has_the_tabulated_mean_and_variance(width):
    law = relu_log_law(width)
    np.testing.assert_allclose(law[:2], TABLE[width], rtol=0, atol=5.1e-7)


def test_wide_layers_follow_the_asymptotic_law_and_narrow_ones_do_not():
    wide, narrow = relu_log_law(4000), relu_log_law(10)
    np.testing.assert_allclose(wide[:2], [-2.5 / 4000, 5 / 4000], rtol=2e-3)
    assert abs(narrow.mean + 0.25) > 0.05


@pytest.mark.parametrize(("n_in", "n_out", "sigma_w"), [(6, 6, 2**0.5), (20, 5, 1.0)])
def test_random_layers_follow_the_law(n_in, n_out, sigma_w):
    trials = 20000
    rng = np.random.default_rng(0)
    h = rng.standard_normal(n_in)
    w = sigma_w * rng.standard_normal((trials, n_out, n_in)) / np.sqrt(n_in)
    squares = np.sum(np.maximum(w @ h, 0) ** 2, axis=1) / (h @ h)
    alive = squares > 0
    logs = np.log(squares[alive])
    law = relu_log_law(n_in, n_out, sigma_w=sigma_w)
    error = np.sqrt(law.variance / trials)
    np.testing.assert_allclose(np.mean(logs), law.mean, rtol=0, atol=4 * error)
    # A variance errs by sqrt((kurtosis - 1) / trials) of itself.
    kurtosis = np.mean((logs - logs.mean()) ** 4) / np.var(logs) ** 2
    spread = 4 * np.sqrt((kurtosis - 1) / trials)
    np.testing.assert_allclose(np.var(logs), law.variance, rtol=spread)
    dead = 1 - law.alive
    np.testing.assert_allclose(
        np.mean(~alive), dead, rtol=0, atol=4 * np.sqrt(dead / trials)
    )


def test_a_single_unit_is_a_halved_chi_squared():
    law = relu_log_law(1)
    # E ln chi^2_1 = -gamma - ln 2, Var = pi^2 / 2; the scale adds ln 2.
    np.testing.assert_allclose(law.mean, -np.euler_gamma, rtol=1e-12)
    np.testing.assert_allclose(law.variance, np.pi**2 / 2, rtol=1e-12)
    assert law.alive == 0.5


def test_widths_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        relu_log_law(0)
