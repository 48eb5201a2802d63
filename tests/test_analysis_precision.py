"""In which arithmetic a model is analysed, and what the report says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import (
    WIDTH,
    W,
    diagonal,
    normal,
    run,
    square_loss,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")


def test_precision_is_double_by_default_and_leaves_no_trace():
    report = run(lambda w, x: jnp.tanh(x @ w), W, normal(0, 4, 2), loss=square_loss)
    assert report.made["precision"] == "float64"
    assert report.layers[0].gradient_norm.dtype == np.float64
    assert jnp.ones(1).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


@pytest.mark.slow
def test_own_precision_is_that_of_the_model():
    x = normal(0, 4, 2)
    single = run(lambda w, x: x @ w, W, x, precision="own")
    assert single.made["precision"] == "float32"
    half = run(lambda w, x: x @ w, jnp.bfloat16(W), x.astype(jnp.bfloat16))
    assert half.made["precision"] == "bfloat16"
    np.testing.assert_allclose(
        half.layers[0].jacobian.values, single.layers[0].jacobian.values, rtol=2**-8
    )


def _float32_inside(params, x):
    def body(h, w):
        return jnp.tanh(h @ w.astype(jnp.float32)), None

    return jax.lax.scan(body, x.astype(jnp.float32), params["blocks"])[0]


def _float32_in_the_carry(params, x):
    def body(h, w):
        return jnp.tanh(h @ w), None

    return jax.lax.scan(body, x.astype(jnp.float32), params["blocks"])[0]


@pytest.mark.slow
def test_a_model_that_fixes_single_precision_says_so():
    x = normal(0, 2, WIDTH)
    report = run(_float32_inside, diagonal(0.9, 3), x)
    assert report.made["precision"] == "float32 and float64"


@pytest.mark.slow
def test_a_scan_that_cannot_be_widened_is_analysed_in_its_own_precision():
    x = normal(0, 2, WIDTH)
    with jax.numpy_dtype_promotion("standard"):
        report = run(_float32_in_the_carry, diagonal(0.9, 3), x)
        assert report.made["precision"] == "float32"
        with pytest.raises(TypeError):
            run(_float32_in_the_carry, diagonal(0.9, 3), x, precision="float64")


def test_a_loss_that_cannot_be_widened_falls_back_as_well():
    y = jnp.ones((2, 2))  # float32, which strict promotion does not mix with float64
    report = run(
        lambda w, x: x @ w,
        W,
        jnp.ones((2, 2)),
        loss=lambda out: jnp.mean((out - y) ** 2),
    )
    assert report.made["precision"] == "float32"


def test_a_user_who_works_in_double_precision_keeps_it():
    with jax.enable_x64(True):
        w = jnp.asarray(W, jnp.float64)
        report = run(lambda w, x: x @ w, w, w, precision="own")
    assert report.made["precision"] == "float64"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'float64', 'own' or None"):
        run(lambda w, x: x @ w, W, W, precision="float16")
