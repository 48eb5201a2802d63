"""A last block that is not full is met along every axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal, quick, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.subject.arguments import of_other_shapes

pytestmark = pytest.mark.cases


def blocked(axis, size):
    """The sine, with a rule that forgets what does not fill a block."""

    def backward(args, w):
        d = jnp.moveaxis(w * jnp.cos(args[0]), axis, 0)
        whole = len(d) // size * size
        return (jnp.moveaxis(d.at[whole:].set(0), 0, axis),)

    return with_vjp(jnp.sin, backward)


@pytest.mark.parametrize(
    ("shape", "axis", "size"),
    [
        pytest.param((8, 8), 0, 4, marks=pytest.mark.slow),
        ((8, 16), 0, 4),
        ((16, 8), 1, 8),
        pytest.param((12, 64), 0, 6, marks=pytest.mark.slow),
        ((9, 4), 0, 3),
        pytest.param((64, 128), 0, 16, marks=pytest.mark.slow),
        pytest.param((2, 8, 16), 1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_rule_that_forgets_the_last_block_of_any_axis_fails(shape, axis, size):
    result = quick(blocked(axis, size), normal(0, *shape))
    assert result.verdict is Verdict.FAIL, str(result)


def test_a_rule_that_falls_back_where_another_axis_is_odd_fails():
    def backward(args, w):
        d = w * jnp.cos(args[0])
        rows = d.shape[0] if d.shape[1] % 8 else d.shape[0] // 4 * 4
        return (d.at[rows:].set(0),)

    result = quick(with_vjp(jnp.sin, backward), normal(0, 8, 16))
    assert result.verdict is Verdict.FAIL, str(result)


def test_a_shape_for_which_f_is_not_defined_hides_no_other():
    def heads(x):
        return jnp.sin(x.reshape(x.shape[0], 4, -1)).reshape(x.shape)

    def backward(args, w):
        whole = len(w) // 4 * 4
        return ((w * jnp.cos(args[0])).at[whole:].set(0),)

    result = quick(with_vjp(heads, backward), normal(0, 8, 16))
    assert result.verdict is Verdict.FAIL, str(result)
    assert "not defined" in dict(result.moved).values()


def test_a_bias_beside_the_rows_is_summed_over_all_of_them():
    def backward(args, w):
        return w, w[: len(w) // 4 * 4].sum(0)

    rule = with_vjp(lambda x, b: x + b[None], backward)
    result = quick(rule, normal(0, 8, 16), normal(0, 16))
    assert result.verdict is Verdict.FAIL, str(result)


def test_a_rule_for_every_shape_passes():
    right = with_vjp(jnp.sin, lambda args, w: (w * jnp.cos(args[0]),))
    result = quick(right, normal(0, 8, 12))
    assert result.verdict is Verdict.PASS, str(result)
    shapes = [where for where, _ in result.moved if "entries" in where]
    assert len([where for where in shapes if "odd number" in where]) == 2


def test_every_size_with_divisors_is_shortened_wherever_it_occurs():
    args = normal(0, 8, 5), np.arange(8), {"w": normal(0, 9, 12)}, 3, jax.random.key(0)
    shapes = {}
    for size, (x, ids, params, number, _) in of_other_shapes(args):
        assert number == 3
        shapes[size] = x.shape, ids.shape, params["w"].shape
    assert shapes == {
        12: ((8, 5), (8,), (9, 11)),
        8: ((7, 5), (7,), (9, 12)),
        9: ((8, 5), (8,), (8, 12)),
    }
    assert not of_other_shapes((normal(0, 3, 5), np.arange(8)))
