"""Blocks as long as an axis, rules that raise elsewhere, arguments of a fixed size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, normal, quick, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.subject.longer import longer, with_gaps

pytestmark = pytest.mark.cases


def blocked(size, axis=0, *, lost=True):
    """The sine, with a rule that goes through blocks of that size, or of all there are.

    ``lost`` says whether it forgets what does not fill a block.
    """

    def backward(args, w):
        d = jnp.moveaxis(w * jnp.cos(args[0]), axis, 0)
        block = min(size, len(d))
        whole = len(d) // block * block if lost else len(d)
        return (jnp.moveaxis(d.at[whole:].set(0), 0, axis),)

    return with_vjp(jnp.sin, backward)


def cosines(args, w):
    return (w * jnp.cos(args[0]),)


def bias(lost):
    """A bias beside rows, whose gradient is summed over blocks of five of them."""

    def backward(args, w):
        rows = len(w) // 5 * 5 if lost else len(w)
        return w, w[:rows].sum(0)

    return with_vjp(lambda x, b: x + b[None], backward)


def looked_up(lost):
    """Rows of a table, whose gradient is summed over blocks of seven indices."""

    def backward(args, w):
        table, ids = args
        many = len(ids) // 7 * 7 if lost else len(ids)
        d = jnp.zeros_like(table).at[ids[:many]].add(w[:many])
        return d, np.zeros(ids.shape, jax.dtypes.float0)

    return with_vjp(lambda table, ids: table[ids], backward)


def products(lost):
    """A product of matrices, summed over blocks of five rows in one cotangent."""

    def backward(args, w):
        x, y = args
        rows = len(x) // 5 * 5 if lost else len(x)
        return w @ y.T, x[:rows].T @ w[:rows]

    return with_vjp(jnp.matmul, backward)


def blocks(*, lost):
    return {
        "seven": (blocked(7, lost=lost), normal(0, 7)),
        "five rows": (blocked(5, lost=lost), normal(0, 5, 2)),
        "eleven columns": (blocked(11, 1, lost=lost), normal(0, 3, 11)),
        "no more than there are": (blocked(8, lost=lost), normal(0, 8, 3)),
        "all of both": (blocked(6, 1, lost=lost), normal(0, 4, 6)),
        "rows of a bias": (bias(lost), normal(0, 5, 3), normal(0, 3)),
        "indices": (looked_up(lost), normal(0, 9, 2), np.arange(7)),
        "rows of a product": (products(lost), normal(0, 5, 7), normal(0, 7, 3)),
    }


@pytest.mark.parametrize(
    "case", mostly_slow(blocks(lost=True), "seven", "no more than there are", "indices")
)
def test_a_rule_that_forgets_what_is_beyond_one_full_block_fails(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)


@pytest.mark.parametrize("case", mostly_slow(blocks(lost=False), "seven", "indices"))
def test_a_rule_for_any_number_of_blocks_passes(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)
    assert "with one entry more" in " ".join(where for where, _ in result.moved)


def in_fours(args, w):
    d = w * jnp.cos(args[0])
    return (d.reshape(4, -1).reshape(d.shape),)


def refusing(args, w):
    if len(w) % 2:
        raise RuntimeError("an even number is needed")
    return (w * jnp.cos(args[0]),)


def forward_in_twos(primals, tangents):
    ((x,), (v,)) = primals, tangents
    return jnp.sin(x), (v.reshape(-1, 2) * jnp.cos(x).reshape(-1, 2)).reshape(x.shape)


def with_jvp(f, rule):
    made = jax.custom_jvp(f)
    made.defjvp(rule)
    return made


RAISING = {
    "a cotangent in fours": (with_vjp(jnp.sin, in_fours), TypeError, "an odd number"),
    "an error of its own": (with_vjp(jnp.sin, refusing), RuntimeError, "an odd number"),
    "a tangent in twos": (with_jvp(jnp.sin, forward_in_twos), TypeError, "an odd"),
}


@pytest.mark.parametrize("case", mostly_slow(RAISING, "a cotangent in fours"))
def test_a_rule_that_raises_where_f_is_defined_is_no_right_one(case):
    f, error, where = case
    result = quick(f, normal(0, 8))
    assert result.verdict is Verdict.INCONCLUSIVE, str(result)
    assert error.__name__ in result.reason
    assert where in result.reason
    assert "undecided" in dict(result.moved).values()
    assert quick(f, normal(0, 8), at="given").verdict is Verdict.PASS


def of_eight(args, w):
    return (jnp.zeros(8, w.dtype).at[args[1]].add(w), None)


def test_a_rule_that_was_written_for_the_size_given_has_a_note():
    f = with_vjp(lambda x, ids: x[ids], of_eight)
    result = quick(f, normal(0, 8), np.arange(8)[::-1].copy())
    assert result.verdict is Verdict.PASS, str(result)
    assert any("rule raises ValueError" in note for note in result.notes)


def halves(x):
    return x.reshape(2, -1).sum(0)


def rotated(q, v):
    """A vector turned by a quaternion, whose entries are taken by number."""
    w, u = q[0], jnp.stack([q[1], q[2], q[3]])
    return v + 2 * w * jnp.cross(u, v) + 2 * jnp.cross(u, jnp.cross(u, v))


def of_four(args, w):
    (q, v) = args
    columns = jax.jacfwd(rotated, (0, 1))(q, v)
    d = w @ columns[0]
    return jnp.stack([d[0], d[1], d[2], d[3]]), w @ columns[1]


def response(p):
    """A curve of five parameters."""
    x = jnp.linspace(0.1, 2, 6, dtype=p.dtype)
    return p[0] + p[1] * jnp.sin(p[2] * x + p[3]) + p[4] * x


def of_five(args, w):
    d = jax.jacfwd(response)(args[0])
    return (jnp.stack([w @ d[:, i] for i in range(5)]),)


def permuted(x):
    return x[np.array([3, 1, 0, 5, 4, 2])]


def put_back(args, w):
    return (w[np.argsort(np.array([3, 1, 0, 5, 4, 2]))],)


FIXED = {
    "f raises too": (
        with_vjp(halves, lambda args, w: (jnp.tile(w, 2),)),
        normal(0, 8),
    ),
    "a quaternion": (with_vjp(rotated, of_four), normal(0, 4), normal(0, 3)),
    "five parameters": (with_vjp(response, of_five), np.abs(normal(0, 5)) + 1),
    "a permutation": (with_vjp(permuted, put_back), normal(0, 6)),
}


@pytest.mark.parametrize("case", mostly_slow(FIXED, "a quaternion", "a permutation"))
def test_a_function_of_a_fixed_number_of_entries_passes(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)
    assert not any("raises" in note for note in result.notes)


def short(lost):
    """Blocks of two and three entries, alone and beside longer axes."""
    blocks = functools.partial(blocked, lost=lost)

    def mean(args, w):
        (x,) = args
        return (2 * x * w[None] / (3 if lost else len(x)),)

    def binary(args, w):
        p = jax.nn.softmax(args[0])
        if lost:
            return (p * (1 - p) * (w - w[..., ::-1]),)
        return (p * (w - (p * w).sum(-1, keepdims=True)),)

    return {
        "a pair": (blocks(2), normal(0, 2)),
        "two rows": (blocks(2), normal(0, 2, 7)),
        "three columns": (blocks(3, 1), normal(0, 4, 3)),
        "a mean of three": (
            with_vjp(lambda x: jnp.mean(x**2, 0), mean),
            normal(0, 3, 8),
        ),
        "two classes": (with_vjp(lambda x: jax.nn.softmax(x), binary), normal(0, 5, 2)),
    }


@pytest.mark.parametrize("case", mostly_slow(short(lost=True), "a pair", "two classes"))
def test_what_is_lost_beyond_two_or_three_entries_fails(case):
    result = quick(*case)
    assert result.verdict is Verdict.FAIL, str(result)
    assert "with one entry more" in result.reason
    assert quick(*case, at="given").verdict is Verdict.PASS


@pytest.mark.parametrize("case", mostly_slow(short(lost=False), "a pair"))
def test_the_same_rules_that_lose_nothing_pass(case):
    result = quick(*case)
    assert result.verdict is Verdict.PASS, str(result)


def crossed(a, b):
    return jnp.stack(
        [
            a[1] * b[2] - a[2] * b[1],
            a[2] * b[0] - a[0] * b[2],
            a[0] * b[1] - a[1] * b[0],
        ]
    )


def of_components(args, w):
    x, y, z = args[0]
    return (2 * w * jnp.stack([x, y, z]),)


def cofactors(args, w):
    (a, b), (c, d) = args[0]
    return (w * jnp.stack([jnp.stack([d, -c]), jnp.stack([-b, a])]),)


def beside_longer(args, w):
    x, y, z = args[0]
    along = jnp.sum(args[0] ** 2) * jnp.cos(args[1])
    return 2 * jnp.stack([x, y, z]) * jnp.sum(w * jnp.sin(args[1])), along * w


COORDINATES = {
    "a cross product": (
        with_vjp(crossed, lambda r, w: (crossed(r[1], w), crossed(w, r[0]))),
        normal(0, 3),
        normal(1, 3),
    ),
    "a norm by components": (
        with_vjp(lambda x: jnp.sum(x**2), of_components),
        normal(0, 3),
    ),
    "a determinant of two rows": (
        with_vjp(lambda m: jnp.linalg.det(m), cofactors),
        normal(0, 2, 2),
    ),
    "components beside a longer axis": (
        with_vjp(lambda x, y: jnp.sum(x**2) * jnp.sin(y), beside_longer),
        normal(0, 3),
        normal(1, 8),
    ),
}


@pytest.mark.parametrize("case", mostly_slow(COORDINATES, "a norm by components"))
def test_a_rule_that_counts_on_two_or_three_coordinates_passes(case):
    result = quick(*case)
    assert result.verdict is Verdict.PASS, str(result)
    assert not any("raises" in note for note in result.notes)


def test_a_long_axis_is_tried_without_the_short_one_that_a_rule_counts_on():
    def bwd(args, w):
        x, y, z = args[0]
        d = jnp.stack([x, y, z])
        kept = jnp.where(jnp.arange(len(w)) < 8, w, 0)
        along = jnp.sum(x**2 + y**2 + z**2) * jnp.cos(args[1])
        return 2 * d * jnp.sum(w * jnp.sin(args[1])), along * kept

    rule = with_vjp(lambda x, y: jnp.sum(x**2) * jnp.sin(y), bwd)
    result = quick(rule, normal(0, 3), normal(1, 8))
    assert result.verdict is Verdict.FAIL, str(result)
    assert "with one entry more" in result.reason


def square(n):
    a = normal(0, n, n)
    return a @ a.T + n * np.eye(n, dtype=np.float32)


def test_one_entry_more_keeps_what_matrices_masks_and_permutations_are():
    ids, mask, key = np.arange(5)[::-1].copy(), np.tri(5, dtype=bool), jax.random.key(0)
    args = square(5), ids, np.array([0, 0, 1, 1, 3]), mask, {"n": 5}, key
    a, ids, segments, mask, number, _ = longer(args, [5])
    assert a.shape == (6, 6)
    assert a.dtype == np.float32
    assert np.all(np.linalg.eigvalsh(a) > 0)
    np.testing.assert_array_equal(a, a.T)
    assert ids.tolist() == [4, 3, 2, 1, 0, 5]
    assert segments.tolist() == [0, 0, 1, 1, 3, 3]
    assert mask.shape == (6, 6)
    assert number == {"n": 5}
    assert isinstance(longer((jnp.ones(5),), [5])[0], jax.Array)


def test_what_is_new_is_marked_along_one_axis_at_a_time():
    gaps = [np.isnan(x).sum() for (x,) in with_gaps((normal(0, 5, 7),), [5, 7])]
    assert gaps == [8, 6]
