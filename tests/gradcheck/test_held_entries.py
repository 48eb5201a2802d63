"""One entry that cannot be moved does not hide the others of its leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, normal, wrong_jvp, wrong_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.held import held
from gradstab.gradcheck.subject.problem import problem

pytestmark = pytest.mark.cases

INF = np.inf
LOGITS = np.float32([-INF, 0.3, -0.2, 0.8])
SCORES = normal(0, 4, 4)
MASK = np.where(np.tril(np.ones((4, 4))) > 0, np.float32(0), np.float32(-INF))
PART = np.float32([0, 0.2, 0.3, 0, 0.5])


def scaled(factor):
    return lambda x, w, g: tuple(factor * a for a in g)


def relu_root(x):
    return jnp.sqrt(jax.nn.relu(x))


# The function, a point with entries that cannot be moved, and what the note says.
HELD = {
    "masked logits": (jax.nn.softmax, LOGITS, "1 entry of args[0] is not finite"),
    "logsumexp": (jax.nn.logsumexp, LOGITS, "1 entry of args[0] is not finite"),
    "saturated": (jnp.tanh, np.float32([INF, 1, -INF]), "2 entries of args[0] are not"),
    "square root": (jnp.sqrt, np.float32([0, 2]), "f ends at 1 entry of args[0]"),
    "sum of roots": (lambda x: jnp.sqrt(x).sum(), np.float32([0, 2, 3, 0]), "2 entri"),
    "arc cosine": (jnp.arccos, np.float32([1, 0.3, -1]), "f ends at 2 entries"),
    "power": (lambda x: x**1.5, np.float32([0, 2]), "f ends at 1 entry"),
    "entropy": (jax.scipy.special.entr, PART, "f ends at 2 entries"),
    "x log x": (lambda x: jax.scipy.special.xlogy(x, x), PART, "f ends at 2 entries"),
    "arc tangent": (jnp.arctanh, np.float32([0.5, 1 - 2**-24]), ""),
    "log beside": (lambda x: jnp.log1p(-x), np.float32([0.25, 1 - 2**-24]), ""),
    "infinite slope": (jnp.cbrt, np.float32([0, 2, -1]), "f ends at 1 entry"),
    "root of relu": (relu_root, np.float32([0, 2, -1]), "f ends at 1 entry"),
}


@pytest.mark.parametrize("name", HELD)
def test_a_right_rule_passes_beside_entries_that_are_held(name):
    f, x, note = HELD[name]
    result = compared(f, x)
    assert result.verdict is Verdict.PASS, str(result)
    assert any(note in n for n in result.notes) or not note


def slow_but(quick, names):
    """The names as parameters, all but some of them marked as slow."""
    marks = {name: () if name in quick else (pytest.mark.slow,) for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.mark.parametrize(
    "name",
    slow_but(
        {"masked logits", "square root", "infinite slope"},
        sorted(HELD.keys() - {"root of relu"}),
    ),
)
def test_an_error_in_the_other_entries_fails_and_is_placed_there(name):
    f, x, _ = HELD[name]
    rule = wrong_vjp(lambda x: f(x), scaled(0.6))
    result = compared(rule, x, locate=True)
    assert result.verdict is Verdict.FAIL, str(result)
    (place,) = result.locations
    assert 0 < abs(x[place.index]) < INF
    np.testing.assert_allclose(place.value, 0.6 * place.expected, rtol=1e-5)


def test_softmax_without_its_normalising_term_fails_at_masked_logits():
    rule = wrong_vjp(lambda x: jax.nn.softmax(x), lambda x, w, g: (w * 0.1,))
    assert compared(rule, LOGITS).verdict is Verdict.FAIL


def test_a_wrong_jvp_fails_beside_entries_that_are_held():
    rule = wrong_jvp(lambda x: jnp.sqrt(x), lambda t: 1.4 * t)
    assert compared(rule, np.float32([0, 2])).verdict is Verdict.FAIL


@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_an_additive_mask_is_held_as_an_argument(factor):
    def f(scores, mask):
        return jax.nn.softmax(scores + mask)

    rule = wrong_vjp(f, scaled(factor))
    result = compared(rule, SCORES, MASK)
    wanted = Verdict.PASS if factor == 1.0 else Verdict.FAIL
    assert result.verdict is wanted, str(result)


def test_an_undefined_rule_is_no_border_of_a_function_that_goes_on():
    def sinc(x):
        return jnp.where(x == 0, 1.0, jnp.sin(x) / x)

    assert compared(sinc, np.float32([0, 0.3, 2])).verdict is Verdict.FAIL
    # Neither beside an entry where the function ends indeed.
    both = lambda x: jnp.append(sinc(x[:2]), jnp.sqrt(x[2:]))  # noqa: E731
    result = compared(both, np.float32([0, 0.3, 0, 2]))
    assert result.verdict is Verdict.FAIL, str(result)


@pytest.mark.parametrize("x", [[0.0], [0.0, 0.0]])
def test_nothing_is_said_where_every_entry_is_held(x):
    result = compared(jnp.sqrt, np.float32(x))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no entry can be moved" in result.reason


def test_nothing_is_said_of_an_argument_that_is_infinite():
    result = compared(
        jnp.clip, np.float32([0.3, 0.2]), np.float32(-INF), np.float32(INF)
    )
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no entry can be moved" in result.reason
    assert "args[1]" in result.reason


def test_the_entries_at_the_border_are_found_among_many():
    rng = np.random.default_rng(0)
    x = 1 + rng.uniform(size=3000)
    border = rng.choice(3000, 200, replace=False)
    x[border[:150]], x[border[150:]] = 0, 3

    def f(x):
        return jnp.sum(jnp.sqrt(x) + jnp.sqrt(3 - x))

    task = problem(f, (np.float32(x),))
    mask, evaluations = held(task, task.leaves, 0, rng)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(border))
    assert evaluations < 1000


def test_of_equal_entries_only_those_at_the_border_are_held():
    def f(x):
        return jnp.sqrt(x[0]) + jnp.sin(x[1]) + x[2]

    task = problem(f, (np.float32([0, 0, 0]),))
    mask, _ = held(task, task.leaves, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(mask, [True, False, False])


def test_a_kink_is_no_border():
    task = problem(lambda x: jnp.abs(x) + jnp.cbrt(x[::-1]), (np.float32([0, 1]),))
    rng = np.random.default_rng(0)
    mask, _ = held(task, task.leaves, 0, rng, steep=True)
    np.testing.assert_array_equal(mask, [True, False])
    task = problem(jnp.abs, (np.float32([0, 1]),))
    mask, _ = held(task, task.leaves, 0, rng, steep=True)
    assert not mask.any()


def test_the_exhaustive_check_leaves_out_what_is_infinite():
    result = compared(jax.nn.softmax, LOGITS, exhaustive=True)
    assert result.verdict is Verdict.PASS, str(result)
    assert all(g.state == "agrees" for g in result.findings)
    rule = wrong_vjp(lambda x: jax.nn.softmax(x), scaled(0.6))
    assert compared(rule, LOGITS, exhaustive=True).verdict is Verdict.FAIL
