"""Where f is cut off it stands still, and so must its rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import with_vjp

from gradstab.gradcheck import Verdict, check

pytestmark = pytest.mark.cases

POSITIVE = np.float32([0.6, 1.7, 0.9, 2.3])


def cut(x):
    return jnp.clip(x, -3, 3)


def naive_softplus(x):
    return jnp.log(1 + jnp.exp(x))


def below_one(x):
    return jnp.log(jnp.maximum(x, 0.1))


def cube_root(x):
    """The solution of y^3 = x by bisection, at most 4."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        return jax.lax.cond(
            middle**3 < x, lambda: (middle, high), lambda: (low, middle)
        )

    return jax.lax.fori_loop(0, 60, halve, (0 * x, 0 * x + 4))[0]


@jax.custom_jvp
def forward(x):
    return jnp.minimum(x, 5)


forward.defjvp(lambda point, tangents: (forward(*point), tangents[0]))

WRONG = {
    "no mask": (with_vjp(cut, lambda _, w: (w,)), POSITIVE, "16 times as large"),
    "half of a mask": (
        with_vjp(jax.nn.relu6, lambda a, w: (w * (a[0] > 0),)),
        POSITIVE,
        "16 times as large",
    ),
    "a leak": (
        with_vjp(jax.nn.relu, lambda a, w: (w * jnp.where(a[0] > 0, 1, 0.1),)),
        POSITIVE,
        "with signs changed",
    ),
    "a number": (
        with_vjp(jax.nn.relu, lambda _, w: (w,)),
        np.float32(0.5),
        "with signs changed",
    ),
    "not finite": (
        with_vjp(
            lambda x: jnp.sqrt(jnp.maximum(x, 0)) ** 2,
            lambda a, w: (w * jnp.sqrt(a[0]) / jnp.sqrt(a[0]),),
        ),
        POSITIVE,
        "with signs changed",
    ),
    "forward": (forward, POSITIVE, "16 times as large"),
    "below a floor": (
        with_vjp(below_one, lambda a, w: (w / a[0],)),
        POSITIVE,
        "with signs changed",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_rule_that_moves_where_f_stands_still_fails(case):
    f, x, where = case
    result = check(f, x, transformations=False)
    assert result.verdict is Verdict.FAIL, str(result)
    assert dict(result.moved)[where] == "wrong"
    assert result.locations[0].expected == 0
    assert check(f, x, transformations=False, at="given").verdict is Verdict.PASS


RIGHT = {
    "a mask": with_vjp(cut, lambda a, w: (w * (jnp.abs(a[0]) <= 3),)),
    "underflow": with_vjp(naive_softplus, lambda a, w: (w * jax.nn.sigmoid(a[0]),)),
    "a floor": with_vjp(below_one, lambda a, w: (jnp.where(a[0] > 0.1, w / a[0], 0),)),
    "a bracket": lambda x: jax.vmap(
        with_vjp(cube_root, lambda a, w: (w / (3 * cube_root(*a) ** 2),))
    )(x),
    "saturation": jnp.tanh,
    "a dead unit": lambda x: jnp.sum(jax.nn.relu(x - 0.5)),
}


@pytest.mark.parametrize("f", RIGHT.values(), ids=RIGHT.keys())
def test_a_rule_that_stands_still_with_f_passes(f):
    result = check(f, POSITIVE, transformations=False)
    assert result.verdict is Verdict.PASS, str(result)


def test_what_moves_in_stairs_at_the_point_given_is_not_accused():
    rounded = with_vjp(lambda x: jnp.round(4 * x) / 4, lambda _, w: (w,))
    result = check(rounded, POSITIVE, transformations=False)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("expect=" in note for note in result.notes)
