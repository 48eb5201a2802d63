"""What can be an argument or an output of a function that is checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, with_vjp

import gradstab.gradcheck
from gradstab.gradcheck import Verdict
from gradstab.gradcheck.subject.arguments import floating_part

X = np.random.default_rng(0).standard_normal(6, np.float32)
Z = (X + 1j * X[::-1]).astype(np.complex64)


def square(z):
    return z * z


def test_complex_arguments_and_outputs_become_pairs_of_their_parts():
    of_leaves, (pair,), _ = floating_part((Z, 3), None)
    np.testing.assert_array_equal(pair, np.stack([Z.real, Z.imag], axis=-1))
    (out,) = of_leaves(lambda z, n: n * z * z)((pair,))
    expected = np.stack([(3 * Z * Z).real, (3 * Z * Z).imag], axis=-1)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_a_number_of_python_is_what_it_is_beside_arrays():
    with jax.enable_x64(True):
        _, leaves, _ = floating_part((X, -0.3, 0.1j), np.float64)
        assert float(leaves[1]) == np.float64(np.float32(-0.3))
        assert float(leaves[2][1]) == np.float64(np.float32(0.1))
        _, (alone,), _ = floating_part((-0.3,), np.float64)
        assert float(alone) == -0.3


@pytest.mark.slow
def test_a_complex_function_passes_with_the_convention_of_jax():
    for f in (square, jnp.abs, jnp.conj, lambda z: jnp.exp(z).real):
        result = compared(f, Z)
        assert result.verdict is Verdict.PASS, str(result)
    assert result.findings[0].leaf == "args[0] as (real, imaginary)"
    by_hand = with_vjp(square, lambda res, w: (2 * res[0] * w,))
    assert compared(by_hand, Z).verdict is Verdict.PASS


def test_a_conjugate_too_few_or_too_many_fails():
    too_many = with_vjp(square, lambda res, w: (2 * jnp.conj(res[0]) * w,))
    too_few = with_vjp(jnp.conj, lambda res, w: (w,))
    for rule in (too_many, too_few):
        assert compared(rule, Z).verdict is Verdict.FAIL


def test_a_real_argument_with_a_complex_output_is_checked():
    phase = with_vjp(
        lambda x: jnp.exp(1j * x),
        lambda res, w: (jnp.real(1j * w * jnp.exp(1j * res[0])),),
    )
    assert compared(phase, X).verdict is Verdict.PASS


def test_outputs_that_have_no_derivative_are_left_out():
    def f(x, key):
        return jnp.sin(x), jnp.argmax(x), x > 0, key, None, 3

    result = compared(f, X, jax.random.key(0))
    assert result.verdict is Verdict.PASS
    assert {g.leaf for g in result.findings} == {"args[0]"}


def test_a_function_without_a_reverse_mode_is_checked_forward():
    def halve(x):
        return jax.lax.while_loop(lambda y: jnp.max(y) > 1, lambda y: y / 2, x)

    result = compared(halve, 5 + X)
    assert {g.mode for g in result.findings} == {"forward"}
    assert result.verdict is Verdict.PASS
    assert "a loop that has no VJP" in result.notes[0]


def callback(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.sin, shape, x)


@pytest.mark.slow
def test_a_function_that_cannot_be_mapped_is_probed_one_point_at_a_time():
    for factor, verdict in ((1, Verdict.PASS), (1.01, Verdict.FAIL)):
        rule = with_vjp(callback, lambda res, w, k=factor: (k * w * jnp.cos(res[0]),))
        result = compared(rule, X[:2])
        assert result.verdict is verdict, str(result)
        assert "one point at a time" in " ".join(result.notes)


@pytest.mark.slow
def test_a_function_that_looks_at_values_is_called_from_python():
    def branch(x):
        return jnp.sin(x) if x[0] > 0 else jnp.cos(x)

    rule = with_vjp(jnp.sin, lambda res, w: (1.01 * w * jnp.cos(res[0]),))
    for f, verdict in (
        (branch, Verdict.PASS),
        (lambda x: rule(x) + branch(x), Verdict.FAIL),
    ):
        result = compared(f, X[:2])
        assert result.verdict is verdict, str(result)
        assert "called, not compiled" in " ".join(result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_integers_of_64_bits_are_indices_in_every_precision(make):
    """JAX lowers a wrong program where numpy's int64 meets a context without it."""
    with jax.enable_x64(True):
        tokens = make(np.array([[0, 3], [3, 1]]))
    assert tokens.dtype == np.int64
    table = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        result = gradstab.gradcheck.check(
            lambda p, t, d=dtype: jnp.take(p.astype(d), t, axis=0),
            *(table, tokens),
            transformations=False,
            at="given",
        )
        assert result.verdict is Verdict.PASS
