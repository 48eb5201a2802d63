"""A rule that is dropped, or that differs, under a transformation is named with it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck import Verdict, check
from gradstab.gradcheck.laws.transformations import transformations
from gradstab.gradcheck.subject.problem import problem

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).standard_normal(8, np.float32)
MODES = ("forward", "reverse")
FORMS = {
    "jit",
    "remat",
    "shard_map",
    "vmap",
    "vmap of the derivative",
    "scan",
    "eager",
}


def tried(f, *args, seed=0, modes=MODES):
    """All transformations, by name."""
    task = problem(f, args, modes=modes)
    found = transformations(task, task.leaves, np.random.default_rng(seed))
    assert len({i.name for i in found}) == len(found)
    return {i.name: i for i in found}


def broken(f, *args, **options):
    return {name for name, i in tried(f, *args, **options).items() if not i.holds}


def untried(f, *args):
    found = tried(f, *args)
    return {n for n, i in found.items() if i.detail.startswith("not tried")}


def with_rule(f, gradient):
    """f with the gradient ``gradient(x, w)``."""
    rule = jax.custom_vjp(f)
    rule.defvjp(lambda x: (f(x), x), gradient)
    return rule


def tanh_gradient(x, w):
    return (w * (1 - jnp.tanh(x) ** 2),)


def straight_through(x):
    return with_rule(lambda x: jnp.round(x), lambda x, w: (w,))(x)


def narrow(f, dtype):
    return lambda x: f(x.astype(dtype))


def softmax(x):
    def gradient(x, w):
        p = jax.nn.softmax(x)
        return (p * (w - jnp.vdot(p, w)),)

    return with_rule(lambda x: jax.nn.softmax(x), gradient)(x)


def cancelling(x):
    return with_rule(lambda x: jnp.sin((3 * x + 1e6) - 1e6), tanh_gradient)(x)


def ties(x):  # the two are equal but for rounding, which is not the same everywhere
    halves = jnp.stack([jnp.sin(x) ** 2 + jnp.cos(x) ** 2, jnp.ones_like(x)])
    return jax.nn.relu(halves[0] - halves[1]) * x


QUICK = {"rule", "relu at its kink"}

RIGHT = {
    "rule": (with_rule(jnp.tanh, tanh_gradient), X),
    "relu at its kink": (jax.nn.relu, np.zeros(4, np.float32)),
    "softmax in float32": (narrow(softmax, jnp.float32), X),
    "gelu in bfloat16": (
        narrow(
            lambda x: jax.nn.gelu(with_rule(jnp.tanh, tanh_gradient)(x)), "bfloat16"
        ),
        X,
    ),
    "straight-through": (straight_through, 3 * X),
    "cancellation": (narrow(cancelling, jnp.float32), X),
    "ties": (narrow(ties, jnp.float32), X),
    "not finite beside": (
        lambda x: jnp.arcsin(with_rule(lambda x: 1.0 * x, lambda x, w: (w,))(x)),
        np.float32([0.999999, 0.5]),
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, case in RIGHT.items()
    ],
)
def test_a_right_rule_is_the_same_under_all_transformations(case):
    found = tried(*case)
    assert not [i for i in found.values() if not i.holds]
    assert found.keys() == FORMS


def test_nothing_is_done_without_a_rule_that_could_be_dropped():
    (only,) = tried(jnp.sin, X).values()
    assert only.holds
    assert "no rule or kernel" in only.detail


PLACES = {
    "remat": "ad_checkpoint.py",
    "shard_map": "shard_map.py",
    "scan": "loops.py",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_a_rule_that_is_dropped_when_traced_for_a_transformation_is_named(name):
    exact = with_rule(jnp.tanh, tanh_gradient)
    dropping = with_rule(jnp.tanh, lambda x, w: (0 * w,))

    def f(x):
        inside = any(frame.filename.endswith(PLACES[name]) for frame in inspect.stack())
        return (dropping if inside else exact)(x)

    assert broken(f, X) == {name}


@pytest.mark.slow
def test_a_rule_that_is_dropped_under_jit_is_named():
    def gradient(x, w):
        return (w / 2,) if isinstance(w, jax.core.Tracer) else tanh_gradient(x, w)

    # All forms but the eager one are traced, and agree with each other.
    assert broken(with_rule(jnp.tanh, gradient), X) == {"eager"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen", [slice(0, 1), slice(-1, None)], ids=["first", "last"]
)
def test_a_batching_rule_that_takes_one_example_for_all_is_named(chosen):
    slope = jax.custom_batching.custom_vmap(lambda x, w: w * (1 - jnp.tanh(x) ** 2))

    @slope.def_vmap
    def _(size, batched, x, w):
        return w * (1 - jnp.tanh(x[chosen]) ** 2), True

    rule = with_rule(jnp.tanh, lambda x, w: (slope(x, w),))
    assert broken(rule, X) == {"vmap", "vmap of the derivative"}


@pytest.mark.slow
def test_a_batching_rule_that_forgets_who_is_shared_is_named():
    """Gradients of single examples, with parameters that all of them share."""

    @jax.custom_batching.custom_vmap
    def product(x, w):
        return x * w

    @product.def_vmap
    def _(size, batched, x, w):
        if all(batched):
            return x * w, True
        return x[None] * w / size, True  # takes the shared one's part for a mean

    def f(args):
        def gradient(a, w):
            return ((product(a[1], w), product(a[0], w)),)

        return with_rule(lambda a: a[0] * a[1], gradient)(args)

    task = problem(f, ((X, X[::-1].copy()),), modes=("reverse",))
    found = transformations(task, task.leaves, np.random.default_rng(0))
    assert [i.name for i in found if not i.holds] == ["vmap over some arguments"]


def test_all_forms_are_tried_of_a_function_of_two_arguments():
    def f(args):
        return with_rule(lambda a: a[0] * a[1], lambda a, w: ((a[1] * w, a[0] * w),))(
            args
        )

    found = tried(f, (X, X[::-1].copy()))
    assert found.keys() == FORMS | {"vmap over some arguments"}
    assert all(i.holds for i in found.values())


@pytest.mark.slow
def test_a_form_is_judged_at_the_point_alone_if_there_is_no_f_beside():
    def gradient(x, w):
        return (w / 2 if isinstance(w, jax.core.Tracer) else w,)

    def f(x):  # not defined above one
        defined = jnp.where(jnp.any(x > 1), jnp.nan, 1.0)
        return with_rule(lambda x: 1.0 * x, gradient)(x) * defined

    assert broken(f, np.ones(8, np.float32)) == {"eager"}


@pytest.mark.slow
def test_a_kernel_that_mixes_the_examples_of_a_batch_is_named():
    def normalised(x):
        return np.asarray(x / np.sum(np.abs(x)), x.dtype)

    def f(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        y = jax.pure_callback(
            normalised, shape, jax.lax.stop_gradient(x), vmap_method="expand_dims"
        )
        return x * y

    assert broken(f, X) == {"vmap", "vmap of the derivative"}


@pytest.mark.slow
def test_code_that_cannot_be_mapped_is_no_wrong_rule():
    def f(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        scale = jax.pure_callback(np.tanh, shape, jax.lax.stop_gradient(x))
        return x * scale

    assert untried(f, X) == {"vmap", "vmap of the derivative"}
    assert not broken(f, X)


@pytest.mark.slow
def test_a_function_of_many_kinds_of_operations_is_not_called_eagerly():
    def f(x):
        for _ in range(20):
            x = jnp.concatenate([jnp.sin(x), x[:1]])
        return with_rule(jnp.tanh, tanh_gradient)(x)

    assert untried(f, X) == {"eager"}


@pytest.mark.slow
def test_a_rule_with_a_memory_is_named_when_called_again():
    calls = []

    def gradient(x, w):
        calls.extend([x] * (not isinstance(w, jax.core.Tracer)))
        (right,) = tanh_gradient(x, w)
        return (right * (2 if len(calls) > 1 else 1),)

    assert broken(with_rule(jnp.tanh, gradient), X) == {"eager"}


@pytest.mark.slow
def test_a_wrong_derivative_in_forward_mode_is_named():
    rule = jax.custom_jvp(lambda x: jnp.tanh(x))

    @rule.defjvp
    def _(x, v):
        inside = any(frame.filename.endswith("loops.py") for frame in inspect.stack())
        return jnp.tanh(*x), v[0] * (1 - jnp.tanh(*x) ** 2) * (2 if inside else 1)

    assert broken(rule, X, modes=("forward",)) == {"scan"}


def test_an_error_is_measured_and_placed():
    def f(x, y):
        inside = any(frame.filename.endswith("loops.py") for frame in inspect.stack())
        factor = 1.001 if inside else 1.0
        return x * with_rule(jnp.tanh, lambda y, w: (factor * w,))(y)

    found = tried(f, X, X)["scan"]
    assert found.leaf == "args[1]"
    np.testing.assert_allclose(found.error, 1e-3, rtol=1e-6)


@pytest.mark.slow
def test_random_functions_are_not_accused():
    rng = np.random.default_rng(0)
    exact = with_rule(jnp.tanh, tanh_gradient)
    assert not broken(lambda x: exact(x) * rng.uniform(), X)

    def noisy(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        noise = lambda: rng.uniform(size=x.shape).astype(x.dtype)  # noqa: E731
        return x * jax.pure_callback(noise, shape)

    assert not broken(noisy, X)


def mapped_to(result):
    """The sine, with a batching rule that gives what it should not."""
    sine = jax.custom_batching.custom_vmap(jnp.sin)
    sine.def_vmap(lambda size, batched, x: (result(jnp.sin(x)), True))
    return sine


MISSHAPEN = {
    "summed": lambda y: y.sum(0),
    "one of them": lambda y: y[:1],
    "one axis more": lambda y: y[..., None],
    "transposed": lambda y: y.T,
    "integers": lambda y: y.astype(jnp.int32),
}


@pytest.mark.parametrize(
    "with_rule", [True, pytest.param(False, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("result", MISSHAPEN.values(), ids=MISSHAPEN.keys())
def test_a_batching_rule_that_gives_another_shape_fails(result, with_rule):
    f = sine = mapped_to(result)
    if with_rule:
        f = jax.custom_vjp(sine)
        f.defvjp(lambda x: (sine(x), x), lambda x, w: (w * jnp.cos(x),))
    found = check(f, np.float32([0.3, -1.0, 2.0, 0.7]), locate=False)
    assert found.verdict is Verdict.FAIL, str(found)
    assert "broken law: vmap: f gives" in found.reason
    assert any("one point at a time" in note for note in found.notes)


def test_a_batching_rule_that_gives_one_result_for_every_point_passes():
    found = check(mapped_to(lambda y: y), np.float32([0.3, -1.0, 2.0, 0.7]))
    assert found.verdict is Verdict.PASS, str(found)
