import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck import Verdict
from gradstab.testing import assert_grads

X = np.linspace(-1, 1, 5, dtype=np.float32)


@jax.custom_vjp
def wrong(x):
    return jnp.tanh(x)


wrong.defvjp(lambda x: (jnp.tanh(x), x), lambda x, w: (w * (1 - jnp.tanh(x)),))


def saturated(x):
    return jax.nn.sigmoid(x + 40)


def test_right_gradients_are_returned_with_their_resolution():
    result = assert_grads(jnp.tanh, X)
    assert result.verdict is Verdict.PASS
    assert result.resolution < 1e-6


@pytest.mark.parametrize("inconclusive", ["raise", "warn"])
def test_wrong_gradients_raise_an_error_that_names_the_argument(inconclusive):
    with pytest.raises(AssertionError, match=r"(?s)FAIL.*args\[0\] \(reverse\)"):
        assert_grads(wrong, X, inconclusive=inconclusive)


def test_gradients_that_cannot_be_seen_raise_unless_told_to_warn():
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        assert_grads(saturated, X)
    with pytest.warns(UserWarning, match="INCONCLUSIVE"):
        result = assert_grads(saturated, X, inconclusive="warn")
    assert result.verdict is Verdict.INCONCLUSIVE


def test_the_options_reach_the_check():
    with pytest.raises(AssertionError, match=r"asked for 1\.0e-16"):
        assert_grads(jnp.tanh, X, rtol=1e-16)
    result = assert_grads(jnp.tanh, X, modes=("forward",), seed=3)
    assert {g.mode for g in result.findings} == {"forward"}
    assert result.seed == 3


def test_an_unknown_answer_to_inconclusive_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"\('raise', 'warn'\), got 'ignore'"):
        assert_grads(jnp.tanh, X, inconclusive="ignore")
