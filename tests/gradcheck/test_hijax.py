"""Rules of differentiation that are written as hijax primitives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hijax_primitives import Plain, WithBoth, WithJVP, WithVJP, of

import gradstab as gs

pytestmark = pytest.mark.cases

X = np.float32([0.3, -0.7, 1.1])
QUICK = {"transformations": False, "locate": False, "at": "given"}


def softmax(x):
    e = jnp.exp(x - jnp.max(x))
    return e / jnp.sum(e)


def _softmax_vjp(args, w):
    y = softmax(*args)
    return (y * (w - jnp.sum(y * w)),)


def _softmax_without_its_mean(args, w):
    return (softmax(*args) * w,)


# kind, function, right rule, wrong rule
TWINS = {
    "sine, twice": (
        *(WithVJP, jnp.sin),
        lambda a, w: (w * jnp.cos(*a),),
        lambda a, w: (2 * w * jnp.cos(*a),),
    ),
    "cosine, sign": (
        *(WithVJP, jnp.cos),
        lambda a, w: (-w * jnp.sin(*a),),
        lambda a, w: (w * jnp.sin(*a),),
    ),
    "tanh, five per cent": (
        *(WithVJP, jnp.tanh),
        lambda a, w: (w * (1 - jnp.tanh(*a) ** 2),),
        lambda a, w: (w * (1 - 0.95 * jnp.tanh(*a) ** 2),),
    ),
    "softmax without its mean": (
        *(WithVJP, softmax),
        _softmax_vjp,
        _softmax_without_its_mean,
    ),
    "a detached argument": (
        *(WithVJP, lambda x: x * jnp.exp(x)),
        lambda a, w: (w * (1 + a[0]) * jnp.exp(*a),),
        lambda a, w: (w * jnp.exp(*a),),
    ),
    "a lost last entry": (
        *(WithVJP, lambda x: x**2),
        lambda a, w: (2 * w * a[0],),
        lambda a, w: ((2 * w * a[0]).at[-1].set(0),),
    ),
    "a sum that is not reversed": (
        *(WithVJP, lambda x: jnp.cumsum(x)),
        lambda a, w: (jnp.cumsum(w[::-1])[::-1],),
        lambda a, w: (jnp.cumsum(w),),
    ),
    "a forward slope, twice": (
        *(WithJVP, jnp.sin),
        lambda a, t: jnp.cos(*a) * t[0],
        lambda a, t: 2 * jnp.cos(*a) * t[0],
    ),
    "a forward slope of the wrong function": (
        *(WithJVP, jnp.sinh),
        lambda a, t: jnp.cosh(*a) * t[0],
        lambda a, t: jnp.sinh(*a) * t[0],
    ),
    "half of the product rule": (
        *(WithJVP, lambda x: x * jnp.sin(x)),
        lambda a, t: (jnp.sin(*a) + a[0] * jnp.cos(*a)) * t[0],
        lambda a, t: a[0] * jnp.cos(*a) * t[0],
    ),
    "a mean that became a sum": (
        *(WithJVP, lambda x: jnp.mean(x**2)),
        lambda a, t: jnp.mean(2 * a[0] * t[0]),
        lambda a, t: jnp.sum(2 * a[0] * t[0]),
    ),
    "an inner derivative": (
        *(WithJVP, lambda x: jnp.exp(2 * x)),
        lambda a, t: 2 * jnp.exp(2 * a[0]) * t[0],
        lambda a, t: jnp.exp(2 * a[0]) * t[0],
    ),
}


@pytest.mark.parametrize(
    ("kind", "f", "right", "wrong"), TWINS.values(), ids=TWINS.keys()
)
def test_a_wrong_rule_fails_and_its_right_twin_passes(kind, f, right, wrong):
    missing = "forward" if kind is WithVJP else "reverse"
    result = gs.check(of(kind, f, right), X, **QUICK)
    assert result.verdict is gs.Verdict.PASS
    assert any(n.startswith(f"{missing} mode was not checked") for n in result.notes)
    assert gs.check(of(kind, f, wrong), X, **QUICK).verdict is gs.Verdict.FAIL


SINE = lambda a, w: (w * jnp.cos(*a),)  # noqa: E731
TWICE = lambda a, w: (2 * w * jnp.cos(*a),)  # noqa: E731
FORWARD = lambda a, t: jnp.cos(*a) * t[0]  # noqa: E731


def test_of_two_rules_the_wrong_one_is_named():
    right = gs.check(of(WithBoth, jnp.sin, (SINE, FORWARD)), X, **QUICK)
    wrong = gs.check(of(WithBoth, jnp.sin, (TWICE, FORWARD)), X, **QUICK)
    assert right.verdict is gs.Verdict.PASS
    assert wrong.verdict is gs.Verdict.FAIL
    assert {g.mode for g in wrong.findings if g.state == "differs"} == {"reverse"}


def test_a_primitive_without_rules_has_nothing_to_check():
    with pytest.raises(TypeError, match="nothing to check"):
        gs.check(of(Plain, jnp.sin, None), X, **QUICK)


def test_what_a_broken_rule_raises_is_raised():
    def broken(args, w):
        raise KeyError("residuals")

    with pytest.raises(KeyError, match="residuals"):
        gs.check(of(WithVJP, jnp.sin, broken), X, **QUICK)


def test_an_audit_finds_the_wrong_primitive_among_others():
    def model(x):
        x = of(WithVJP, jnp.sin, SINE)(x)
        x = jax.jit(of(WithVJP, jnp.sin, TWICE))(jax.nn.relu(x))
        return of(WithJVP, jnp.sin, FORWARD)(x)

    result = gs.audit(lambda x: model(x), X, transformations=False, at="given")
    found = {(rule.name, rule.kind): rule.check.verdict for rule in result.rules}
    assert result.verdict is gs.Verdict.FAIL
    assert result.rules[0].name == "WithVJP"
    assert found["WithJVP", "hijax"] is gs.Verdict.PASS
    assert found["relu", "custom_jvp"] is gs.Verdict.PASS
    assert len(result.rules) == 4
    assert "hijax_primitives.py" in result.rules[0].source


def test_an_audit_lists_a_primitive_that_it_cannot_check():
    result = gs.audit(of(Plain, jnp.sin, None), X)
    (rule,) = result.rules
    assert result.verdict is gs.Verdict.INCONCLUSIVE
    assert rule.check.reason.startswith("it cannot be checked: ")
    assert "f has a hijax primitive, which has no J" in rule.check.reason


def test_rules_that_were_seen_are_counted_where_none_was_checked():
    sine = of(WithVJP, jnp.sin, SINE)
    result = gs.audit(lambda x: x * sine(jnp.ones(3)), X)
    assert not result.rules
    assert str(result).startswith("INCONCLUSIVE: 1 rule, of which none was checked")
    assert "called with constants only: WithVJP" in str(result)
