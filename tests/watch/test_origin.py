"""The line is named in which numbers stop being finite."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from gradstab.watch.origin import find_origin


def line_of(function, words):
    """``file:line (function)`` of the line of a function that holds the words."""
    lines, first = inspect.getsourcelines(function)
    (number,) = [i for i, line in enumerate(lines) if words in line]
    return (
        f"{inspect.getsourcefile(function)}:{first + number} ({function.__qualname__})"
    )


def broken(x):
    x = jnp.tanh(x)
    x = jnp.log(x)  # NaN for what is negative
    return jnp.sum(x * 2)


def masked(x):
    scores = jnp.where(jnp.arange(3) < 2, x, -jnp.inf)
    aside = jnp.where(x > 0, jnp.log(x), 0.0)  # what is not finite is not chosen
    return jnp.sum(jax.nn.softmax(scores) * aside)


def slope(x):
    return jnp.sum(jnp.sqrt(x * x))  # 0 times infinity at 0


def test_the_first_operation_is_named_with_its_line():
    origin = find_origin(broken, jnp.array([0.5, -0.5, 1.0]))
    assert origin.operation == "log"
    assert origin.source == line_of(broken, "jnp.log")
    assert origin.source in str(origin)


def test_what_does_not_reach_a_result_is_not_accused():
    assert find_origin(masked, jnp.array([0.5, -0.5, 1.0])) is None


def test_a_gradient_that_is_not_finite_is_named_by_the_line_of_its_function():
    assert find_origin(slope, jnp.zeros(3)) is None
    origin = find_origin(jax.grad(slope), jnp.array([0.0, 1.0, 2.0]))
    assert origin.source == line_of(slope, "jnp.sqrt")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint, jax.jit])
def test_the_iteration_of_a_loop_is_named(reverse, wrap):
    def body(h, w):
        h = wrap(inner)(h, w)
        return h, None

    def inner(h, w):
        return jnp.sqrt(h * w)

    def loss(ws, x):
        return jnp.sum(jax.lax.scan(body, x, ws, reverse=reverse)[0])

    ws = jnp.ones(5).at[3].set(-1.0)
    origin = find_origin(loss, ws, jnp.ones(2))
    assert origin.operation == "sqrt"
    assert origin.steps == ((1,) if reverse else (3,))
    assert origin.source == line_of(inner, "jnp.sqrt")


def test_what_is_handed_in_is_told_apart():
    origin = find_origin(broken, jnp.array([0.5, jnp.nan, 1.0]))
    assert origin.given
    assert str(origin) == "what is handed in is not finite"
