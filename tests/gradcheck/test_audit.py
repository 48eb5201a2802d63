"""Every rule inside of a program is found, called as there, and judged by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.experimental import pallas as pl

from gradstab.gradcheck import Verdict, audit

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.float32([0.3, 0.6, 1.0])
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
SHARDED = {"in_specs": jax.P("i"), "out_specs": jax.P("i"), "mesh": MESH}

# What is not under test here costs most of the time.
quick = functools.partial(
    audit, at="given", transformations=False, locate=False, rtol=1e-6
)


def rule(name, *, factor=1.0, limit=np.inf):
    """x sin(x) with a VJP that is off by a factor, where x is above a limit."""

    def f(x):
        return jnp.sin(x) * x

    def pullback(x, w):
        off = jnp.where(x > limit, factor * 0.9, factor)
        return ((off * w * (jnp.sin(x) + x * jnp.cos(x))).astype(x.dtype),)

    f.__name__ = name
    f = jax.custom_vjp(f)
    f.defvjp(lambda x: (jnp.sin(x) * x, x), pullback)
    return f


right, wrong = rule("right"), rule("wrong", factor=0.9)


def looped(f, g, x):
    return jax.lax.scan(lambda c, y: (f(c) + y, g(c)), x, jnp.outer(jnp.arange(3), x))


PLACES = {
    "jit": (jax.jit(lambda x: wrong(right(x))), ""),
    "remat": (jax.checkpoint(lambda x: jnp.sin(wrong(right(x)))), ""),
    "vmap": (jax.vmap(lambda x: wrong(right(x))), ""),
    "scan": (lambda x: looped(right, wrong, x), "scan/"),
    "cond": (
        lambda x: jax.lax.cond(x[0] < 0, jnp.sin, lambda x: wrong(right(x)), x),
        "cond[0]/",
    ),
    "while": (
        lambda x: jax.lax.while_loop(
            lambda c: c[0] < 3, lambda c: 1 + c + 0 * wrong(right(c)), x
        ),
        "while/",
    ),
    "shard_map": (
        jax.shard_map(lambda x: wrong(right(x)) + jax.lax.psum(x, "i"), **SHARDED),
        "shard_map/",
    ),
    "shard_map of cond": (
        jax.shard_map(
            lambda x: jax.lax.cond(x[0] < 0, jnp.sin, lambda x: wrong(right(x)), x),
            **SHARDED,
        ),
        "shard_map/cond[0]/",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("f", "path"), PLACES.values(), ids=PLACES.keys())
def test_the_wrong_rule_is_told_from_the_right_one_wherever_they_are(f, path):
    result = quick(f, X)
    verdicts = {r.paths: r.check.verdict for r in result.rules}
    assert verdicts == {
        (f"{path}wrong",): Verdict.FAIL,
        (f"{path}right",): Verdict.PASS,
    }
    assert result.verdict is Verdict.FAIL


def test_rules_in_a_loop_in_a_branch_are_found_and_the_other_branch_is_named():
    def f(x):
        def step(c, i):
            return jax.lax.cond(i < 5, jax.checkpoint(right), wrong, c), i

        return jax.lax.scan(step, x, jnp.arange(3))

    result = quick(f, X)
    assert [r.paths for r in result.rules] == [("scan/cond[1]/right",)]
    assert result.verdict is Verdict.PASS
    assert result.unreached == ("scan/cond[0]/wrong",)
    assert "not called at these arguments: scan/cond[0]/wrong" in str(result)


@pytest.mark.slow
def test_a_rule_is_checked_at_the_last_iteration_too():
    """Wrong above 2 only, where the loop ends and does not begin."""
    late = rule("late", limit=2.0)

    def f(x):
        return jax.lax.scan(lambda c, _: (1 + c + 0 * late(c), c), x, None, 4)

    result = quick(f, X)
    assert [check.verdict for check in result.rules[0].checks] == [
        Verdict.PASS,
        Verdict.FAIL,
    ]
    assert result.rules[0].count == 1


def test_equal_calls_are_checked_once_and_counted():
    result = quick(lambda x: right(x) + right(x) + rule("right")(x), X)
    assert [(r.count, len(r.checks)) for r in result.rules] == [(3, 1)]
    assert "x3" in str(result)


@pytest.mark.slow
def test_rules_of_one_name_and_two_derivatives_are_two_rules():
    result = quick(lambda x: rule("f")(x) + rule("f", factor=1.01)(x), X)
    assert [r.check.verdict for r in result.rules] == [Verdict.FAIL, Verdict.PASS]


def closing_over(factor):
    """A rule that differs from others by the numbers in an array only."""
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (w * jnp.cos(x) * factor,))
    return f


@pytest.mark.slow
def test_rules_that_close_over_other_numbers_are_two_rules():
    ones = np.ones(3, np.float32)
    result = quick(lambda x: closing_over(ones)(x) + closing_over(1.1 * ones)(x), X)
    assert [r.check.verdict for r in result.rules] == [Verdict.FAIL, Verdict.PASS]


@pytest.mark.slow
def test_a_rule_inside_of_a_rule_is_checked_too():
    outer = jax.custom_jvp(lambda x: wrong(x) + x)
    outer.defjvp(
        lambda x, v: (
            wrong(*x) + x[0],
            v[0] * (1 + jnp.sin(x[0]) + x[0] * jnp.cos(x[0])),
        )
    )
    result = quick(outer, X)
    verdicts = {r.paths[0]: (r.kind, r.check.verdict) for r in result.rules}
    assert verdicts["<lambda>"] == ("custom_jvp", Verdict.PASS)
    assert verdicts["<lambda>/wrong"] == ("custom_vjp", Verdict.FAIL)


@pytest.mark.slow
def test_constants_of_the_program_are_not_differentiated():
    """The rule has no derivative in its second operand, and that is no mistake."""
    scaled = jax.custom_vjp(lambda x, a: a * jnp.sin(x))
    scaled.defvjp(
        lambda x, a: (a * jnp.sin(x), (x, a)),
        lambda res, w: (w * res[1] * jnp.cos(res[0]), jnp.zeros_like(res[1])),
    )
    constant = jnp.full(3, 2.0)
    result = quick(lambda x: scaled(x, constant), X)
    assert result.verdict is Verdict.PASS
    assert {g.leaf for g in result.rules[0].check.findings} == {"args[0]"}
    assert quick(scaled, X, constant).verdict is Verdict.FAIL


def scaled_by(a):
    """A rule that closes over a value of the program: JAX has no derivative in that."""
    f = jax.custom_jvp(lambda x: a * jnp.sin(x))
    f.defjvp(lambda x, v: (f(*x), a * jnp.cos(x[0]) * v[0]))
    return f


def test_a_rule_that_closes_over_a_value_of_the_program_is_not_judged():
    """JAX itself cannot apply it once the program is traced, as under `jax.jit`."""
    f = lambda x, a: jnp.sum(scaled_by(a)(x))  # noqa: E731
    with pytest.raises(TypeError, match=r"Tracer|tracer"):
        jax.grad(jax.jit(f))(X, X)
    result = quick(f, X, X)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "it cannot be checked" in result.rules[0].check.reason
    assert quick(lambda a: scaled_by(a)(jnp.ones(3)), X).constant == ("<lambda>",)


def test_rules_of_constants_alone_are_named_and_not_checked():
    result = quick(
        lambda x: x * wrong(jnp.ones(3)) + wrong(jax.lax.stop_gradient(x)), X
    )
    assert not result.rules
    assert result.constant == ("wrong",)
    assert result.verdict is Verdict.INCONCLUSIVE


def test_nothing_is_passed_where_nothing_was_checked():
    result = audit(jnp.sin, X)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.resolution == np.inf
    assert result.evaluations == 0
    assert str(result) == (
        "INCONCLUSIVE: no custom rule of differentiation was checked"
    )


SKIPS = {("wro*",): {"relu"}, ("jax",): {"wrong"}, ("jax", "wrong"): set()}


@pytest.mark.parametrize(("skip", "left"), SKIPS.items())
def test_rules_are_left_out_by_name_or_package(skip, left):
    result = quick(lambda x: jax.nn.relu(wrong(x)), X, skip=skip)
    assert {r.name for r in result.rules} == left
    assert set(result.skipped) == {"relu", "wrong"} - left


@pytest.mark.slow
def test_a_body_without_a_good_derivative_does_not_accuse_its_rule():
    """At a tie JAX differentiates the body of logaddexp to zero; its rule says 1/2."""
    result = audit(jax.nn.softplus, 0 * X, transformations=False, locate=False)
    assert result.verdict is Verdict.PASS
    assert (
        "plain differentiation of the body differs" in result.rules[0].check.notes[-1]
    )


@pytest.mark.slow
def test_a_body_that_cannot_be_differentiated_is_said_to_be_no_oracle():
    def root(a):  # Newton's iteration for the square root, eight times
        step = lambda state: (state[0] + 1, (state[1] + a / state[1]) / 2)  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < 8, step, (0, a))[1]

    def rule_of(factor):
        f = jax.custom_vjp(root)
        f.defvjp(lambda a: (root(a), root(a)), lambda y, w: (factor * w / y,))
        return f

    result = quick(lambda x: rule_of(0.5)(x) + rule_of(0.45)(x), X)
    assert [r.check.verdict for r in result.rules] == [Verdict.FAIL, Verdict.PASS]
    assert all("while_loop" in r.body for r in result.rules)
    assert "its body is no oracle: ValueError" in str(result)


def kernel(x_ref, y_ref):
    y_ref[...] = jnp.tanh(x_ref[...])


def tanh_of_pallas(slope):
    def f(x):
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, out_shape=out, interpret=True)(x)

    f = jax.custom_vjp(f)
    f.defvjp(lambda x: (f(x), f(x)), lambda y, w: (w * slope(y),))
    return f


@pytest.mark.slow
def test_kernels_with_rules_are_checked():
    result = quick(
        lambda x: tanh_of_pallas(lambda y: 1 - y)(
            tanh_of_pallas(lambda y: 1 - y**2)(x)
        ),
        jnp.ones((2, 4)),
    )
    assert [r.check.verdict for r in result.rules] == [Verdict.FAIL, Verdict.PASS]


def test_a_rule_that_exists_in_float32_only_is_widened():
    result = audit(
        lambda x: wrong(x.astype(jnp.float32)),
        X,
        at="given",
        transformations=False,
        locate=False,
    )
    assert result.rules[0].shapes == ("float32[3]",)
    assert "widened to float64" in result.rules[0].check.notes[0]
    assert result.verdict is Verdict.FAIL


def test_a_rule_that_does_not_fit_its_function_is_not_judged():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (w, w))
    result = audit(f, X)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "Custom VJP bwd rule" in result.rules[0].check.reason


@pytest.mark.slow
def test_integers_keys_and_options_are_no_operands_to_differentiate():
    def f(x, batch, key, mode):
        assert mode == "train"
        kept = jax.random.bernoulli(key, 0.9, x.shape)
        return jnp.where(kept, right(x[batch]), 0)

    result = quick(f, X, jnp.array([2, 0, 1]), jax.random.key(0), "train")
    assert result.verdict is Verdict.PASS


class Module(linen.Module):
    @linen.compact
    def __call__(self, x):
        return wrong(linen.Dense(3)(x))


def linen_model(x):
    return Module(), Module().init(jax.random.key(0), x)


def nnx_model(x):
    return nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), wrong)


def pytree(x):
    return jax.tree_util.Partial(lambda w, x: wrong(x @ w), jnp.eye(3))


@pytest.mark.slow
@pytest.mark.parametrize("make", [nnx_model, linen_model, pytree])
def test_models_are_functions_of_their_parameters(make):
    x = jnp.ones((2, 3))
    result = quick(make(x), x)
    assert [(r.name, r.shapes) for r in result.rules] == [("wrong", ("float64[2,3]",))]
    assert result.verdict is Verdict.FAIL


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="a function or a model, got int"):
        audit(3, X)


@pytest.mark.slow
def test_the_text_names_rule_place_shape_and_source():
    text = str(quick(lambda x: looped(right, wrong, x), X))
    first, second, *rest = text.splitlines()
    assert first == "FAIL: 2 rules, of which 1 FAIL, 1 PASS"
    assert second.startswith("  FAIL scan/wrong(float64[3]): resolution")
    assert "custom_vjp of wrong, defined at" in text
    assert "test_audit.py:" in text
    assert rest[-1].startswith("  PASS scan/right")
