"""Rules around loops of a fixed length are moved, and tried at odd shapes."""

import functools

import jax
import jax.numpy as jnp
import pytest
from custom_rules import quick, with_vjp

from gradstab import Verdict

pytestmark = pytest.mark.cases

X = jnp.linspace(0.1, 2, 8, dtype=jnp.float32)


def by_scan(x):
    step = lambda c, y: (c + y, c + y)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros((), x.dtype), x)[1]


def by_fori(x):
    def body(i, carry):
        total, sums = carry
        total = total + x[i]
        return total, sums.at[i].set(total)

    return jax.lax.fori_loop(0, len(x), body, (0 * x[0], jnp.zeros_like(x)))[1]


def by_counting(x):
    """A while loop that counts up to a number that is not known when it is traced."""
    size = jnp.int32(len(x)) + jax.lax.convert_element_type(0 * x[0], jnp.int32)

    def body(carry):
        i, total, sums = carry
        total = total + x[i]
        return i + 1, total, sums.at[i].set(total)

    start = jnp.int32(0), 0 * x[0], jnp.zeros_like(x)
    return jax.lax.while_loop(lambda c: c[0] < size, body, start)[2]


def by_map(x):
    return jax.lax.map(
        lambda i: jnp.sum(jnp.where(jnp.arange(len(x)) <= i, x, 0)), jnp.arange(len(x))
    )


def by_halves(x):
    return jax.lax.associative_scan(jnp.add, x)


LOOPS = {
    "scan": by_scan,
    "fori": by_fori,
    "counted while": by_counting,
    "map": by_map,
    "associative scan": by_halves,
}


def summed(w):
    return jnp.cumsum(w[::-1])[::-1]


def without_last_block(args, w):
    n = len(w) // 4 * 4
    return (jnp.where(jnp.arange(len(w)) < n, summed(w), 0),)


WRONG = {
    "last block": without_last_block,
    "negative": lambda args, w: (jnp.where(args[0] < 0, 0, summed(w)),),
    "above four": lambda args, w: (jnp.where(jnp.abs(args[0]) > 4, 0, summed(w)),),
    "two at once": lambda args, w: (
        jnp.where(jnp.any(args[0] == 0) & jnp.any(args[0] > 0), 2, 1) * summed(w),
    ),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS.keys())
def test_a_right_rule_around_a_loop_passes(loop):
    rule = with_vjp(loop, lambda _, w: (summed(w),))
    result = quick(rule, X)
    assert result.verdict is Verdict.PASS, str(result)
    assert {answer for _, answer in result.moved} == {"right"}


@pytest.mark.parametrize("mistake", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS.keys())
def test_a_rule_around_a_loop_that_is_wrong_elsewhere_fails(loop, mistake):
    assert quick(with_vjp(loop, mistake), X).verdict is Verdict.FAIL


BLOCK = 4


def blocks(x):
    """Blocks of rows, the last filled up with zeros."""
    rows = -len(x) % BLOCK
    return jnp.pad(x, ((0, rows), (0, 0))).reshape(-1, BLOCK, x.shape[1])


def chunked_attention(q, k, v):
    """Softmax attention, keys and values in blocks, with a running maximum."""

    def step(carry, block):
        top, total, out = carry
        k, v, place = block
        scores = jnp.where(place < length, q @ k.T, -jnp.inf)
        higher = jnp.maximum(top, scores.max(-1))
        weights = jnp.exp(scores - higher[:, None])
        shrink = jnp.exp(top - higher)
        out = shrink[:, None] * out + weights @ v
        return (higher, shrink * total + weights.sum(-1), out), None

    length = len(k)
    places = jnp.arange(len(blocks(k)) * BLOCK).reshape(-1, 1, BLOCK)
    start = (
        jnp.full(len(q), -1e30, q.dtype),
        jnp.zeros(len(q), q.dtype),
        0 * q @ k.T @ v,
    )
    (_, total, out), _ = jax.lax.scan(step, start, (blocks(k), blocks(v), places))
    return out / total[:, None]


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T, axis=-1) @ v


def attention_backward(args, w, *, keep=lambda dk: dk):
    dq, dk, dv = jax.vjp(attention, *args)[1](w)
    return dq, keep(dk), dv


def whole_blocks(dk):
    n = len(dk) // BLOCK * BLOCK
    return jnp.where(jnp.arange(len(dk))[:, None] < n, dk, 0)


QKV = tuple(jax.random.normal(jax.random.key(i), (8, 4)) / 2 for i in range(3))


def test_chunked_attention_passes_and_fails_if_it_loses_a_partial_block():
    right = with_vjp(chunked_attention, attention_backward)
    result = quick(right, *QKV)
    assert result.verdict is Verdict.PASS, str(result)
    lost = functools.partial(attention_backward, keep=whole_blocks)
    assert quick(with_vjp(chunked_attention, lost), *QKV).verdict is Verdict.FAIL


def selective(a, x):
    """h_t = a_t h_(t-1) + x_t, backwards in time."""
    step = lambda h, s: (s[0] * h + s[1],) * 2  # noqa: E731
    return jax.lax.scan(step, jnp.zeros((), x.dtype), (a, x), reverse=True)[1]


def selective_backward(args, w, *, chunk):
    a, x = args
    h = selective(a, x)
    before = jnp.concatenate([h[1:], jnp.zeros(1, h.dtype)])

    def step(g, s):
        w, a, start = s
        g = w + jnp.where(start, 0, g)
        return a * g, g

    starts = (jnp.arange(len(x)) % chunk == 0) & (jnp.arange(len(x)) > chunk)
    gs_ = jax.lax.scan(step, jnp.zeros((), x.dtype), (w, a, starts))[1]
    return gs_ * before, gs_


@pytest.mark.parametrize("size", [8, 9])
def test_a_selective_scan_fails_if_its_rule_forgets_what_crosses_chunks(size):
    a, x = jnp.linspace(0.3, 0.9, size), jnp.linspace(1, -1, size)
    right = functools.partial(selective_backward, chunk=99)
    result = quick(with_vjp(selective, right), a, x)
    assert result.verdict is Verdict.PASS, str(result)
    wrong = functools.partial(selective_backward, chunk=3)
    assert quick(with_vjp(selective, wrong), a, x).verdict is Verdict.FAIL


def rnn(w, x):
    step = lambda h, x: (jnp.tanh(w @ h + x), h)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros(len(w), x.dtype), x)


def through_time(args, cotangents, *, sign=lambda h: 1.0):
    w, x = args
    end, before = rnn(w, x)
    after = jnp.concatenate([before[1:], end[None]])

    def step(carry, s):
        g, dw = carry
        b, h, extra = s
        d = g * (1 - h**2) * sign(h)
        return (w.T @ d + extra, dw + jnp.outer(d, b)), d

    last, extra = cotangents
    start = last, jnp.zeros_like(w)
    (_, dw), dx = jax.lax.scan(step, start, (before, after, extra), reverse=True)
    return dw, dx


def test_backpropagation_through_time_passes_and_fails_for_negative_states():
    w = 0.3 * jax.random.normal(jax.random.key(0), (3, 3))
    x = 1 + jax.random.uniform(jax.random.key(1), (5, 3))
    w, x = jnp.abs(w), jnp.abs(x)
    result = quick(with_vjp(rnn, through_time), w, x)
    assert result.verdict is Verdict.PASS, str(result)
    wrong = functools.partial(through_time, sign=lambda h: jnp.where(h < 0, 0.9, 1))
    assert quick(with_vjp(rnn, wrong), w, x).verdict is Verdict.FAIL


def test_a_loop_of_blocks_by_index_is_no_iteration():
    def sums(x):
        add = lambda i, c: c + jax.lax.dynamic_slice(x, (2 * i,), (2,)) ** 2  # noqa: E731
        return jax.lax.fori_loop(0, len(x) // 2, add, jnp.zeros(2, x.dtype))

    def backward(args, w):
        (x,) = args
        return (jnp.where(x > 4, 1, 2) * x * jnp.tile(w, len(x) // 2),)

    rule = with_vjp(sums, backward)
    assert quick(rule, X).verdict is Verdict.FAIL
    right = with_vjp(sums, lambda args, w: (2 * args[0] * jnp.tile(w, 4),))
    assert quick(right, X, at="both").verdict is Verdict.PASS
