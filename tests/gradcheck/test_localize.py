"""Where a rule is wrong: the planted entries are found, for the price that is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal, wrong_jvp, wrong_vjp
from located import accusation, place

from gradstab.gradcheck.places.localize import hint, locate
from gradstab.gradcheck.subject.problem import MODES, problem


def doubled(*entries):
    """The gradient of the first argument, doubled at these flat indices."""

    def wrong(x, w, g):
        flat = g[0].ravel()
        flat = flat.at[jnp.array(entries)].multiply(2)
        return flat.reshape(g[0].shape), *g[1:]

    return wrong


def total(x):
    return jnp.sum(jnp.tanh(x))


def slope(x):
    return 1 - np.tanh(np.float64(x)) ** 2


def test_one_wrong_entry_is_found_with_both_values():
    x = normal(0, 6, 7)
    found = place(wrong_vjp(total, doubled(17)), x, hints=False)
    assert found.index == (2, 3)
    assert (found.count, found.total, found.estimated) == (1, 42, False)
    np.testing.assert_allclose(found.value, 2 * slope(x[2, 3]), rtol=1e-12)
    assert abs(found.expected - slope(x[2, 3])) <= found.bar < 1e-7


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_entry_is_found_whatever_the_size(size):
    entry = size // 3
    found = place(wrong_vjp(jnp.tanh, doubled(entry)), normal(0, size), hints=False)
    assert (found.index, found.count) == ((entry,), 1)
    assert found.output == (f"[{entry}]" if size > 1 else "")


@pytest.mark.slow
def test_a_scalar_argument_has_the_empty_index():
    found = place(wrong_vjp(jnp.sin, lambda x, w, g: (1.5 * g[0],)), 0.3, hints=False)
    assert (found.index, found.count, found.total) == ((), 1, 1)
    np.testing.assert_allclose(found.value, 1.5 * np.cos(0.3), rtol=1e-6)


def test_several_wrong_entries_are_all_counted():
    entries = (3, 500, 7000, 7001, 9999)
    found = place(
        wrong_vjp(total, doubled(*entries)),
        normal(0, 10_000),
        max_evaluations=1000,
        hints=False,
    )
    assert (found.count, found.estimated) == (5, False)
    assert found.index[0] in entries


@pytest.mark.slow
def test_the_worst_of_several_is_named():
    def wrong(x, w, g):
        return (g[0].at[20].multiply(1.1).at[70].multiply(3),)

    x = np.full(100, 0.5, np.float32)
    assert place(wrong_vjp(total, wrong), x, hints=False).index == (70,)


def test_if_all_entries_are_wrong_a_sample_is_enough():
    rule = wrong_vjp(total, lambda x, w, g: (1.01 * g[0],))
    found = place(rule, normal(0, 1000), hints=False)
    assert (found.count, found.estimated) == (1000, True)
    assert found.evaluations < 200


@pytest.mark.slow
def test_half_of_the_entries_are_counted_by_a_sample():
    rule = wrong_vjp(total, lambda x, w, g: (g[0].at[::2].multiply(2),))
    found = place(rule, normal(0, 1000), hints=False)
    assert found.estimated
    # Sixteen draws with chance 1/2: eight give or take three standard deviations.
    assert 125 <= found.count <= 875


def test_a_wrong_column_is_counted_by_a_sample_of_the_column():
    rule = wrong_vjp(total, lambda x, w, g: (g[0].at[:, 3].multiply(2),))
    found = place(rule, normal(0, 100, 30), hints=False)
    assert found.index[1] == 3
    assert (found.count, found.estimated) == (100, True)


def test_what_the_budget_does_not_reach_is_said_to_be_estimated():
    rule = wrong_vjp(total, doubled(*range(0, 4096, 512)))
    found = place(rule, normal(0, 4096), max_evaluations=200, hints=False)
    assert found.estimated
    assert 1 <= found.count <= 40
    assert found.evaluations <= 200


@pytest.mark.slow
def test_errors_that_cancel_in_sum_are_found():
    rule = wrong_vjp(total, lambda x, w, g: (g[0].at[4].add(w).at[5].add(-w),))
    found = place(rule, normal(0, 64), hints=False)
    assert found.count == 2
    assert found.index in {(4,), (5,)}


def test_undefined_entries_are_listed_without_a_search():
    rule = wrong_vjp(total, lambda x, w, g: (g[0].at[2, 1:3].set(jnp.nan),))
    x = normal(0, 4, 5)
    found = place(rule, x, hints=False)
    assert (found.index, found.count) == ((2, 1), 2)
    assert np.isnan(found.value)
    assert abs(found.expected - slope(x[2, 1])) <= found.bar


def test_the_output_is_named_too():
    def f(x):
        return jnp.outer(jnp.sin(x), jnp.arange(1.0, 6.0)), jnp.cos(x)

    def wrong(x, w, g):
        return (g[0].at[2].add(w[0][2, 4]),)

    found = place(wrong_vjp(f, wrong), normal(0, 7), hints=False)
    assert (found.index, found.output) == ((2,), "[0][2, 4]")
    np.testing.assert_allclose(found.value - found.expected, 1, atol=found.bar)


def test_a_wrong_jvp_is_located_in_forward_mode():
    rule = wrong_jvp(jnp.tanh, lambda t: t.at[7].multiply(2))
    found = place(rule, normal(0, 100), mode="forward", hints=False)
    assert (found.index, found.output, found.count) == ((7,), "[7]", 1)
    np.testing.assert_allclose(found.value, 2 * found.expected, rtol=1e-6)


@pytest.mark.slow
def test_an_undefined_jvp_is_located():
    rule = wrong_jvp(jnp.tanh, lambda t: t.at[7].multiply(jnp.nan))
    found = place(rule, normal(0, 100), mode="forward", hints=False)
    # Not a number times zero is none: every direction gives it there.
    assert found.output == "[7]"


@pytest.mark.slow
def test_the_argument_of_the_finding_is_searched():
    rule = wrong_vjp(jnp.multiply, lambda x, w, g: (g[0], g[1].at[3].set(0)))
    found = place(rule, normal(0, 9), normal(1, 9), leaf="args[1]", hints=False)
    assert (found.leaf, found.index, found.value) == ("args[1]", (3,), 0)


@pytest.mark.slow
def test_ties_where_the_rule_is_acceptable_are_not_taken_for_the_error():
    x = jnp.where(jnp.arange(64) % 4 == 0, 0, 1 + normal(0, 64) ** 2)
    rule = wrong_vjp(lambda x: jax.nn.relu(x), doubled(5))  # 0 at ties
    found = place(rule, x, hints=False)
    assert (found.index, found.count) == ((5,), 1)


@pytest.mark.slow
def test_an_entry_is_found_beside_one_that_needs_a_tiny_step():
    rule = wrong_vjp(jnp.log, lambda x, w, g: (g[0].at[1].multiply(1.1),))
    found = place(rule, np.float32([1e-6, 1, 2]), hints=False)
    assert found.index == (1,)


@pytest.mark.slow
def test_in_float32_the_bar_is_wider_and_the_place_the_same():
    rule = wrong_vjp(lambda x: jnp.tanh(x.astype(jnp.float32)), doubled(5))
    found = place(rule, normal(0, 1000), hints=False, precision="own")
    assert (found.index, found.count) == ((5,), 1)
    assert 1e-6 < found.bar < 1e-2


@pytest.mark.slow
def test_another_function_can_be_the_truth():
    def rounded(x):
        return jnp.round(x)

    rule = wrong_vjp(rounded, lambda x, w, g: (w.at[2].multiply(2),))
    found = place(rule, normal(0, 9), truth=lambda x: x, hints=False)
    assert (found.index, found.count) == ((2,), 1)
    np.testing.assert_allclose(found.expected, 1, atol=found.bar)


@pytest.mark.slow
def test_an_error_of_one_in_a_million_has_its_place():
    def wrong(x, w, g):
        return (g[0].at[9].multiply(1 + 1e-6),)

    found = place(wrong_vjp(jnp.tanh, wrong), normal(0, 16), hints=False)
    assert (found.index, found.count) == ((9,), 1)


@pytest.mark.slow
def test_a_right_rule_has_no_place():
    assert place(jnp.tanh, normal(0, 100), hints=False) is None


@pytest.mark.slow
def test_a_rule_that_is_right_for_single_outputs_is_shown_along_a_mixture():
    rule = wrong_vjp(total, lambda x, w, g: (jnp.abs(w) * (1 - jnp.tanh(x[0]) ** 2),))
    found = place(rule, normal(0, 5), hints=False)
    assert found.output == "mixed at random"
    np.testing.assert_allclose(found.value, -found.expected, rtol=1e-6)


def test_every_evaluation_is_counted():
    calls = []

    def note(x):
        calls.append(1)
        return np.asarray(x)

    def counted(x):
        kept = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(note, kept, x, vmap_method="sequential")

    @jax.custom_vjp
    def f(x):
        return jnp.sum(jnp.sin(counted(x)))

    def backward(x, w):
        return (counted(w * jnp.cos(x)).at[7].multiply(2),)

    f.defvjp(lambda x: (f(x), x), backward)
    # Blocks of two and three entries at the end: groups that are not full.
    task = problem(f, (normal(0, 10),), modes=("reverse",))
    calls.clear()
    rng = np.random.default_rng(0)
    found = locate(task, task.leaves, accusation(), rng, hints=False)
    assert found.index == (7,)
    # The value inside each of the two calls of the VJP is counted, and is not needed.
    assert found.evaluations == len(calls) + 2


@pytest.mark.slow
def test_a_function_that_looks_at_values_is_searched_point_by_point():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x) if x[0] < 100 else x  # cannot be traced

    f.defjvp(lambda x, v: (f(*x), (jnp.cos(x[0]) * v[0]).at[3].multiply(2)))
    found = place(f, normal(0, 9), mode="forward", hints=False)
    assert (found.index, found.output) == ((3,), "[3]")


def test_an_unknown_leaf_is_refused_with_the_names_there_are():
    task = problem(jnp.sin, (normal(0, 3),), modes=MODES)
    rng = np.random.default_rng(0)
    for call in (locate, hint):
        with pytest.raises(ValueError, match=r"'x'; the arguments have: args\[0\]"):
            call(task, task.leaves, accusation("x"), rng)


@pytest.mark.slow
@pytest.mark.parametrize(("f", "entry"), [(total, 999_999), (jnp.tanh, 345_678)])
def test_one_wrong_entry_of_a_million_takes_300_evaluations(f, entry):
    found = place(wrong_vjp(f, doubled(entry)), normal(0, 10**6), hints=False)
    assert (found.index, found.count) == ((entry,), 1)
    assert found.evaluations <= 300
