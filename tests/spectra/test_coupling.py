"""Whether examples are mixed: no false alarm, no miss."""

import jax
import jax.numpy as jnp
import pytest

from gradstab.spectra import mixes_examples

pytestmark = pytest.mark.cases


def _chaos(x):
    """Sixty expanding layers: the last bit of the input is all over the output."""
    w = 3 * jax.random.normal(jax.random.key(0), (8, 8))
    return jax.lax.fori_loop(0, 60, lambda _, h: jnp.tanh(h @ w), x)


def _attention(x):
    h = x.reshape(x.shape[0], 4, 2)
    weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", h, h), axis=2)
    return jnp.einsum("bqk,bkd->bqd", weights, h)


def _layer_norm(x):
    x = x - jnp.mean(x, axis=1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=1, keepdims=True) + 1e-6)


def _batch_norm(x):
    x = x - jnp.mean(x, axis=0, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=0, keepdims=True) + 1e-6)


SEPARATE = {
    "chaos": _chaos,
    "attention": _attention,
    "layer norm": _layer_norm,
    "a constant": lambda x: jnp.zeros_like(x),
    "nan": lambda x: x * jnp.nan,
    "a root of negative numbers": jnp.sqrt,
}
MIXING = {
    "batch norm": _batch_norm,
    "mean": lambda x: x - 1e-3 * jnp.mean(x),
    "the neighbour": lambda x: jnp.roll(x, 1, axis=0),
    "pairs half a batch apart": lambda x: x + jnp.roll(x, len(x) // 2, axis=0),
    "the one after next": lambda x: x + jnp.roll(x, 2, axis=0),
    "the last example": lambda x: x + x[-1:],
    "attention over examples": lambda x: jax.nn.softmax(x @ x.T, axis=1) @ x,
    "the greatest": lambda x: x / jnp.max(jnp.abs(x)),
    "reversal": lambda x: x[::-1],
}
SIZES = [3, 8]


def _data(num):
    return jax.random.normal(jax.random.key(num), (num, 8))


def _decide(function, x):
    return bool(jax.jit(lambda x: mixes_examples(function, (x,)))(x))


@pytest.mark.parametrize("function", SEPARATE.values(), ids=SEPARATE)
def test_functions_of_each_example_are_not_accused(function):
    assert not any(_decide(function, _data(num)) for num in SIZES)


@pytest.mark.parametrize(
    ("name", "function", "num"),
    [(name, function, num) for name, function in MIXING.items() for num in SIZES],
)
def test_functions_that_mix_examples_are_caught(name, function, num):
    assert _decide(function, _data(num))


def test_equal_examples_do_not_hide_that_they_are_mixed():
    """After a dead or collapsed layer all examples are the same."""
    assert _decide(_batch_norm, jnp.ones((4, 8)))
    assert _decide(_batch_norm, jnp.zeros((4, 8)))
    assert not _decide(_layer_norm, jnp.ones((4, 8)))


def test_two_examples_are_enough():
    assert _decide(_batch_norm, _data(2))
    assert not _decide(_layer_norm, _data(2))


def test_one_example_alone_mixes_with_nothing():
    assert not _decide(_batch_norm, _data(1))


def test_data_that_are_not_finite_do_not_accuse():
    x = _data(4).at[1, 2].set(jnp.nan).at[2, 0].set(jnp.inf)
    assert not _decide(jnp.tanh, x)
    assert not _decide(lambda x: x @ jnp.eye(8), x)


def test_each_array_of_several_is_looked_at():
    def function(x, y):
        return x + jnp.mean(y, axis=0, keepdims=True)

    assert bool(mixes_examples(function, (_data(4), _data(4))))
    assert not bool(mixes_examples(lambda x, y: x * y, (_data(4), _data(4))))
