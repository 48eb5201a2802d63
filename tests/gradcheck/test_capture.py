"""Truth: what rules are called with, against the same loops written out in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.audits.capture import calls_in

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.float32([0.3, 0.6])
YS = np.float32([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])


def rule(name):
    def f(x):
        return 2 * jnp.sin(x)

    f.__name__ = name
    f = jax.custom_jvp(f)
    f.defjvp(lambda x, v: (f(*x), 2 * jnp.cos(x[0]) * v[0]))
    return f


inside, after = rule("inside"), rule("after")


def body(x):
    return 2 * np.sin(x)


def captured(f, *args, moved=None):
    """(path, reached, repeated, operands) of every call."""
    closed = jax.make_jaxpr(f)(*args)
    calls = calls_in(closed, args, moved=moved or [True] * len(args))
    return [
        (c.place.path, c.reached, c.place.repeated, *map(np.asarray, c.operands))
        for c in calls
    ]


def assert_calls(calls, *expected):
    assert [call[:3] for call in calls] == [call[:3] for call in expected]
    for call, truth in zip(calls, expected, strict=True):
        np.testing.assert_allclose(call[3], truth[3], rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_scan_gives_its_first_and_last_operands_and_its_results(length, reverse):
    def f(x, ys):
        c, zs = jax.lax.scan(
            lambda c, y: (inside(c) + y, c * y), x, ys, reverse=reverse
        )
        return after(c), after(zs)

    ys = YS[:length]
    carries, products = [X], []
    for y in ys[::-1] if reverse else ys:
        products.append(carries[-1] * y)
        carries.append(body(carries[-1]) + y)
    ends = [("scan/inside", True, False, carries[0])]
    ends += [("scan/inside", True, True, carries[-2])] * (length > 1)
    stacked = np.stack(products[::-1] if reverse else products)
    assert_calls(
        captured(f, X, ys),
        *ends,
        ("after", True, False, carries[-1]),
        ("after", True, False, stacked),
    )


def test_a_scan_without_iterations_names_its_rules():
    calls = captured(
        lambda x, ys: after(jax.lax.scan(lambda c, y: (inside(c), y), x, ys)[0]),
        X,
        YS[:0],
    )
    assert_calls(calls, ("scan/inside", False, False, 0 * X), ("after", True, False, X))


@pytest.mark.parametrize("bound", [0.0, 1.0, 5.0])
def test_a_while_loop_gives_its_first_and_last_operands_and_its_results(bound):
    def f(x, step):
        return after(
            jax.lax.while_loop(
                lambda c: c[0] < bound, lambda c: c + step + 0 * inside(c), x
            )
        )

    states = [X]
    while states[-1][0] < bound:
        states.append(states[-1] + YS[-1])
    entered = len(states) > 1
    last = states[-2] if entered else 0 * X
    assert_calls(
        captured(f, X, YS[-1]),
        ("while/inside", entered, False, X * entered),
        ("while/inside", entered, True, last),
        ("after", True, False, states[-1]),
    )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_switch_gives_the_operands_of_the_branch_that_is_taken(index):
    branches = (inside, lambda x: after(x) + 1, lambda x: inside(after(x)))

    def f(x):
        return after(jax.lax.switch(index + jnp.int32(x[0] > 5), branches, x))

    taken = [index == 0, index == 1, index == 2, index == 2]
    result = (body(X), body(X) + 1, body(body(X)))[index]
    assert_calls(
        captured(f, X),
        ("cond[0]/inside", taken[0], False, X * taken[0]),
        ("cond[1]/after", taken[1], False, X * taken[1]),
        ("cond[2]/after", taken[2], False, X * taken[2]),
        ("cond[2]/inside", taken[3], False, body(X) * taken[3]),
        ("after", True, False, result),
    )


def test_what_arguments_can_move_is_followed_through_loops_and_branches():
    """Only the first argument moves; constants and integers do not."""

    def f(x, y):
        first = jax.lax.cond(y[0] > 0, inside, jnp.sin, y)  # of y alone: fixed
        c, _ = jax.lax.scan(lambda c, y: (after(c) + y, None), 0 * y, x[None])
        return inside(first) + inside(c) + inside(jax.lax.stop_gradient(x))

    closed = jax.make_jaxpr(f)(X, X)
    calls = calls_in(closed, [X, X], moved=[True, False])
    flags = [(c.place.path, c.place.moved) for c in calls]
    assert flags == [
        ("cond[1]/inside", (False,)),
        ("scan/after", (True,)),
        ("inside", (False,)),
        ("inside", (True,)),
        ("inside", (False,)),
    ]


def test_keys_are_captured_too():
    draw = jax.custom_jvp(lambda key, x: x + jax.random.normal(key, x.shape))
    draw.defjvp(lambda a, v: (draw(*a), v[1]))

    def f(key, x):
        return jax.lax.cond(x[0] > 5, draw, lambda key, x: draw(key, x) + 1, key, x)

    key = jax.random.key(0)
    closed = jax.make_jaxpr(f)(key, X)
    with jax.debug_key_reuse(False):
        calls = calls_in(closed, [key, X], moved=[False, True])
    reached = [call for call in calls if call.reached]
    assert [call.place.path for call in calls] == [
        "cond[0]/<lambda>",
        "cond[1]/<lambda>",
    ]
    assert len(reached) == 1
    assert bool(reached[0].operands[0] == key)
