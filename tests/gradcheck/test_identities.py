"""Laws of derivatives: right rules obey them, and every broken one is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal, wrong_vjp

from gradstab.gradcheck.laws.identities import identities
from gradstab.gradcheck.subject.problem import problem

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).standard_normal(32, np.float32)
TIES = np.where(np.arange(32) % 4 == 0, np.float32(0), X)
MODES = ("forward", "reverse")


def tried(f, *args, seed=0, modes=MODES):
    """All laws, by name."""
    task = problem(f, args, modes=modes)
    found = identities(task, task.leaves, np.random.default_rng(seed))
    assert len({i.name for i in found}) == len(found)
    return {i.name: i for i in found}


def broken(f, *args, **options):
    return {name for name, i in tried(f, *args, **options).items() if not i.holds}


def layer_norm(x, gain, bias):
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    return centred * inverse * gain[None] + bias[None]


def dropout(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)


def network(x, kernel):
    return jax.nn.gelu(x @ kernel) @ kernel.T


def recurrent(h, kernel, xs):
    step = lambda h, x: (jnp.tanh(kernel @ h + x),) * 2  # noqa: E731
    return jax.lax.scan(step, h, xs)


def cancelling(x):
    return jnp.sin((3 * x + 1e6) - 1e6)


def solved(b):
    def matrix(x):
        return 2 * x + 0.5 * jnp.roll(x, 1) + 0.5 * jnp.roll(x, -1)

    return jax.scipy.sparse.linalg.cg(matrix, b)[0]


def narrow(f, dtype):
    return lambda *args: f(*(a.astype(dtype) for a in args))


HILBERT = (1 / (1 + np.arange(8)[:, None] + np.arange(8))).astype(np.float32)

STRAIGHT_THROUGH = jax.custom_vjp(lambda x: jnp.round(x))
STRAIGHT_THROUGH.defvjp(lambda x: (jnp.round(x), None), lambda _, w: (w,))

QUICK = {"relu at its kink", "softmax", "straight-through", "infinite slope"}
QUICK |= {"cancellation", "several outputs"}

RIGHT = {
    "relu at its kink": (jax.nn.relu, np.zeros(8, np.float32)),
    "max of equals": (jnp.max, np.float32([1.0, 1.0, 0.5])),
    "softmax": (jax.nn.softmax, X),
    "layer norm": (layer_norm, X.reshape(4, 8), X[:8], X[8:16]),
    "cumsum": (jnp.cumsum, X),
    "sort with ties": (jnp.sort, TIES),
    "transform with complex numbers inside": (lambda x: jnp.abs(jnp.fft.fft(x)), X),
    "dropout with a fixed key": (dropout, X, jax.random.key(0)),
    "straight-through": (lambda x: jnp.sin(STRAIGHT_THROUGH(3 * x)), X),
    "step": (jnp.floor, 3 * X),
    "constant": (lambda x: jnp.ones(3), X),
    "infinite slope": (jnp.sqrt, np.float32([0, 1, 2])),
    "no slope": (jnp.linalg.norm, np.zeros(3, np.float32)),
    "saturated": (jax.nn.sigmoid, np.full(8, 40, np.float32)),
    "underflow": (narrow(lambda x: 1e10 * jnp.exp(x - 90), jnp.float32), X),
    "cancellation": (narrow(cancelling, jnp.float32), X),
    "ill-conditioned": (narrow(jnp.linalg.solve, jnp.float32), HILBERT, X[:8]),
    "iterative solver": (solved, X),
    "scan": (recurrent, X[:4], normal(1, 4, 4), normal(2, 5, 4)),
    "float16": (narrow(jax.nn.softmax, jnp.float16), X),
    "bfloat16": (narrow(network, jnp.bfloat16), X.reshape(4, 8), normal(1, 8, 6)),
    "unused argument": (lambda x, y: 2 * x, X, X),
    "several outputs": (lambda x: {"sine": jnp.sin(x), "n": 3, "sum": x.sum()}, X),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, case in RIGHT.items()
    ],
)
def test_a_right_derivative_obeys_all_laws(case):
    found = tried(*case).values()
    assert not [i for i in found if not i.holds]
    assert len(found) >= 8 or "not tried" in next(iter(found)).detail


def test_the_laws_of_a_smooth_function_hold_to_rounding():
    found = tried(jnp.tanh, X)
    assert all(i.error <= 8 * np.finfo(np.float64).eps for i in found.values())
    assert all(not i.detail.startswith("not tried") for i in found.values())


LINEARITY = {
    "homogeneous in the cotangent",
    "additive in the cotangent",
    "constant cotangent",
    "zero cotangent",
}
ALL = LINEARITY | {"arguments alone", "outputs alone"}

FIRST = {"ignores the cotangent", "magnitude of the cotangent", "nan at zero"}

NONLINEAR = {
    "ignores the cotangent": (
        lambda x, w, g: (1 - jnp.tanh(x[0]) ** 2,),
        LINEARITY,
    ),
    "weight decay": (
        lambda x, w, g: (g[0] + 0.01 * x[0],),
        LINEARITY,
    ),
    "magnitude of the cotangent": (
        lambda x, w, g: (jnp.abs(w) * (1 - jnp.tanh(x[0]) ** 2),),
        {"homogeneous in the cotangent", "constant cotangent"},
    ),
    "clipped to a unit norm": (
        lambda x, w, g: (g[0] / jnp.linalg.norm(g[0]),),
        LINEARITY,
    ),
    "scaled by the largest entry": (  # homogeneous, not additive
        lambda x, w, g: (g[0] * jnp.max(jnp.abs(w)) / jnp.linalg.norm(w),),
        {"additive in the cotangent", "constant cotangent", "zero cotangent"},
    ),
    "constant cotangents collapsed": (
        lambda x, w, g: (jnp.where(jnp.all(w == w[0]), g[0] / w.size, g[0]),),
        {"constant cotangent"},
    ),
    "one-hot cotangents only": (
        lambda x, w, g: (jnp.where(jnp.sum(w != 0) == 1, 2, 1) * g[0],),
        {"additive in the cotangent"},
    ),
    "nan at zero": (
        lambda x, w, g: (g[0] + 0 * jnp.sum(w / jnp.sum(jnp.abs(w))),),
        {"zero cotangent"},
    ),
}


@pytest.mark.parametrize(
    ("wrong", "laws"),
    [
        pytest.param(*case, id=name, marks=() if name in FIRST else pytest.mark.slow)
        for name, case in NONLINEAR.items()
    ],
)
def test_a_rule_that_is_not_linear_is_named(wrong, laws):
    assert broken(wrong_vjp(jnp.tanh, wrong), X) == laws


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_rule_that_is_not_linear_is_named_in_narrow_numbers(dtype):
    rule = wrong_vjp(jnp.tanh, lambda x, w, g: (1 - jnp.tanh(x[0]) ** 2,))
    assert broken(narrow(rule, dtype), X) == LINEARITY


def test_a_rule_that_is_not_linear_is_named_at_stairs_where_differences_are_blind():
    rule = jax.custom_vjp(lambda x: jnp.round(x))
    rule.defvjp(lambda x: (jnp.round(x), None), lambda _, w: (jnp.sign(w),))
    assert "additive in the cotangent" not in broken(rule, X)  # one entry, and others
    assert "homogeneous in the cotangent" in broken(rule, X)


def test_an_error_is_measured_relative_to_the_gradient():
    rule = wrong_vjp(jnp.tanh, lambda x, w, g: (g[0] + 1e-3 * jnp.abs(g[0]),))
    found = tried(rule, X)["homogeneous in the cotangent"]
    # 2|g| 1e-3 + 2|g| 1e-3 over 2|g|.
    np.testing.assert_allclose(found.error, 2e-3, rtol=0.01)
    assert found.bar < 1e-10
    assert found.leaf == "args[0]"


@pytest.mark.slow
def test_rounding_the_cotangent_to_bfloat16_is_no_broken_law_but_rounding():
    def rounded(x, w, g):
        return (g[0].astype(jnp.bfloat16).astype(g[0].dtype),)

    found = tried(wrong_vjp(jnp.tanh, rounded), X)
    assert all(i.holds for i in found.values())
    assert found["constant cotangent"].error > 1e-4


@pytest.mark.slow
def test_a_forward_pass_with_another_value_is_named():
    rule = jax.custom_vjp(lambda x: jnp.tanh(x))
    rule.defvjp(
        lambda x: (1.001 * jnp.tanh(x), x), lambda x, w: (w * (1 - jnp.tanh(x) ** 2),)
    )
    assert broken(rule, X) == {"value of the VJP"}
    rule = jax.custom_jvp(lambda x: jnp.tanh(x))
    rule.defjvp(lambda x, v: (1.001 * jnp.tanh(*x), v[0] * (1 - jnp.tanh(*x) ** 2)))
    assert broken(rule, X) == {"value of the VJP", "value of the JVP"}


@pytest.mark.slow
def test_a_solver_that_is_wrongly_called_symmetric_has_no_adjoint():
    matrix = normal(0, 4, 4) + 4 * np.eye(4, dtype=np.float32)

    def solve(b, symmetric):
        a = jnp.asarray(matrix, b.dtype)
        direct = lambda _, y: jnp.linalg.solve(a, y)  # noqa: E731
        transposed = lambda _, y: jnp.linalg.solve(a.T, y)  # noqa: E731
        return jax.lax.custom_linear_solve(
            lambda x: a @ x, b, direct, direct if symmetric else transposed
        )

    assert not broken(functools.partial(solve, symmetric=False), X[:4])
    assert broken(lambda b: solve(b, symmetric=True), X[:4]) == {"adjoint of the JVP"}


def test_a_jvp_that_is_not_linear_is_named():
    rule = jax.custom_jvp(lambda x: jnp.tanh(x))
    rule.defjvp(lambda x, v: (jnp.tanh(*x), jnp.abs(v[0])))
    laws = broken(rule, X, modes=("forward",))
    assert laws == {"homogeneous in the tangent", "constant tangent"}


@pytest.mark.slow
def test_a_gradient_that_needs_the_other_argument_to_be_differentiated_is_named():
    rule = jax.custom_vjp(lambda x, y: x * y)

    def forward(x, y):
        both = x.perturbed and y.perturbed
        return x.value * y.value, (x.value, y.value, both)

    def backward(kept, w):
        x, y, both = kept
        return w * y, w * x * (1 if both else 0.5)

    rule.defvjp(forward, backward, symbolic_zeros=True)
    # The unhashable flag must not be an array: it is one only if traced.
    found = tried(rule, X, X + 1)
    assert {n for n, i in found.items() if not i.holds} == {"arguments alone"}
    assert found["arguments alone"].leaf == "args[1]"


@pytest.mark.slow
def test_an_output_whose_cotangent_is_a_symbolic_zero_is_not_forgotten():
    rule = jax.custom_jvp(lambda x: (jnp.sin(x), jnp.cos(x)))
    rule.defjvp(
        lambda x, v: (
            (jnp.sin(*x), jnp.cos(*x)),
            (v[0] * jnp.cos(*x), -v[0] * jnp.sin(*x)),
        )
    )
    assert not broken(rule, X)
    assert "outputs alone" in tried(rule, X)


def test_one_array_in_place_of_two_gives_the_sum_of_both_gradients():
    def halved_if_same(x, y):
        factor = 0.5 if x is y else 1.0
        product = wrong_vjp(
            jnp.multiply, lambda _, w, g: (factor * g[0], factor * g[1])
        )
        return product(x, y)

    found = tried(halved_if_same, X, X + 1)
    assert {n for n, i in found.items() if not i.holds} == {
        "one array for two arguments"
    }
    assert "args[0], args[1]" in found["one array for two arguments"].leaf
    assert not broken(jnp.multiply, X, X + 1)


def test_a_rule_that_is_wrong_at_every_second_call_is_named():
    calls = []

    def wrong(x, w, g):
        calls.append(x)
        return (g[0] * (1 + len(calls) % 2),)

    assert "traced again" in broken(wrong_vjp(jnp.tanh, wrong), X)


def test_a_rule_that_keeps_its_residual_in_a_shared_place_is_named():
    kept = {}
    rule = jax.custom_vjp(lambda x: jnp.tanh(x))

    def forward(x):
        kept["x"] = x
        return jnp.tanh(x), None

    rule.defvjp(forward, lambda _, w: (w * (1 - jnp.tanh(kept["x"]) ** 2),))
    assert broken(rule, X) == {"calls that overlap"}


@pytest.mark.slow
def test_a_rule_with_a_memory_at_run_time_is_named():
    calls = []

    def gradient(x, w):
        calls.append(x)
        return np.asarray(w * (1 - np.tanh(x) ** 2) * (1 + (len(calls) > 5)))

    def on_the_host(x, w):
        return jax.pure_callback(gradient, jax.ShapeDtypeStruct(x.shape, x.dtype), x, w)

    rule = wrong_vjp(jnp.tanh, lambda x, w, g: (on_the_host(x[0], w),))
    assert "repeated calls" in broken(rule, X)


@pytest.mark.slow
def test_a_random_function_is_not_accused_of_a_wrong_rule():
    rng = np.random.default_rng(0)
    assert not broken(lambda x: x * rng.uniform(), X)

    def noisy(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        noise = lambda: rng.uniform(size=x.shape).astype(x.dtype)  # noqa: E731
        return x * jax.pure_callback(noise, shape)

    assert not broken(noisy, X)


def test_only_one_mode_is_asked_of_a_function_that_has_one():
    reverse = tried(wrong_vjp(jnp.tanh, lambda x, w, g: g), X)
    assert not any("tangent" in n.replace("cotangent", "") for n in reverse)
    forward = tried(jnp.tanh, X, modes=("forward",))
    assert not any("cotangent" in name for name in forward)


@pytest.mark.slow
def test_many_arguments_are_tried_in_two_halves():
    found = tried(lambda *xs: sum(jnp.sin(x) for x in xs), *[X[:2]] * 5)
    assert found["arguments alone"].holds


def test_the_same_seed_tries_the_same():
    assert tried(jnp.sin, X, seed=1) == tried(jnp.sin, X, seed=1)
