"""What `gs.parametrize` says of makers, widths and inputs that make no sense."""

import jax
import jax.numpy as jnp
import pytest

import gradstab as gs


def make(width, key):
    """A linear readout of one hidden layer."""
    key_w, key_v = jax.random.split(key)
    params = {
        "w": jax.random.normal(key_w, (5, width)),
        "v": jax.random.normal(key_v, (width, 3)) / width**0.5,
    }
    return lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params


@pytest.mark.parametrize("width", [0, -4, 8.0, True, "8"])
def test_a_base_width_is_a_whole_number_from_one(width):
    with pytest.raises(ValueError, match="base_width must be a whole number from 1"):
        gs.parametrize(make, base_width=width)


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (3, "make must be a function"),
        (lambda width: make(width, jax.random.key(0)), "make is called as make"),
        (lambda width, key: None, "a NoneType holds no arrays"),
        (lambda width, key: "model", "a str holds no arrays"),
        (lambda width, key: (1, 2), "returned a tuple"),
        (lambda width, key: (make(width, key)[0], {}), "holds no arrays"),
    ],
)
def test_a_maker_gives_a_model(maker, words):
    with pytest.raises(TypeError, match=words):
        gs.parametrize(maker, base_width=8)


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (lambda width, key: make(8, key), "make must use the width"),
        (lambda width, key: make(1024 // width, key), "no axis may become shorter"),
        (
            lambda width, key: (
                make(width, key)[0],
                {str(i): jnp.ones(3) for i in range(width)},
            ),
            "differ in their parameters",
        ),
        (
            lambda width, key: (make(8, key)[0], {"w": jnp.ones((2,) * (width // 8))}),
            "as many axes are expected",
        ),
    ],
)
def test_both_widths_have_the_same_parameters(maker, words):
    with pytest.raises(ValueError, match=words):
        gs.parametrize(maker, base_width=8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "muP"}, "scheme must be one of"),
        ({"optimizer": "adamw"}, "optimizer must be one of"),
        ({"inputs": "x"}, "inputs"),
        ({"key": 3}, "key must be a PRNG key"),
        ({"batched": 1}, "batched"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        gs.parametrize(make, base_width=8, **options)


@pytest.mark.slow
def test_another_model_is_not_rescaled():
    scaled = gs.parametrize(make, base_width=8)
    with pytest.raises(ValueError, match="has 2 parameters"):
        scaled.rescale({"other": jnp.ones((3, 3))})


@pytest.mark.slow
def test_some_of_the_parameters_have_their_own_rates():
    scaled = gs.parametrize(make, base_width=8, inputs=jnp.ones((2, 5)))
    updates, _ = scaled.transform.update({"v": jnp.ones((16, 3))}, None)
    assert float(updates["v"][0, 0]) == 0.5


@pytest.mark.slow
def test_a_maker_that_looks_at_what_it_draws_is_drawn_one_by_one():
    def concrete(width, key):
        apply, params = make(width, key)
        return apply, params if float(params["w"].sum()) < 1e9 else None

    scaled = gs.parametrize(concrete, base_width=64, inputs=jnp.ones((2, 5)))
    assert {one.name: one.size for one in scaled.roles} == {"w": 0, "v": -0.5}
