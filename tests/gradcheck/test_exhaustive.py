"""The whole Jacobian, entry by entry: what is right passes, what is wrong is named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal, wrong_jvp, wrong_vjp

from gradstab.gradcheck.places.exhaustive import Exhaustive, exhaustive
from gradstab.gradcheck.subject.problem import MODES, problem

X5 = normal(1, 5)
TIES = np.where(np.arange(16) % 4 == 0, np.float32(0), normal(0, 16))


def full(f, *args, precision=None, **options):
    """The full check of f at the arguments."""
    task = problem(f, args, modes=MODES, precision=precision)
    return exhaustive(task, task.leaves, **options)


def network(x, params):
    for kernel, bias in params:
        x = jnp.tanh(x @ kernel + bias[None])
    return jnp.mean(x**2)


def layers(*sizes):
    pairs = itertools.pairwise(sizes)
    return [(normal(k, a, b) / a**0.5, normal(9, b)) for k, (a, b) in enumerate(pairs)]


def states(result):
    return {(g.leaf, g.mode): g.state for g in result.findings}


@pytest.mark.slow
def test_a_right_gradient_agrees_in_every_leaf_and_reaches_the_bands():
    result = full(network, normal(5, 4, 3), layers(3, 2), rtol=1e-6)
    assert set(states(result).values()) == {"agrees"}
    assert {g.leaf for g in result.findings} == {
        "args[0]",
        "args[1].0.0",
        "args[1].0.1",
    }
    assert max(g.resolution for g in result.findings) <= 1e-6
    assert result.figures.ratio <= 1e-7
    assert result.figures.worst_error <= 1e-7
    assert (result.figures.ratio_band, result.figures.error_band) == ("great", "happy")
    assert result.locations == ()


def test_one_entry_that_is_off_by_little_is_found_among_all():
    def wrong(x, w, g):
        return (g[0].at[3].multiply(1 + 1e-5),)

    result = full(wrong_vjp(lambda x: jnp.sum(jnp.tanh(x)), wrong), normal(0, 16))
    (finding,), (place,) = result.findings, result.locations
    assert finding.state == "differs"
    assert (place.index, place.count, place.total) == ((3,), 1, 16)
    assert place.bar < abs(place.value - place.expected) < 1e-4
    # The worst relative error is the one that was planted.
    np.testing.assert_allclose(result.figures.worst_error, 1e-5, rtol=1e-2)


@pytest.mark.slow
def test_the_ratio_is_that_of_norms():
    result = full(wrong_vjp(jnp.tanh, lambda x, w, g: (1.5 * g[0],)), normal(0, 9))
    # |1.5 - 1| / (1.5 + 1) of the same Jacobian, and 0.5 / 1.5 in every entry.
    np.testing.assert_allclose(result.figures.ratio, 0.2, rtol=1e-6)
    np.testing.assert_allclose(result.figures.worst_error, 1 / 3, rtol=1e-6)
    assert (result.figures.ratio_band, result.figures.error_band) == (
        "wrong",
        "probably wrong",
    )
    assert result.locations[0].count == 9  # the others are zero, and rightly so
    assert result.locations[0].hint == "a constant factor of 3/2"


def test_all_entries_of_a_long_argument_are_counted_if_all_are_wrong():
    rule = wrong_vjp(lambda x: jnp.sum(x**2), lambda x, w, g: (1.01 * g[0],))
    result = full(rule, 1 + normal(0, 100) ** 2)
    assert result.locations[0].count == 100
    # Thirty-two of them are looked at again, not all.
    assert result.figures.evaluations < 2 * 128 + 16 * 32 + 200


def test_outputs_wider_than_the_input_are_compared_by_columns():
    def f(x):
        return jnp.outer(x, jnp.sin(x)), jnp.cos(x)

    result = full(wrong_jvp(f, lambda t: (t[0].at[1, 2].multiply(2), t[1])), X5)
    assert states(result) == {("args[0]", "forward"): "differs"}
    place = result.locations[0]
    assert place.output == "[0][1, 2]"
    assert place.index in {(1,), (2,)}
    assert place.count == 2


@pytest.mark.slow
def test_entries_that_differences_cannot_tell_are_left_out_of_the_relative_error():
    weights = np.float64([1, 1e-9])  # rounding falsifies the second by a per cent
    figures = full(lambda x: jnp.sum(weights * jnp.sin(x)), normal(0, 2)).figures
    assert figures.left_out == 1
    assert figures.worst_error <= 1e-7


@pytest.mark.slow
def test_noise_that_the_value_does_not_show_is_measured():
    def noisy(x):  # sin(x), with the rounding errors of numbers of 1e6
        return 1e6 * (jnp.sin(x) ** 2 + jnp.cos(x) ** 2) - 1e6 + jnp.sin(x)

    (finding,) = full(noisy, normal(0, 40)).findings
    assert finding.state == "agrees"


@pytest.mark.slow
def test_both_modes_can_be_asked_for():
    result = full(jnp.tanh, X5, modes=MODES)
    assert states(result) == {
        ("args[0]", "forward"): "agrees",
        ("args[0]", "reverse"): "agrees",
    }


def test_kinks_are_accepted_if_the_rule_lies_between_the_slopes():
    result = full(jax.nn.relu, TIES, rtol=1e-6)
    assert states(result) == {("args[0]", "reverse"): "agrees"}
    assert result.figures.notes == (
        "at 4 entries f has a kink, and the rule lies between its slopes",
    )


def test_a_rule_outside_the_slopes_of_a_kink_is_wrong_there():
    def wrong(x, w, g):
        return (jnp.where(x[0] == 0, 1.2 * w, g[0]),)

    result = full(wrong_vjp(jax.nn.relu.__wrapped__, wrong), TIES)
    assert states(result) == {("args[0]", "reverse"): "differs"}
    assert result.locations[0].count == 4
    assert TIES[result.locations[0].index] == 0


@pytest.mark.slow
def test_a_border_of_the_domain_is_neither_accused_nor_passed():
    (finding,) = full(jnp.sqrt, np.float32([0, 1])).findings
    assert "not finite on both sides" in finding.state
    assert finding.resolution == np.inf


@pytest.mark.slow
def test_entries_of_different_size_get_steps_of_their_own():
    result = full(jnp.log, np.float32([1e-6, 1, 2, 3, 4, 5, 6, 7]), rtol=1e-6)
    assert states(result) == {("args[0]", "reverse"): "agrees"}


@pytest.mark.slow
def test_a_zero_derivative_is_measured_against_the_size_of_f():
    result = full(lambda x, y: 2 * x, X5, X5, rtol=1e-6)
    assert [g.absolute for g in result.findings] == [False, True]
    assert set(states(result).values()) == {"agrees"}


def test_in_float32_the_figures_are_not_given_and_it_is_said_why():
    result = full(jnp.tanh, X5, rtol=1e-2, precision="own")
    assert states(result) == {("args[0]", "reverse"): "agrees"}
    assert np.isnan(result.figures.ratio)
    assert "in float32 even a right gradient does not reach" in result.figures.notes[0]


@pytest.mark.slow
def test_what_the_noise_hides_does_not_agree():
    result = full(lambda x: 1e8 + jnp.sin(x), X5, rtol=1e-8)
    assert "noise" in result.findings[0].state
    assert result.findings[0].resolution > 1e-8


@pytest.mark.slow
def test_blocks_under_a_small_limit_give_the_same_numbers():
    whole = full(jnp.cumsum, normal(0, 40))
    parts = full(jnp.cumsum, normal(0, 40), max_bytes=2**12)
    assert states(parts) == states(whole)
    # The rows of the rule do not fit any more and are computed for every block.
    assert parts.figures.evaluations > whole.figures.evaluations
    np.testing.assert_allclose(parts.figures.ratio, whole.figures.ratio, atol=1e-10)


def test_progress_is_told_by_leaf_and_share():
    told = []
    full(lambda x, y: x * y, X5, X5, advance=lambda *now: told.append(now))
    assert told == [("args[0]", 0.5), ("args[1]", 1.0)]


def test_one_compiled_check_serves_several_points():
    task = problem(jnp.tanh, (X5,), modes=MODES)
    check = Exhaustive(task)
    first, again = check(task.leaves), check((2 * np.asarray(task.leaves[0]),))
    assert first.findings[0].state == again.findings[0].state == "agrees"
    assert first.figures.evaluations == again.figures.evaluations
    assert first.figures.ratio != again.figures.ratio


@pytest.mark.slow
def test_a_function_that_looks_at_values_is_compared_too():
    def f(x):
        return jnp.sum(jnp.sin(x)) if x[0] < 100 else jnp.sum(x)  # cannot be traced

    result = full(f, X5)
    assert states(result) == {("args[0]", "reverse"): "agrees"}


@pytest.mark.slow
def test_another_function_can_be_the_truth():
    rule = wrong_vjp(lambda x: jnp.round(x), lambda x, w, g: (w,))
    result = full(rule, X5, truth=lambda leaves: (1.0 * leaves[0],))
    assert states(result) == {("args[0]", "reverse"): "agrees"}


def test_the_evaluations_are_two_per_entry_and_a_few_for_the_step():
    result = full(lambda x: jnp.sum(jnp.tanh(x)), normal(0, 1500))
    assert states(result) == {("args[0]", "reverse"): "agrees"}
    # 80 for the step, 2 for the VJP, and 1500 rounded up to two full blocks.
    assert 2 * 1500 <= result.figures.evaluations <= 2 * 2048 + 82
