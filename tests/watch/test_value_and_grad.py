"""Watching changes nothing, and its numbers are those of each activation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched_losses import (
    LOSSES,
    accumulated,
    branched,
    chunked,
    linear,
    normal,
    plain,
    switched,
)

import gradstab as gs
from gradstab.watch import taps
from gradstab.watch.differentiating import _watching
from gradstab.watch.measures import Level

BACKWARD = [taps.by_tokens]
if hasattr(jax.custom_vjp, "defvjp_with_logs"):
    BACKWARD.append(taps.by_logs)

MAKERS = pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)


# In programs of branches that are not taken.
NOT_RUN = {branched: ("hidden.3",), switched: ("hidden.1",)}


def _same(ours, others):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _watched(loss, backward, level=Level.LIGHT, argnums=0, has_aux=False):
    return _watching(loss, argnums, has_aux, level, None, None, backward)


@MAKERS
def test_the_layers_are_those_that_a_user_names(make):
    loss, args = make()
    (_, stats), _ = jax.eval_shape(gs.value_and_grad(loss), *args)
    assert stats.names == (*LOSSES[make], "(elsewhere)")


@pytest.mark.slow
@pytest.mark.parametrize("backward", BACKWARD, ids=lambda b: b.__name__)
@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.value)
@MAKERS
def test_value_and_gradients_are_bitwise_those_without_watching(make, backward, level):
    loss, args = make()
    (value, stats), grads = jax.jit(_watched(loss, backward, level))(*args)
    assert _same((value, grads), plain(make))
    ran = [name not in NOT_RUN.get(make, ()) for name in stats.names[:-1]]
    np.testing.assert_array_equal(stats.backward_entries[:-1] > 0, ran)


@pytest.mark.parametrize("make", list(LOSSES)[:4:3], ids=lambda make: make.__name__)
def test_value_and_gradients_stay_the_same_bits(make):
    loss, args = make()
    (value, _), grads = jax.jit(gs.value_and_grad(loss))(*args)
    assert _same((value, grads), plain(make))


# True numbers


def _rms(arrays):
    return np.array([np.sqrt(np.mean(np.square(a))) for a in arrays])


def _chain(p, x, y, zeros):
    """A chain of layers with zeros added to what leaves each of them."""
    found = []

    def out(h):
        h = h if zeros is None else h + zeros[len(found)]
        found.append(h)
        return h

    for w in p["blocks"]:
        x = out(jnp.tanh(x @ w))
    return jnp.mean((out(x @ p["head"]) - y) ** 2), found


@pytest.mark.parametrize("backward", BACKWARD, ids=lambda b: b.__name__)
@pytest.mark.parametrize("remat", [False, True])
def test_statistics_are_those_of_a_perturbation_of_each_activation(backward, remat):
    with jax.enable_x64(True):
        p = {"blocks": normal(0, 4, 6, 6) / 3, "head": normal(1, 6, 3)}
        x, y = normal(2, 8, 6), normal(3, 8, 3)

        def step(h, w):
            return jnp.tanh(h @ w), None

        def loss(p, x, y):
            body = jax.checkpoint(step) if remat else step
            h, _ = jax.lax.scan(body, x, p["blocks"])
            return jnp.mean((h @ p["head"] - y) ** 2)

        (_, stats), _ = jax.jit(_watched(loss, backward))(p, x, y)
        shapes = jax.eval_shape(lambda: _chain(p, x, y, None)[1])
        zeros = [jnp.zeros(s.shape, s.dtype) for s in shapes]
        chain = jax.grad(lambda zeros: _chain(p, x, y, zeros), has_aux=True)
        slopes, activations = jax.jit(chain)(zeros)
        np.testing.assert_allclose(stats.forward_rms[:-1], _rms(activations), 1e-12)
        np.testing.assert_allclose(stats.backward_rms[:-1], _rms(slopes), 1e-12)


@pytest.mark.parametrize("backward", BACKWARD, ids=lambda b: b.__name__)
def test_time_steps_of_a_recurrent_layer_are_taken_together(backward):
    with jax.enable_x64(True):
        loss, (p, x, y) = next(m for m in LOSSES if m.__name__ == "deep_recurrent")()
        (_, stats), _ = jax.jit(_watched(loss, backward))(p, x, y)

        def unrolled(zeros):
            hs, found = [jnp.zeros((8, 6))] * 2, []
            for t in range(x.shape[1]):
                h = x[:, t]
                for i, q in enumerate(p["cells"]):
                    h = jnp.tanh(h @ q["wx"] + hs[i] @ q["wh"]) + zeros[t][i]
                    hs = [h if j == i else other for j, other in enumerate(hs)]
                found.append(hs)
            return jnp.mean((h @ p["head"] - y) ** 2), found

        zeros = [[jnp.zeros((8, 6))] * 2 for _ in range(x.shape[1])]
        slopes, found = jax.jit(jax.grad(unrolled, has_aux=True))(zeros)
        # Of the second layer the last step leaves the scan.
        for i, steps in ((0, slice(None)), (1, slice(-1, None))):
            forward, back = (
                jnp.stack([step[i] for step in all_steps[steps]])
                for all_steps in (found, slopes)
            )
            np.testing.assert_allclose(stats.forward_rms[i], _rms([forward])[0], 1e-12)
            np.testing.assert_allclose(stats.backward_rms[i], _rms([back])[0], 1e-12)


def test_micro_batches_of_a_scan_are_summed():
    """And those of a chunked cross entropy: examples are where they belong."""
    with jax.enable_x64(True):
        for make, known in ((accumulated, "rematerialised"), (chunked, "classified")):
            loss, args = make()
            plain = next(m for m in LOSSES if m.__name__ == known)()[0]
            if make is chunked:
                plain = _without_penalty
            (_, stats), _ = jax.jit(gs.value_and_grad(loss))(*args)
            (_, whole), _ = jax.jit(gs.value_and_grad(plain))(*args)
            assert stats.names == whole.names
            np.testing.assert_allclose(stats.forward_rms, whole.forward_rms, 1e-12)
            np.testing.assert_allclose(stats.backward_rms, whole.backward_rms, 1e-12)
            np.testing.assert_array_equal(stats.forward_entries, whole.forward_entries)


def _without_penalty(p, x, y):
    for q in p["hidden"]:
        x = jnp.tanh(linear(q, x))
    logs = jax.nn.log_softmax(linear(p["head"], x))
    return -jnp.mean(jnp.take_along_axis(logs, y[:, None], 1))


def test_rows_of_parameters_are_those_of_their_layers():
    loss, (p, x, y) = next(m for m in LOSSES if m.__name__ == "reversed_scan")()
    (_, stats), g = jax.jit(gs.value_and_grad(loss, level="full"))(p, x, y)
    norms = [np.linalg.norm(g["blocks"][i]) for i in (3, 2, 1, 0)]
    norms.append(np.linalg.norm(g["head"]))
    np.testing.assert_allclose(stats.gradient_norm[:-1], norms, rtol=1e-5)
    whole = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in g.values()]))
    np.testing.assert_allclose(stats.global_norm, whole, rtol=1e-5)
    np.testing.assert_allclose(stats.share.sum(), 1, rtol=1e-5)
    cosine = np.vdot(g["blocks"][1], p["blocks"][1]) / norms[2]
    cosine /= np.linalg.norm(p["blocks"][1])
    np.testing.assert_allclose(stats.gradient_cosine[2], cosine, rtol=1e-4)
    updated = stats.with_updates(jax.tree.map(lambda g: -g / 2, g), p)
    np.testing.assert_allclose(updated.update_norm[:-1], np.array(norms) / 2, rtol=1e-5)
    assert updated.update_norm[-1] == updated.param_norm[-1] == 0


# In loops of others


def test_auxiliary_results_and_several_arguments_come_as_from_jax():
    def loss(w, x, b, *, scale, name):
        h = jnp.tanh(x @ w + b[None]) * scale
        return jnp.mean(h**2), {"h": h, "name": name, "number": 3}

    args = normal(0, 6, 3), normal(1, 8, 6), normal(2, 3)
    options = {"scale": jnp.float32(2), "name": "linear"}
    watched = gs.value_and_grad(loss, argnums=(0, 2), has_aux=True)
    (value, (aux, stats)), grads = watched(*args, **options)
    (known, others), slopes = jax.value_and_grad(loss, (0, 2), has_aux=True)(
        *args, **options
    )
    assert _same((value, aux["h"], grads), (known, others["h"], slopes))
    assert isinstance(grads, tuple)
    assert (aux["name"], int(aux["number"])) == ("linear", 3)
    assert stats.names == ("0", "(elsewhere)")


def test_arguments_that_are_no_arrays_stay_what_they_are():
    def loss(w, x, train):
        return jnp.mean((x @ w) ** 2) if train else jnp.mean(x @ w)

    args = normal(0, 6, 3), normal(1, 8, 6)
    for train in (True, False):
        ours, others = (
            jax.jit(function(loss), static_argnums=2)(*args, train)
            for function in (gs.value_and_grad, jax.value_and_grad)
        )
        assert _same((ours[0][0], ours[1]), others)


def test_arrays_that_the_loss_closes_over_are_its_inputs():
    loss, (p, x, y) = next(iter(LOSSES))()
    (_, stats), _ = gs.value_and_grad(lambda p: loss(p, x, y))(p)
    assert stats.names == (*LOSSES[next(iter(LOSSES))], "(elsewhere)")


def test_statistics_ride_in_a_scan_over_steps_and_its_micro_batches():
    loss, (p, x, y) = next(iter(LOSSES))()
    watched = gs.value_and_grad(loss)
    parts = x.reshape(2, 4, 6), y.reshape(2, 4, 3)

    def step(p, _):
        def part(sums, batch):
            (_, stats), grads = watched(p, *batch)
            return jax.tree.map(jnp.add, sums, grads), stats

        grads, stats = jax.lax.scan(part, jax.tree.map(jnp.zeros_like, p), parts)
        return jax.tree.map(lambda w, g: w - 0.1 * g, p, grads), stats

    _, stats = jax.jit(lambda p: jax.lax.scan(step, p, None, length=3))(p)
    assert stats.forward_rms.shape == (3, 2, 6)
    (_, alone), _ = jax.jit(watched)(p, parts[0][1], parts[1][1])
    np.testing.assert_allclose(stats.backward_rms[0, 1], alone.backward_rms, rtol=1e-5)


def test_under_vmap_every_example_has_statistics_of_its_own():
    loss, (p, x, y) = next(iter(LOSSES))()
    watched = gs.value_and_grad(loss)

    def one(x, y):
        return watched(p, x[None], y[None])

    (_, stats), _ = jax.jit(jax.vmap(one))(x, y)
    (_, alone), _ = jax.jit(one)(x[3], y[3])
    assert stats.forward_rms.shape == (8, 6)
    for ours, other in zip(jax.tree.leaves(stats), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours[3], other, rtol=1e-5)


def test_a_layer_without_a_part_in_the_loss_has_no_gradient():
    def loss(p, x):
        h = jnp.tanh(x @ p["a"])
        return jnp.mean((jax.lax.stop_gradient(h) @ p["b"]) ** 2)

    params = {"a": normal(0, 6, 6), "b": normal(1, 6, 3)}
    (_, stats), _ = gs.value_and_grad(loss)(params, normal(2, 8, 6))
    assert stats.gradient_norm[0] == 0
    assert stats.gradient_norm[1] > 0


def test_parameters_without_a_product_are_elsewhere():
    (_, stats), _ = gs.value_and_grad(lambda w, x: jnp.sum((w * x) ** 2))(
        normal(0, 6), normal(1, 6)
    )
    assert stats.names == ("(elsewhere)",)
    assert stats.gradient_norm[0] > 0
    assert np.isnan(stats.forward_rms[0])


def test_only_layers_that_are_asked_for_have_a_row():
    loss, args = next(iter(LOSSES))()
    (_, stats), grads = gs.value_and_grad(loss, include="hidden", exclude="[02]")(*args)
    assert stats.names == ("hidden.1", "hidden.3", "(elsewhere)")
    rest = [grads["head"], grads["hidden"][0], grads["hidden"][2]]
    rest = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(rest)])
    np.testing.assert_allclose(stats.gradient_norm[-1], np.linalg.norm(rest), 1e-5)


def test_a_second_derivative_goes_through():
    loss, (p, x, y) = next(iter(LOSSES))()

    def slope(function, w):
        held = {**p, "head": {**p["head"], "w": w}}
        return jnp.sum(function(held)["head"]["w"] ** 2)

    ours = jax.grad(lambda w: slope(lambda q: gs.value_and_grad(loss)(q, x, y)[1], w))
    others = jax.grad(lambda w: slope(lambda q: jax.grad(loss)(q, x, y), w))
    w = p["head"]["w"]
    np.testing.assert_allclose(jax.jit(ours)(w), jax.jit(others)(w), rtol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("options", "args", "error", "words"),
    [
        ({"level": "heavy"}, (), ValueError, "'light' or 'full', got 'heavy'"),
        ({"argnums": -1}, (), ValueError, "positions of arguments"),
        ({"argnums": 3}, (1.0,), TypeError, "needs that many"),
        ({}, (jnp.arange(3),), TypeError, "is of int32"),
        ({}, (jnp.ones(3),), TypeError, "must be a scalar"),
        ({"has_aux": True}, (1.0,), TypeError, "returns a pair"),
    ],
)
def test_what_cannot_be_watched_is_refused(options, args, error, words):
    def run():
        return gs.value_and_grad(lambda w: w * 2, **options)(*args)

    with pytest.raises(error, match=words):
        run()


def test_a_pattern_that_no_layer_has_is_refused():
    loss, args = next(iter(LOSSES))()
    with pytest.raises(ValueError, match=r"leave none of the layers: hidden"):
        gs.value_and_grad(loss, include="attention")(*args)
