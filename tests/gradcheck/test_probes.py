"""One round of probes: what is left out where half of it is enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab import Verdict
from gradstab.gradcheck.differences.probes import Prober
from gradstab.gradcheck.differences.shown import shown
from gradstab.gradcheck.subject.problem import problem

X = np.array([0.4, -1.3, 2.1, 0.9], np.float32)


def measured(f, *args, **options):
    task = problem(f, args)
    return Prober(task)(task.leaves, np.random.default_rng(0), coarse=True, **options)


def test_levels_looked_at_in_two_turns_show_what_they_show_at_once():
    given = jnp.linalg.norm, X
    once, twice = measured(*given), measured(*given, enough=lambda seen: False)
    assert once.evaluations == twice.evaluations
    for name in ("residual", "rounding", "moved", "bend", "steps"):
        one, two = (getattr(seen.leaves[0], name) for seen in (once, twice))
        np.testing.assert_allclose(one, two, rtol=1e-9, err_msg=name)


def test_half_of_the_levels_are_enough_if_they_are_said_to_be():
    given = jnp.linalg.norm, X
    whole, half = measured(*given), measured(*given, enough=lambda seen: True)
    steps = [seen.leaves[0].steps for seen in (whole, half)]
    np.testing.assert_array_equal(steps[1], steps[0][::2])
    assert half.evaluations - whole.evaluations == -6 * 2 * len(steps[1]) * 2


@pytest.mark.parametrize(("num", "shared"), [(4, False), (2**15, True)])
def test_large_directions_are_drawn_once_for_all_points_where_little_is_enough(
    num, shared
):
    x = np.resize(X, num).astype(np.float64)
    rng = np.random.default_rng(0)
    prober = Prober(problem(jnp.tanh, (x,)))
    options = {"coarse": True, "enough": lambda seen: True}
    first, second = (prober((k * x,), rng, **options) for k in (1.0, 16.0))
    assert (first.draw.tangents[0] is second.draw.tangents[0]) is shared
    assert (first.draw.cotangents[0] is second.draw.cotangents[0]) is shared
    np.testing.assert_allclose(second.draw.sizes, np.multiply(16, first.draw.sizes))
    # What is to be confirmed is looked at along others.
    again = prober((x,), rng, coarse=True)
    assert again.draw.tangents[0] is not second.draw.tangents[0]
    # Nor are they those of a point at which other entries are held.
    lost = np.where(np.arange(num) == 1, np.inf, x)
    assert prober((lost,), rng, **options).draw.held[0].sum() == 1


def test_a_smooth_function_takes_half_of_the_evaluations_at_moved_points():
    at_given = gs.check(jnp.tanh, X, at="given").evaluations
    moved = gs.check(jnp.tanh, X).evaluations - at_given
    # Of five points one is degenerate, and needs all.
    assert moved <= 5 * (96 + 22) + 192


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_a_large_output_shows_what_a_small_one_does(scale):
    rng = np.random.default_rng(0)
    value, moves = rng.standard_normal(40_000), rng.standard_normal((3, 40_000))
    cotangents = rng.standard_normal((12, 40_000))
    there, here = scale * (value + 1e-3 * moves), scale * (value - 1e-3 * moves)
    size = scale * np.max(np.abs(value))
    whole = shown(there, here, scale * value, cotangents, size, ())
    change = (there - here) / scale
    np.testing.assert_allclose(whole["products"] / scale, change @ cotangents.T)
    exact = {"norm": there / scale, "moved": change}
    for name, rows in exact.items():
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(whole[name] / scale, norms, rtol=1e-12)
    assert np.all(whole["bend"] / scale < 1e-10)


def below(edge):
    """The sine with a rule that is 1 % off below an edge."""
    f = jax.custom_jvp(jnp.sin)
    wrong = lambda x: jnp.where(jnp.abs(x) < edge, 1.01, 1.0)  # noqa: E731
    f.defjvp(lambda x, v: (jnp.sin(*x), wrong(*x) * jnp.cos(*x) * v[0]))
    return f


def test_a_rule_that_is_wrong_at_a_moved_point_only_is_seen_by_half_of_the_levels():
    result = gs.check(below(0.1), X, transformations=False)
    assert result.verdict is Verdict.FAIL
    assert ("128 times as small", "wrong") in result.moved
