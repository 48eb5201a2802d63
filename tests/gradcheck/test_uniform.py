"""Rules that are the same program at every size are looked at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal, with_vjp

from gradstab.gradcheck import Verdict, check
from gradstab.gradcheck.subject.longer import longer
from gradstab.gradcheck.subject.problem import problem
from gradstab.gradcheck.subject.uniform import Uniform

pytestmark = pytest.mark.cases


def is_uniform(f, *args):
    sizes = sorted({n for x in args for n in np.shape(x) if n > 3})
    more = longer(args, sizes)
    return Uniform(problem(f, args), f).at(more, {n: n + 1 for n in sizes})


def softmax_rule(args, w):
    y = jax.nn.softmax(args[0])
    return (y * (w - jnp.sum(w * y, -1, keepdims=True)),)


def cosines(args, w):
    return (w * jnp.cos(args[0]),)


ALIKE = {
    "sine": (with_vjp(jnp.sin, cosines), normal(0, 8)),
    "sine of five rows": (with_vjp(jnp.sin, cosines), normal(0, 5, 3)),
    "softmax": (with_vjp(jax.nn.softmax, softmax_rule), normal(0, 6, 8)),
    "product of matrices": (
        with_vjp(jnp.matmul, lambda a, w: (w @ a[1].T, a[0].T @ w)),
        normal(0, 4, 5),
        normal(0, 5, 7),
    ),
    "a size inside of other sizes": (with_vjp(jnp.sin, cosines), normal(0, 18, 8)),
}


@pytest.mark.parametrize("case", ALIKE.values(), ids=ALIKE.keys())
def test_a_rule_that_treats_all_entries_alike_is_the_same_program(case):
    assert is_uniform(*case)


def in_loop(args, w):
    """Whole blocks of four, counted when the rule is written down."""
    (x,) = args

    def body(i, d):
        part = jax.lax.dynamic_slice(w * jnp.cos(x), (4 * i,), (4,))
        return jax.lax.dynamic_update_slice(d, part, (4 * i,))

    return (jax.lax.fori_loop(0, len(w) // 4, body, jnp.zeros_like(w)),)


def masked(args, w):
    (x,) = args
    kept = jnp.arange(len(w)) // 4 < len(w) // 4
    return (w * jnp.cos(x) * kept,)


def masked_before(args, w):
    kept = np.arange(len(w)) // 4 < len(w) // 4
    return (w * jnp.cos(args[0]) * kept,)


def sliced(args, w):
    whole = len(w) // min(8, len(w)) * min(8, len(w))
    d = (w * jnp.cos(args[0]))[:whole]
    return (jnp.pad(d, (0, len(w) - whole)),)


def by_parity(args, w):
    return (w * jnp.cos(args[0]) * (1.0 if len(w) % 2 == 0 else 1.1),)


def of_eight(args, w):
    return (jnp.full_like(args[0], 0.125) * w,)


def in_kernel(args, w):
    from jax.experimental import pallas as pl

    def body(x, w, d):
        d[...] = w[...] * jnp.cos(x[...])

    rows = pl.BlockSpec((4,), lambda i: (i,))
    whole = len(w) // 4 * 4
    made = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((whole,), w.dtype),
        grid=(whole // 4,),
        in_specs=[rows, rows],
        out_specs=rows,
        interpret=True,
    )(args[0][:whole], w[:whole])
    return (jnp.pad(made, (0, len(w) - whole)),)


OTHER = {
    "blocks in a loop": (jnp.sin, in_loop),
    "a mask of blocks": (jnp.sin, masked),
    "a mask made before": (jnp.sin, masked_before),
    "a slice as long as the axis": (jnp.sin, sliced),
    "another factor if odd": (jnp.sin, by_parity),
    "a mean of eight": (jnp.mean, of_eight),
    "blocks of a kernel": (jnp.sin, in_kernel),
}


@pytest.mark.parametrize("case", OTHER.values(), ids=OTHER.keys())
def test_a_rule_of_which_a_size_decides_more_is_another_one_and_fails(case):
    f, backward = case
    rule = with_vjp(f, backward)
    assert not is_uniform(rule, normal(0, 8))
    result = check(rule, normal(0, 8), transformations=False, locate=False)
    assert result.verdict is Verdict.FAIL, str(result)


def test_a_rule_that_is_alike_is_not_evaluated_at_other_shapes():
    look = functools.partial(check, transformations=False)
    (alike, x), other = ALIKE["sine"], with_vjp(jnp.cumsum, _cumsum)
    shapes = [w for w, _ in look(alike, x).moved if "entr" in w and "any" not in w]
    assert shapes == ["with an odd number of entries", "with one entry more"]
    assert look(alike, x).evaluations < look(other, x).evaluations


def _cumsum(args, w):
    return (jnp.cumsum(w[::-1])[::-1],)
