"""The parts of a check work together: laws, places, second order, every entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import at_given, with_vjp

from gradstab.gradcheck import Verdict, check

X = np.random.default_rng(0).standard_normal(6, np.float32)


def test_a_failure_names_the_entry_the_two_values_and_the_cause():
    rule = with_vjp(jnp.tanh, lambda res, w: (w * (1 - jnp.tanh(res[0]) ** 2) / 2,))
    result = at_given(rule, X)
    (place,) = result.locations
    assert (place.leaf, place.count, place.total) == ("args[0]", 6, 6)
    np.testing.assert_allclose(place.value, place.expected / 2, rtol=1e-6)
    text = str(result)
    assert f"args[0][{place.index[0]}] (reverse" in text
    assert "likely cause: " in text
    assert "1/2" in text
    assert not at_given(rule, X, locate=False).locations


def test_a_broken_law_fails_where_the_differences_see_nothing():
    # The rule adds the square of its cotangent, too small to be seen beside 1e8.
    def f(x):
        return 1e8 + jnp.sin(x.astype(jnp.float32))

    rule = with_vjp(f, lambda res, w: (w * jnp.cos(res[0]) + 0.1 * w**2,))
    result = at_given(rule, X)
    assert result.verdict is Verdict.FAIL
    assert "broken law" in result.reason
    assert any(not law.holds for law in result.identities)


def test_a_rule_that_is_wrong_in_second_order_only_fails_in_second_order_only():
    def bwd(res, w):
        return (w * jax.lax.stop_gradient(jnp.cos(res[0])),)

    rule = with_vjp(jnp.sin, bwd)
    assert at_given(rule, X).verdict is Verdict.PASS
    result = at_given(rule, X, order=2, locate=False)
    assert result.verdict is Verdict.FAIL
    assert "over reverse" in result.reason


@pytest.mark.slow
def test_a_right_function_passes_in_second_order_in_every_order_of_modes():
    result = at_given(jnp.tanh, X, order=2)
    assert result.verdict is Verdict.PASS
    names = " ".join(g.leaf for g in result.findings)
    for name in (
        "forward over reverse",
        "reverse over reverse",
        "reverse over forward",
    ):
        assert f"args[0], {name}" in names
        assert f"tangent 0, {name}" in names


def test_every_entry_is_compared_on_request_and_the_figures_are_shown():
    result = at_given(jnp.tanh, X, exhaustive=True)
    assert result.verdict is Verdict.PASS
    assert result.figures is not None
    assert result.figures.ratio < 1e-7
    assert "norm ratio" in str(result)
    assert at_given(jnp.tanh, X).figures is None


def test_a_function_that_has_another_value_under_vmap_is_probed_one_by_one():
    @jax.custom_batching.custom_vmap
    def f(x):
        return jnp.sin(x)

    @f.def_vmap
    def _(axis_size, in_batched, x):
        return 2 * jnp.sin(x), in_batched[0]

    rule = with_vjp(lambda x: f(x), lambda res, w: (w * jnp.cos(res[0]),))
    result = at_given(rule, X)
    assert result.verdict is Verdict.PASS, str(result)
    assert "another value under vmap" in " ".join(result.notes)


def test_unknown_options_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"at is one of \('given', 'both'\)"):
        check(jnp.sin, X, at="here")
    with pytest.raises(ValueError, match=r"order is one of \(1, 2\), got 3"):
        check(jnp.sin, X, order=3)
    with pytest.raises(ValueError, match="precision is one of"):
        check(jnp.sin, X, precision="float32")
    with pytest.raises(ValueError, match="not both"):
        check(jnp.sin, X, reference=jnp.sin, expect=jnp.sin)
    with pytest.raises(TypeError, match="expected a function"):
        check(jnp.sin, X, reference=X)


def test_a_function_that_is_huge_far_away_is_judged_by_what_it_is_near():
    result = at_given(lambda x: jnp.exp(8 * x), X, locate=False)
    assert result.verdict is Verdict.PASS
