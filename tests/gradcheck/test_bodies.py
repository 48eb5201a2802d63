import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from gradstab.gradcheck.subject import bodies

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.float32([0.3, 0.6, 1.0])
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
SHARDED = {"in_specs": jax.P("i"), "out_specs": jax.P("i"), "mesh": MESH}


def body(x):
    return jnp.sin(x) * x


def with_jvp():
    """The body with a rule that says: no derivative."""
    rule = jax.custom_jvp(body)
    rule.defjvp(lambda x, v: (body(*x), 0 * v[0]))
    return rule


def with_vjp():
    """The same, for reverse mode."""
    rule = jax.custom_vjp(body)
    rule.defvjp(lambda x: (body(x), None), lambda _, w: (0 * w,))
    return rule


# A program as a function of the operation that is called in it.
PROGRAMS = {
    "jit": lambda f: jax.jit(lambda x: f(x) + x),
    "vmap of remat": lambda f: jax.vmap(jax.checkpoint(lambda x: jnp.exp(f(x)))),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, y: (f(c) + y, c), x, x[:, None]),
    "fori": lambda f: lambda x: jax.lax.fori_loop(0, 3, lambda _, c: f(c), x),
    "shard_map": lambda f: jax.shard_map(
        lambda x: f(x) * jax.lax.psum(f(x), "i"), **SHARDED
    ),
    "cond in scan": lambda f: (
        lambda x: jax.lax.scan(
            lambda c, _: (jax.lax.cond(c[0] > 0, jax.jit(f), jnp.cos, c), None),
            x,
            None,
            2,
        )
    ),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
@pytest.mark.parametrize("rule", [with_jvp(), with_vjp()], ids=["jvp", "vjp"])
def test_a_program_without_its_rules_is_that_of_the_bodies(program, rule):
    """Truth: the same program, written with the body in the place of the rule."""

    def total(f, x):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(program(f)(x)))

    plain = bodies.without_rules(lambda x: total(rule, x))
    truth = jax.jit(jax.value_and_grad(lambda x: total(body, x)))(X)
    value, gradient = jax.jit(jax.value_and_grad(plain))(X)
    # The same arithmetic in another order: a few roundings of float32.
    np.testing.assert_allclose(value, truth[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, truth[1], rtol=1e-5)


def test_rules_in_a_while_loop_are_replaced_in_forward_mode():
    def program(f, x):
        return jax.lax.while_loop(lambda c: jnp.sum(c) > 0.5, f, x)

    plain = bodies.without_rules(lambda x: program(with_jvp(), x))
    got, truth = (jax.jvp(f, (X,), (X,)) for f in (plain, lambda x: program(body, x)))
    np.testing.assert_allclose(got, truth, rtol=1e-6)


def test_rules_inside_of_rules_are_replaced():
    inner = with_jvp()
    outer = jax.custom_vjp(lambda x: inner(2 * x))
    outer.defvjp(lambda x: (inner(2 * x), None), lambda _, w: (0 * w,))
    truth = jax.jacrev(lambda x: body(2 * x))(X)
    np.testing.assert_allclose(jax.jacrev(bodies.without_rules(outer))(X), truth)


@pytest.mark.slow
def test_a_program_without_rules_survives_vmap_and_second_derivatives():
    plain, rule = bodies.without_rules(with_jvp()), jnp.vectorize(body)
    stack = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(plain)(stack), rule(stack), rtol=1e-6)
    truth = jax.jacfwd(jax.jacrev(body))(X)
    np.testing.assert_allclose(jax.jacfwd(jax.jacrev(plain))(X), truth, rtol=1e-6)


def test_arguments_that_are_no_arrays_are_passed_on():
    def f(x, name, *, power, scale=None):
        assert name == "cube"
        assert scale is None
        return {"y": with_vjp()(x["x"]) ** power, "none": None}

    plain = bodies.without_rules(f)
    truth = jax.grad(lambda x: jnp.sum(body(x) ** 3))(X)
    got = jax.grad(lambda x: jnp.sum(plain({"x": x}, "cube", power=3)["y"]))(X)
    np.testing.assert_allclose(got, truth, rtol=1e-6)


def test_constants_that_are_being_differentiated_stay_so():
    def f(a):
        return jnp.sum(bodies.without_rules(lambda x: with_jvp()(x) * a)(X))

    np.testing.assert_allclose(jax.grad(f)(2.0), np.sum(body(X)), rtol=1e-6)


def test_rules_are_named_wherever_they_are():
    def f(x):
        y, _ = jax.lax.scan(lambda c, _: (with_vjp()(c), None), x, None, 2)
        return jax.jit(jax.nn.relu)(y) + jax.nn.relu(x)

    assert bodies.rules_in(f, X) == ("body", "relu")
    assert bodies.rules_in(jnp.sin, X) == ()


def test_rules_inside_of_a_kernel_do_not_count():
    """No derivative looks into a kernel: that of the call is not defined at all."""

    def kernel(x_ref, y_ref):
        y_ref[...] = jax.nn.relu(x_ref[...])

    def f(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, out_shape=shape, interpret=True)(x)

    assert bodies.rules_in(f, X) == ()
    np.testing.assert_array_equal(bodies.without_rules(f)(X - 0.5), f(X - 0.5))


def endless(x):
    return jax.lax.while_loop(lambda c: jnp.sum(c) > 0.5, jnp.sin, x)


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


REFUSED = {
    "a while loop": (endless, "reverse", "while_loop"),
    "a callback": (callback, "reverse", "JVP"),
    "a callback, forward": (callback, "forward", "JVP"),
    "the JVP of a custom_vjp": (with_vjp(), "forward", "custom_vjp"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_differentiated_is_refused_with_the_reason(case):
    f, mode, words = case
    assert words in bodies.refusal(f, (X,), modes=(mode,))
    if f is endless:
        assert not bodies.refusal(f, (X,), modes=("forward",))


def test_what_can_be_differentiated_is_not_refused():
    assert not bodies.refusal(body, (X,), modes=("forward", "reverse"))
