import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.models import ACTIVATIONS, activation

X = np.linspace(-3, 3, 13, dtype=np.float32)
NORMAL_CDF = np.array([0.5 * (1 + float(jax.scipy.special.erf(x / 2**0.5))) for x in X])
WRITTEN_OUT = {
    "identity": X,
    "sigmoid": 1 / (1 + np.exp(-X)),
    "tanh": np.tanh(X),
    "relu": np.maximum(X, 0),
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    # The two constants are those of Klambauer et al. (2017), equation 14.
    "selu": 1.0507009873554805
    * np.where(X > 0, X, 1.6732632423543772 * (np.exp(X) - 1)),
    "gelu": X * NORMAL_CDF,
    "silu": X / (1 + np.exp(-X)),
    "softplus": np.log1p(np.exp(X)),
}


def test_every_named_activation_is_written_out_here():
    assert set(WRITTEN_OUT) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name):
    # Values up to 3.2 through a handful of roundings each.
    chex.assert_trees_all_close(
        activation(name)(jnp.asarray(X)),
        WRITTEN_OUT[name].astype(np.float32),
        atol=2e-6,
    )


def test_the_slope_of_leaky_relu_is_its_value_at_minus_one():
    assert activation("leaky_relu")(jnp.float32(-1)) == np.float32(-0.01)
    assert activation("leaky_relu", slope=0.3)(jnp.float32(-1)) == np.float32(-0.3)


def test_leaky_relus_of_one_slope_are_one_function():
    assert activation("leaky_relu", slope=0.3) is activation("leaky_relu", slope=0.3)


def test_a_callable_is_its_own_activation():
    assert activation(jnp.sin) is jnp.sin


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        KeyError, match=r"no activation named 'rellu'.*leaky_relu, relu"
    ):
        activation("rellu")
