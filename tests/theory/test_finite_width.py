import numpy as np
import pytest

from gradstab.theory import jacobian_moments, relu_log_law, sample_relu_log_law

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


# Linear, relu: the recursion at width 200, by hand to 4 and 3 digits.
MOMENTS = {8: (9.1864, 18.313), 16: (17.7325, 38.736), 32: (36.0765, 91.884)}


@pytest.mark.parametrize("depth", MOMENTS.keys())
def test_the_fourth_moment_is_the_tabulated_one(depth):
    linear, relu = MOMENTS[depth]
    found = jacobian_moments(200, depth, open_gates=1.0).fourth
    np.testing.assert_allclose(found, linear, rtol=0, atol=6e-5)
    np.testing.assert_allclose(jacobian_moments(200, depth).fourth, relu, atol=6e-4)


@pytest.mark.parametrize("p", [1.0, 0.5, 0.3])
def test_random_products_have_the_moments(p):
    n, depth, trials = 6, 2, 20000
    rng = np.random.default_rng(0)
    product = np.eye(n)
    for _ in range(depth):
        w = rng.standard_normal((trials, n, n)) / np.sqrt(p * n)
        product = (w * rng.binomial(1, p, (trials, n, 1))) @ product
    gram = product @ np.swapaxes(product, 1, 2)
    fourth = np.sum(gram**2, axis=(1, 2)) / n
    square = (np.trace(gram, axis1=1, axis2=2) / n) ** 2
    expected = jacobian_moments(n, depth, open_gates=p)
    for drawn, moment in zip((fourth, square), expected, strict=True):
        error = drawn.std() / np.sqrt(trials)
        np.testing.assert_allclose(drawn.mean(), moment, rtol=0, atol=4 * error)
        assert error < 0.04 * moment


def test_moments_without_gates_or_layers_are_refused():
    for width, depth, p in [(0, 1, 0.5), (1, 0, 0.5), (1, 1, 0.0), (1, 1, 1.5)]:
        with pytest.raises(ValueError, match="open_gates"):
            jacobian_moments(width, depth, open_gates=p)


@pytest.mark.parametrize("sigma_w", [2**0.5, 1.0])
def test_draws_of_many_layers_add_up_the_law_of_one(sigma_w):
    width, depth, num = 5, 4, 20000
    draws = sample_relu_log_law(0, width, depth, num, sigma_w=sigma_w)
    law = relu_log_law(width, sigma_w=sigma_w)
    error = np.sqrt(depth * law.variance / num)
    np.testing.assert_allclose(draws.mean(), depth * law.mean, rtol=0, atol=4 * error)
    # Skewed to the left: the variance errs by more than that of a normal one.
    np.testing.assert_allclose(draws.var(), depth * law.variance, rtol=0.06)
    alive = law.alive**depth
    spread = 4 * np.sqrt(alive * (1 - alive) / num)
    np.testing.assert_allclose(len(draws) / num, alive, rtol=0, atol=spread)
