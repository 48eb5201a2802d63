"""An error smaller than the one asked about is not accused, a larger one is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared

from gradstab.gradcheck import Verdict

X = jnp.linspace(0.5, 2.0, 5)
ONE = np.eye(5)[2]
SCATTERED = np.random.default_rng(0).choice([-1.0, 1.0], 5)

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]


def with_error(f, factor):
    """f with a gradient that is larger by a factor for every entry."""
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda x: (f(x), x),
        lambda x, w: (jax.vjp(f, x)[1](w)[0] * jnp.asarray(1 + factor, x.dtype),),
    )
    return rule


FUNCTIONS = {
    "square": lambda x: x**2,
    "sum": lambda x: jnp.sum(jnp.tanh(x)),
    "solve": lambda x: jnp.linalg.solve(jnp.diag(x) + jnp.ones((5, 5)), jnp.cos(x)),
}


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize(("rtol", "part"), [(1e-6, 0.9), (1e-2, 0.5)])
def test_a_factor_below_rtol_passes_and_the_error_is_not_denied(f, rtol, part):
    result = compared(with_error(f, part * rtol), X, rtol=rtol)
    assert result.verdict is Verdict.PASS, str(result)
    assert part * rtol <= 1.01 * result.resolution <= 1.01 * rtol


@pytest.mark.parametrize("part", [0.2, 0.3, 0.5])
def test_a_factor_in_the_default_band_passes(part):
    assert compared(with_error(jnp.square, part * 1e-6), X).verdict is Verdict.PASS


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("rtol", [1e-6, 1e-2])
def test_a_factor_just_above_rtol_fails(f, rtol):
    result = compared(with_error(f, 1.1 * rtol), X, rtol=rtol)
    assert result.verdict is Verdict.FAIL, str(result)


@pytest.mark.parametrize("where", [ONE, SCATTERED], ids=["one entry", "signs"])
@pytest.mark.parametrize("seed", range(2))
def test_errors_of_other_shapes_are_not_accused_below_rtol(where, seed):
    slope = 2 * np.asarray(X)
    share = np.linalg.norm(where * slope) / np.linalg.norm(slope)
    for part in (0.4, 0.8):
        rule = with_error(jnp.square, part * 1e-6 / share * where)
        assert compared(rule, X, seed=seed).verdict is not Verdict.FAIL
    large = compared(with_error(jnp.square, 4e-6 / share * where), X, seed=seed)
    assert large.verdict is Verdict.FAIL, str(large)


@pytest.mark.parametrize("seed", range(2))
def test_one_entry_wrong_by_twice_of_rtol_never_passes(seed):
    rule = with_error(jnp.square, 2e-6 * np.sqrt(5) * ONE)
    assert compared(rule, X, seed=seed).verdict is not Verdict.PASS


@pytest.mark.parametrize(
    ("size", "fails"), [(1e-8, False), (4e-7, False), (1e-4, True)]
)
def test_where_the_derivative_is_zero_an_error_is_relative_to_f(size, fails):
    rule = jax.custom_vjp(lambda x: jnp.sum(jax.nn.softmax(x)))
    rule.defvjp(
        lambda x: (jnp.sum(jax.nn.softmax(x)), x), lambda x, w: (size * w * jnp.cos(x),)
    )
    assert (compared(rule, X).verdict is Verdict.FAIL) is fails


def looped(x):
    return jax.lax.scan(lambda y, _: (jnp.sin(y) + 0.1 * y, None), x, None, 20)[0]


def test_a_small_error_of_what_holds_a_loop_gets_the_hint_of_a_tolerance():
    small = compared(with_error(looped, 1e-5 * SCATTERED), X)
    assert small.verdict is Verdict.FAIL
    assert any("tolerance" in note for note in small.notes)
    large = compared(with_error(looped, 1e-2), X)
    assert not any("tolerance" in note for note in large.notes)
    alone = compared(with_error(jnp.square, 1e-5 * SCATTERED), X)
    assert not any("tolerance" in note for note in alone.notes)


def test_an_adjoint_of_few_steps_is_no_wrong_formula_below_rtol():
    step = 1 / 16

    def solved(x):
        return jax.lax.scan(lambda y, _: (y - step * y**3, None), x, None, 16)[0]

    rule = jax.custom_vjp(solved)
    # The gradient of the limit, exact for steps of no length.
    rule.defvjp(
        lambda x: (solved(x), x),
        lambda x, w: (w * (1 + 2 * x**2) ** -1.5,),
    )
    result = compared(rule, 0.1 * X, rtol=3e-2)
    assert result.verdict is not Verdict.FAIL, str(result)
    assert compared(rule, 0.1 * X, rtol=1e-6).verdict is Verdict.FAIL
