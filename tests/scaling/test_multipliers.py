"""Constants of the program that go with the width, and initial values that do."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstab as gs
from gradstab.scaling import OPTIMIZERS, SCHEMES

BASE = 16
X = jnp.ones((4, 5))
TOKENS = jnp.zeros((2, 6), jnp.int32)
SHAPES = {"first": (5, 0), "hidden": (0, 0), "head": (0, 3)}


def a_maker(place):
    """A network with its constants in front of weights, of results or of data.

    Whatever the place, it is the same function of the same draws, and at the base width
    the constants are one.
    """

    def make(width, key):
        root = (width / BASE) ** -0.5
        written = place != "nowhere"
        draws = {
            name: jax.random.normal(k, [n or width for n in shape])
            for k, (name, shape) in zip(
                jax.random.split(key, 3), SHAPES.items(), strict=True
            )
        }
        stays = {"first": 5**-0.5, "hidden": BASE**-0.5, "head": BASE**-0.5}
        grows = {"first": 1.0, "hidden": root, "head": root}
        params = {
            name: draw * stays[name] * (1 if written else grows[name])
            for name, draw in draws.items()
        }

        def times(h, w, c):
            if place == "weights":
                return h @ (w * c)
            if place == "results":
                return (h @ w) * c
            return (h * c) @ w if place == "data" else h @ w

        def apply(params, x):
            h = jnp.tanh(x @ params["first"])
            h = jnp.tanh(times(h, params["hidden"], root))
            return times(h, params["head"], root)

        return apply, params

    return make


def trained(make, width, optimizer, steps=3):
    """Outputs after some steps."""
    apply, params = make(width, jax.random.key(3))
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
    x = jax.random.normal(jax.random.key(4), (4, 5))

    def loss(params):
        return jnp.mean((apply(params, x) - 1) ** 2)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _ in range(steps):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
    return apply(params, x)


OPTIMIZER = {
    "sgd": optax.sgd(0.1),
    "adam": optax.adam(0.01, eps=1e-20),
    "muon": optax.contrib.muon(0.01, eps=1e-20),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["weights", "results", "data"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheme", ["mup", "ntk"])
def test_the_same_model_trains_alike_wherever_its_constants_are(
    place, optimizer, scheme
):
    outputs = []
    for each in ("nowhere", place):
        scaled = gs.parametrize(
            a_maker(each),
            base_width=BASE,
            inputs=X,
            scheme=scheme,
            optimizer=optimizer,
        )
        chain = optax.chain(OPTIMIZER[optimizer], scaled.transform)
        outputs.append(trained(scaled.make, 64, chain))
    untrained = trained(scaled.make, 64, chain, steps=0)
    assert jnp.allclose(*outputs, rtol=1e-3, atol=1e-5)
    assert not jnp.allclose(outputs[0], untrained, rtol=1e-2)


def test_the_constants_are_found_by_their_effect_on_the_exponents():
    for place, size, rate in [("nowhere", 0, -1), ("weights", 0, -0.5)]:
        scaled = gs.parametrize(a_maker(place), base_width=BASE, inputs=X)
        hidden = next(one for one in scaled.roles if one.name == "hidden")
        assert (hidden.size, hidden.rate) == (size, rate)


def attention(scale, *, rotated=False, normalised=False, fused=False):
    """A maker of attention with two heads that grow."""

    def make(width, key):
        names = ("embed", "qkv", "head") if fused else ("embed", "q", "k", "v", "head")
        sizes = {"embed": (7, width), "head": (width, 3), "qkv": (width, 3 * width)}
        params = {
            name: jax.random.normal(k, sizes.get(name, (width, width))) * width**-0.5
            for k, name in zip(jax.random.split(key, len(names)), names, strict=True)
        }

        def apply(params, tokens):
            h = params["embed"][tokens]
            if fused:
                parts = jnp.split(h @ params["qkv"], 3, -1)
            else:
                parts = [h @ params[name] for name in "qkv"]
            q, k, v = (p.reshape(*p.shape[:2], 2, -1) for p in parts)
            if normalised:
                q = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
                k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
            if rotated:
                q, k = (p * 0.5 + jnp.roll(p, 1, -1) for p in (q, k))
            logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale(q.shape[-1])
            mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)
            return mixed.reshape(h.shape) @ params["head"]

        return apply, params

    return make


def exponents_of(make, **options):
    """Sizes and rates by name, and the notes."""
    found = gs.parametrize(make, base_width=BASE, inputs=TOKENS, **options)
    return {one.name: (one.size, one.rate) for one in found.roles}, found.notes


def test_queries_take_the_factor_that_attention_lacks():
    found, notes = exponents_of(attention(lambda d: d**-0.5))
    assert found["q"] == (-0.5, -1.5)
    assert found["k"] == found["v"] == (0, -1)
    assert not notes


def test_nothing_is_done_where_attention_divides_by_the_size_of_a_head():
    found, notes = exponents_of(attention(lambda d: 1 / d))
    assert found["q"] == found["k"] == (0, -1)
    assert not notes


def test_attention_without_any_division_lacks_the_whole_factor():
    found, notes = exponents_of(attention(lambda d: 1.0))
    assert found["q"] == (-1, -2)
    assert not notes


def test_the_factor_is_that_of_the_optimiser():
    found, _ = exponents_of(attention(lambda d: d**-0.5), optimizer="sgd")
    assert found["q"] == (-0.5, -1)
    found, _ = exponents_of(attention(lambda d: d**-0.5), scheme="ntk")
    assert found["q"] == found["k"]


@pytest.mark.parametrize("how", ["rotated", "normalised", "fused"])
def test_what_no_parameter_can_take_is_said(how):
    found, notes = exponents_of(attention(lambda d: d**-0.5, **{how: True}))
    assert found.get("q", (0, -1)) == (0, -1)
    (note,) = notes
    assert "multiply by (base_width / width)^0.5 by hand" in note
    assert "test_multipliers.py:" in note


def tied(ahead, behind):
    """A maker of an embedding that is the output too."""

    def make(width, key):
        key_e, key_w = jax.random.split(key)
        params = {
            "embed": jax.random.normal(key_e, (7, width)),
            "w": jax.random.normal(key_w, (width, width)) * width**-0.5,
        }

        def apply(params, tokens):
            h = params["embed"][tokens] * ahead(width)
            h = h + jnp.tanh(h @ params["w"])
            return (h @ params["embed"].T) * behind(width)

        return apply, params

    return make


def notes_of(make):
    """All that is to be done by hand."""
    return gs.parametrize(make, base_width=BASE, inputs=TOKENS).all_notes()


def test_a_tied_output_is_to_be_divided_by_what_it_is_not_divided_by():
    (note,) = notes_of(tied(lambda n: 1.0, lambda n: 1.0))
    assert "multiply the output by (base_width / width) by hand" in note
    (note,) = notes_of(tied(lambda n: 1.0, lambda n: n**-0.5))
    assert "(base_width / width)^0.5 by hand" in note
    assert not notes_of(tied(lambda n: 1.0, lambda n: 1 / n))


def test_an_embedding_that_is_multiplied_by_the_root_of_the_width_is_made_smaller():
    found, _ = exponents_of(tied(lambda n: n**0.5, lambda n: n**-0.5))
    assert found["embed"] == (-0.5, -0.5)


INITIALIZERS = {
    "lecun": jax.nn.initializers.lecun_normal(),
    "he": jax.nn.initializers.he_uniform(),
    "glorot": jax.nn.initializers.glorot_normal(),
    "fan out": jax.nn.initializers.variance_scaling(1.0, "fan_out", "normal"),
    "fixed": jax.nn.initializers.normal(0.02),
    "orthogonal": jax.nn.initializers.orthogonal(),
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_initial_sizes_end_up_the_same_whatever_the_initialiser(name, scheme):
    init = INITIALIZERS[name]

    def make(width, key):
        keys = jax.random.split(key, 3)
        shapes = {"first": (40, width), "hidden": (width, width), "head": (width, 6)}
        params = {
            part: init(k, shape)
            for k, (part, shape) in zip(keys, shapes.items(), strict=True)
        }

        def apply(params, x):
            h = jnp.tanh(x @ params["first"])
            return jnp.tanh(h @ params["hidden"]) @ params["head"]

        return apply, params

    scaled = gs.parametrize(make, base_width=8, inputs=jnp.ones((4, 40)), scheme=scheme)
    wide = 128
    sizes = {"first": 0, "hidden": -0.5, "head": -0.5 if scheme == "ntk" else -1}
    for part, exponent in sizes.items():
        base, after = (
            jnp.sqrt(
                jnp.mean(
                    jnp.stack(
                        [
                            scaled.make(width, jax.random.key(seed))[1][part].ravel()
                            for seed in range(16)
                        ]
                    )
                    ** 2
                )
            )
            for width in (8, wide)
        )
        if scheme == "standard":
            plain = make(wide, jax.random.key(0))[1][part]
            assert jnp.array_equal(plain, scaled.make(wide, jax.random.key(0))[1][part])
        else:
            ratio = float(after / base)
            assert ratio == pytest.approx((wide / 8) ** exponent, rel=0.15), part
