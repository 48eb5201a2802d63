"""The layer whose gradient differs is named, and noise is not called a difference."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import gradstab as gs
from gradstab.watch import GradientComparison, Sameness
from gradstab.watch.comparison import ALPHA, Sums, judged
from gradstab.watch.norms import products_by_row

WIDTH = 6


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {
    "hidden": [normal(i, WIDTH, WIDTH) / np.float32(2) for i in range(3)],
    "head": normal(3, WIDTH, 2),
}
BATCHES = [(normal(10 + i, 8, WIDTH), normal(50 + i, 8, 2)) for i in range(8)]
NAMES = ("hidden.0", "hidden.1", "hidden.2", "head")


def loss(params, x, y):
    for w in params["hidden"]:
        x = jnp.tanh(x @ w)
    return jnp.mean((x @ params["head"] - y) ** 2)


def scaled(w, factor):
    """The same array, whose gradient is so many times as long."""
    return w + (factor - 1) * (w - jax.lax.stop_gradient(w))


def planted(params, x, y):
    first, second, third = params["hidden"]
    hidden = [first, scaled(second, 1.01), third]
    return loss({**params, "hidden": hidden}, x, y)


def verdicts(found):
    return {layer.layer: layer.verdict for layer in found.layers}


# What is true


def test_a_layer_whose_gradient_is_scaled_is_named_with_its_factor():
    found = gs.compare_gradients(loss, PARAMS, BATCHES, other_loss=planted)
    assert [layer.layer for layer in found.differing] == ["hidden.1"]
    assert tuple(layer.layer for layer in found.layers) == NAMES
    layer = found["hidden.1"]
    np.testing.assert_allclose(layer.factor, 1.01, atol=1e-6)
    np.testing.assert_allclose(layer.difference, 0.01, rtol=1e-4)
    assert layer.factor_error < 1e-6
    assert layer.noise > 0.1
    assert not found.is_bitwise
    assert "hidden.1 differs by 1 %" in str(found)
    assert "1.0100 (± " in str(found)


def test_what_is_the_same_twice_is_bitwise_equal():
    found = gs.compare_gradients(loss, PARAMS, BATCHES)
    assert set(verdicts(found).values()) == {Sameness.BITWISE}
    assert found.whole.verdict is Sameness.BITWISE
    assert found.is_bitwise
    copies = jax.tree.map(jnp.array, PARAMS)
    assert gs.compare_gradients(loss, PARAMS, BATCHES, other_params=copies).is_bitwise


def test_numbers_are_those_of_the_gradients_written_down():
    found = gs.compare_gradients(
        loss, PARAMS, BATCHES, other_params=jax.tree.map(lambda w: w * 2, PARAMS)
    )
    grad = jax.jit(jax.grad(loss))
    both = [
        [grad(p, *batch) for batch in BATCHES]
        for p in (PARAMS, jax.tree.map(lambda w: w * 2, PARAMS))
    ]
    for name in ("hidden.1", "head"):
        a, b = (
            np.stack([np.ravel(_of_layer(g, name)).astype(float) for g in grads])
            for grads in both
        )
        gap, layer = b - a, found[name]
        size = np.linalg.norm(a.mean(0))
        errors = [np.sqrt(np.sum(np.var(x, axis=0, ddof=1)) / 8) for x in (gap, a)]
        np.testing.assert_allclose(
            [layer.difference, layer.error, layer.noise],
            np.array([np.linalg.norm(gap.mean(0)), *errors]) / size,
            rtol=1e-4,
        )
        cosine = a.mean(0) @ b.mean(0) / size / np.linalg.norm(b.mean(0))
        np.testing.assert_allclose(layer.cosine, cosine, rtol=1e-4)
        factors = np.sum(a * b, axis=1) / np.sum(a * a, axis=1)
        np.testing.assert_allclose(layer.factor, factors.mean(), rtol=1e-4)
        np.testing.assert_allclose(
            layer.factor_error, factors.std(ddof=1) / np.sqrt(8), rtol=1e-3
        )
        each = np.sqrt(np.sum(gap**2) / np.sum(a**2))
        np.testing.assert_allclose(layer.each, each, rtol=1e-4)


def _of_layer(grads, name):
    return grads["head"] if name == "head" else grads["hidden"][int(name[-1])]


def in_bfloat16(params, x, y):
    low = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (params, x, y))
    return loss(*low).astype(jnp.float32)


@pytest.mark.slow
def test_another_precision_is_near_and_not_bitwise():
    found = gs.compare_gradients(loss, PARAMS, BATCHES, other_loss=in_bfloat16)
    for layer in found.layers:
        assert layer.verdict in (Sameness.SAME, Sameness.DIFFERS)
        # Numbers of eight bits, through four layers and back.
        assert 2**-11 < layer.each < 2**-4
        assert layer.of_noise < 0.3


def with_keys(params, x, y, key, rate):
    kept = jax.random.bernoulli(key, 1 - rate, x.shape).astype(x.dtype)
    return loss(params, x * kept, y)


@pytest.mark.slow
def test_other_random_masks_are_noise_and_not_a_difference():
    keys = jax.random.split(jax.random.key(0), 8)
    drawn = [(*batch, key) for batch, key in zip(BATCHES, keys, strict=True)]

    def a(params, x, y, key):
        return with_keys(params, x, y, key, 0.5)

    def b(params, x, y, key):
        return with_keys(params, x, y, jax.random.fold_in(key, 1), 0.5)

    assert gs.compare_gradients(a, PARAMS, drawn).is_bitwise
    found = gs.compare_gradients(a, PARAMS, drawn, other_loss=b)
    assert set(verdicts(found).values()) == {Sameness.UNKNOWN}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_sizes_of_gradients_do_not_matter(size):
    def of_size(function):
        return lambda *args: jnp.float32(size) * function(*args)

    plain = gs.compare_gradients(loss, PARAMS, BATCHES, other_loss=planted)
    other = gs.compare_gradients(
        of_size(loss), PARAMS, BATCHES, other_loss=of_size(planted)
    )
    assert verdicts(other) == verdicts(plain)
    for name in ("factor", "noise", "difference"):
        ours, others = (getattr(x["hidden.1"], name) for x in (other, plain))
        np.testing.assert_allclose(ours, others, rtol=1e-3)


@pytest.mark.slow
def test_what_is_not_finite_in_one_of_them_differs():
    def breaks(params, x, y):
        return loss(params, x, y) + jnp.sum(jnp.sqrt(x[0, 0] * params["head"][0]))

    found = gs.compare_gradients(loss, PARAMS, BATCHES, other_loss=breaks)
    assert verdicts(found) == dict.fromkeys(NAMES[:-1], Sameness.BITWISE) | {
        "head": Sameness.DIFFERS
    }
    assert found["head"].lost[0] == 0 < found["head"].lost[1]
    assert "head is not finite: B in" in str(found)
    both = gs.compare_gradients(
        breaks, PARAMS, BATCHES, other_loss=lambda *args: 2 * breaks(*args)
    )
    assert both["head"].verdict is Sameness.UNKNOWN


# What holds of the verdicts


def sums_of(a, b):
    """Of gradients of one layer, ``(batches, entries)``."""
    gaps = b - a
    products = np.stack([(a * a).sum(1), (a * gaps).sum(1), (gaps * gaps).sum(1)], -1)
    one, two = a.mean(0), gaps.mean(0)
    means = np.array([one @ one, one @ two, two @ two])
    flags = np.zeros((len(a), 1), bool)
    eps = float(np.finfo(np.float64).eps)
    return Sums(
        products[:, None], means[None], flags, ~np.stack([flags, flags], -1), eps
    )


@pytest.mark.parametrize("number", [3, 16])
@pytest.mark.parametrize("entries", [1, 2, 10, 300])
def test_equal_gradients_with_noise_of_their_own_are_seldom_said_to_differ(
    entries, number
):
    draw, wrong, trials = np.random.default_rng(entries * number), 0, 1500
    sizes = np.linspace(0.1, 1, entries)  # some directions are noisier than others
    for _ in range(trials):
        a = 0.3 + draw.normal(size=(number, entries))
        b = a + sizes * draw.normal(size=(number, entries))
        (layer,) = judged(["layer"], sums_of(a, b))
        wrong += layer.verdict is Sameness.DIFFERS
    # Two standard errors of the number of errors above what is allowed.
    assert wrong <= ALPHA * trials + 2 * np.sqrt(ALPHA * trials)


@pytest.mark.parametrize("entries", [1, 10, 300])
def test_a_difference_as_large_as_the_resolution_is_seen(entries):
    draw, seen, trials = np.random.default_rng(entries), 0, 200
    for _ in range(trials):
        a = 1 + draw.normal(size=(12, entries))
        noise = 0.1 * draw.normal(size=(12, entries))
        (layer,) = judged(["layer"], sums_of(a, a + noise))
        way = draw.normal(size=entries)
        way *= layer.resolution * np.linalg.norm(a.mean(0)) / np.linalg.norm(way)
        (moved,) = judged(["layer"], sums_of(a, a + noise + way))
        seen += moved.verdict is Sameness.DIFFERS
    assert seen >= 0.9 * trials


def test_products_of_rows_are_in_range_and_of_their_own_leaves():
    first = [jnp.full((2, 3), 1e-30), jnp.full((4,), 1e25)]
    second = [jnp.full((2, 3), 2e-30), jnp.full((4,), -1e20)]
    products, scales = products_by_row(((0, 1), 2), 3, first, second)
    one, two = np.asarray(scales, float).T
    ours = np.asarray(products) * np.stack([one * one, one * two, two * two], -1)
    expected = [[3e-60, 6e-60, 12e-60]] * 2 + [[4e50, -4e45, 4e40]]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


# Models, contexts, records


class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(jnp.tanh(self.norm(self.first(x)))))


@pytest.mark.slow
def test_modules_of_nnx_are_compared_and_not_changed():
    model = Network(nnx.Rngs(0))
    before = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def of_model(model, x, y):
        return jnp.mean((model(x) - y) ** 2)

    def other(model, x, y):
        model.last.kernel[...] = scaled(model.last.kernel[...], 1.5)
        return of_model(model, x, y)

    found = gs.compare_gradients(of_model, model, BATCHES, other_loss=other)
    assert verdicts(found)["first"] is Sameness.BITWISE
    assert verdicts(found)["last"] is Sameness.DIFFERS
    after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    assert all(a is b for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_modules_of_equinox_and_their_functions_are_compared():
    model = eqx.nn.MLP(WIDTH, 2, WIDTH, 2, key=jax.random.key(0))

    def of_model(model, x, y):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    found = gs.compare_gradients(
        of_model, model, BATCHES, other_loss=lambda *args: 3 * of_model(*args)
    )
    assert [layer.layer for layer in found.differing] == [
        "layers.0",
        "layers.1",
        "layers.2",
    ]
    np.testing.assert_allclose([x.factor for x in found.layers], 3, rtol=1e-5)


@pytest.mark.slow
def test_slices_of_stacked_layers_have_rows_of_their_own():
    params = {"blocks": np.stack(PARAMS["hidden"]), "head": PARAMS["head"]}

    def stacked(params, x, y):
        step = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
        return jnp.mean(
            (jax.lax.scan(step, x, params["blocks"])[0] @ params["head"] - y) ** 2
        )

    def other(params, x, y):
        factors = jnp.array([1, 1, 1.02], jnp.float32)[:, None, None]
        w = params["blocks"]
        w = w + (factors - 1) * (w - jax.lax.stop_gradient(w))
        return stacked({**params, "blocks": w}, x, y)

    found = gs.compare_gradients(stacked, params, BATCHES, other_loss=other)
    assert [layer.layer for layer in found.differing] == ["blocks.2"]


@pytest.mark.slow
def test_each_is_traced_in_its_own_context():
    size = [1.0]

    @contextlib.contextmanager
    def larger():
        size[0] = 4.0
        yield
        size[0] = 1.0

    def sized(params, x, y):
        return size[0] * loss(params, x, y)

    found = gs.compare_gradients(sized, PARAMS, BATCHES, other_context=larger)
    np.testing.assert_allclose([layer.factor for layer in found.layers], 4, rtol=1e-5)
    found = gs.compare_gradients(sized, PARAMS, BATCHES, context=larger)
    np.testing.assert_allclose(found.whole.factor, 0.25, rtol=1e-5)


@pytest.mark.slow
def test_float64_beside_float32_is_within_the_noise():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), PARAMS)

    def promoted(params, x, y):
        return loss(params, x.astype(params["head"].dtype), jnp.float32(1) * y)

    with jax.numpy_dtype_promotion("standard"):
        found = gs.compare_gradients(
            promoted,
            PARAMS,
            BATCHES,
            other_params=wide,
            other_context=lambda: jax.enable_x64(True),
        )
    assert all(1e-9 < layer.difference < 1e-5 for layer in found.layers)
    assert Sameness.UNKNOWN not in verdicts(found).values()


def test_a_comparison_is_kept_in_a_file_and_fits_a_narrow_terminal(tmp_path, capsys):
    found = gs.compare_gradients(
        loss, PARAMS, iter(BATCHES), other_loss=planted, num_batches=4
    )
    assert found.num_batches == 4
    path = tmp_path / "new" / "found.json"
    found.save(path)
    again = GradientComparison.read(path)
    assert (again.layers, again.whole) == (found.layers, found.whole)
    np.testing.assert_array_equal(again.values, found.values)
    with pytest.raises(FileExistsError):
        found.save(path)
    found.save(path, overwrite=True)
    found.show(Console(width=80, force_terminal=False))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for words in ("hidden.1", "differs", "bitwise equal", "1.01"):
        assert words in printed
    assert "<pre" in found._repr_html_()


# What is refused


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"other_params": {**PARAMS, "tail": normal(0, 2)}}, ValueError, "only B has"),
        (
            {"other_params": {"hidden": PARAMS["hidden"]}},
            ValueError,
            "A and B do not have the same parameters: only A has head",
        ),
        (
            {"other_params": {**PARAMS, "head": normal(0, 6, 3)}},
            ValueError,
            r"head is \(6, 2\) in A and \(6, 3\) in B",
        ),
        ({"other_loss": 3}, TypeError, "a loss must be a function"),
        ({"other_context": 3}, TypeError, "a context must be a function"),
        ({"num_batches": 1}, ValueError, "whole number from 2"),
        ({"other_loss": lambda p, x, y: x}, TypeError, "must be a scalar"),
        ({"has_aux": True}, TypeError, "returns a pair"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        gs.compare_gradients(loss, PARAMS, BATCHES, **change)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (BATCHES[:1], ValueError, "2 batches and more, got 1"),
        ([], ValueError, "got 0"),
        ({"x": 1}, TypeError, "got a dict"),
        (3, TypeError, "got a int"),
        ([("x", "y")] * 2, TypeError, "hold arrays, got a str"),
    ],
)
def test_batches_that_are_none_are_refused(batches, error, words):
    with pytest.raises(error, match=words):
        gs.compare_gradients(loss, PARAMS, batches)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON file"),
        ('{"schema": 1}', "no comparison"),
        ('{"kind": "gradient comparison", "schema": 9}', "schema 9"),
        ('{"kind": "gradient comparison", "schema": 1}', "damaged"),
    ],
)
def test_a_file_that_is_no_comparison_is_refused(text, words, tmp_path):
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        GradientComparison.read(path)
