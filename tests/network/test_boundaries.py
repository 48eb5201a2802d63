"""Where a user says that layers end, they end, and nothing else changes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from gradstab.network import find_layers, layer_slice

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _x(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _skip_over_two(params, x):
    """A skip around two products: one layer, as no point is passed by all paths."""
    h = checkpoint_name(jnp.tanh(x @ params["a"]), "middle")
    return x + jnp.tanh(h @ params["b"])


PARAMS = {"a": _x(3, 4, seed=1), "b": _x(4, 3, seed=2)}


def _data(network, place, *args):
    """The data that enter and leave a layer."""
    replay = network.replay(args[0], (), args[1:])
    (entering,) = layer_slice(replay.entering, place)
    return entering, layer_slice(replay.activations, place)


@pytest.mark.parametrize("boundaries", ["middle", "a|b", ["a", "b"], "^b$", ["b", "a"]])
def test_a_name_or_the_paths_of_parameters_part_a_layer(boundaries):
    x = _x(2, 3)
    assert find_layers(_skip_over_two, PARAMS, (x,)).names == ("a+b",)
    network = find_layers(_skip_over_two, PARAMS, (x,), boundaries=boundaries)
    assert network.names == ("a", "b")
    chex.assert_trees_all_close(
        network.replay(PARAMS, (), (x,)).output, _skip_over_two(PARAMS, x), rtol=1e-6
    )


@pytest.mark.parametrize("boundaries", ["middle", "a|b"])
def test_all_that_is_live_at_a_boundary_leaves_the_layer_together(boundaries):
    """The activation among it: it belongs to the layer before."""
    x = _x(2, 3)
    network = find_layers(_skip_over_two, PARAMS, (x,), boundaries=boundaries)
    _, out = _data(network, network.layers[0], PARAMS, x)
    # The skip was made first: one row for each example.
    h = jnp.tanh(x @ PARAMS["a"])
    chex.assert_trees_all_close(out, jnp.concatenate([x, h], axis=1), rtol=1e-6)


def test_the_jacobian_of_a_parted_layer_is_that_of_all_live_arrays():
    x = _x(2, 3)
    network = find_layers(_skip_over_two, PARAMS, (x,), boundaries="middle")
    place = network.layers[1]
    replay = network.replay(PARAMS, (), (x,))
    (data,) = layer_slice(replay.entering, place)
    block = network.blocks[place.block]
    context = layer_slice(replay.contexts, place)

    def by_hand(packed):
        skip, h = packed[:, :3], packed[:, 3:]
        return skip + jnp.tanh(h @ PARAMS["b"])

    chex.assert_trees_all_close(
        jax.jacfwd(lambda d: block(context, d))(data),
        jax.jacfwd(by_hand)(data),
        rtol=1e-5,
    )


def test_products_in_one_group_are_one_layer_even_if_they_could_be_parted():
    def apply(params, x):
        for block in params["blocks"]:
            x = x + jnp.tanh(x @ block["a"])
            x = x + jnp.tanh(x @ block["b"])
        return x @ params["head"]

    block = {"a": _x(3, 3, seed=1), "b": _x(3, 3, seed=2)}
    params = {"blocks": [block, block], "head": _x(3, 2)}
    fine = find_layers(apply, params, (_x(2, 3),))
    assert len(fine.layers) == 5
    coarse = find_layers(apply, params, (_x(2, 3),), boundaries=r"blocks\.\d+")
    assert coarse.names == ("blocks.0", "blocks.1", "head")


def test_a_named_activation_is_where_its_layer_ends():
    """Without the boundary the sine would belong to the layer before."""

    def apply(params, x):
        h = checkpoint_name(jnp.tanh(x @ params["a"]), "out_of_a")
        return jnp.sin(h) @ params["b"]

    x = _x(2, 3)
    network = find_layers(apply, PARAMS, (x,), boundaries="out_of_.*")
    assert network.names == ("a", "b")
    _, out = _data(network, network.layers[0], PARAMS, x)
    chex.assert_trees_all_close(out, jnp.tanh(x @ PARAMS["a"]), rtol=1e-6)


def test_an_expression_is_about_whole_names():
    def apply(params, x):
        h = checkpoint_name(jnp.tanh(x @ params["a"]), "first")
        h = checkpoint_name(jnp.tanh(h @ params["b"]), "first_of_two")
        return x + h @ params["c"]

    params = PARAMS | {"c": _x(3, 3)}
    names = [
        find_layers(apply, params, (_x(2, 3),), boundaries=boundaries).names
        for boundaries in ("first", "first.*")
    ]
    assert names == [("a", "b+c"), ("a", "b", "c")]


def test_a_group_begins_where_least_is_live():
    """Its normalisation has parameters that match, but its statistics do not."""

    def apply(params, x):
        skip = x @ params["stem"]
        h = skip
        for p in params["blocks"]:
            h = h - jnp.mean(h, axis=1, keepdims=True)
            h = jnp.tanh((h * p["scale"][None]) @ p["w"])
        return (h + skip) @ params["head"]

    blocks = [{"scale": _x(3, seed=i), "w": _x(3, 3, seed=i)} for i in range(2)]
    params = {"stem": _x(3, 3), "blocks": blocks, "head": _x(3, 2)}
    network = find_layers(apply, params, (_x(2, 3),), boundaries=r"blocks\.\d")
    assert network.names == ("stem", "blocks.0", "blocks.1", "head")
    # The skip and the trunk, and before the first block nothing but the skip.
    widths = [place.in_shapes[0][1] for place in network.layers]
    assert widths == [3, 3, 6, 3]
    assert network.layers[1].params == ("blocks.0.scale", "blocks.0.w")


def test_the_layers_of_every_iteration_of_a_scan_are_parted():
    def apply(params, x):
        def body(h, p):
            inner = checkpoint_name(jnp.tanh(h @ p["up"]), "inner")
            return h + inner @ p["down"], None

        return jax.lax.scan(body, x, params["blocks"])[0]

    params = {"blocks": {"up": _x(3, 4, 5), "down": _x(3, 5, 4)}}
    x = _x(2, 4)
    for boundaries in ("inner", r"up|down"):
        network = find_layers(apply, params, (x,), boundaries=boundaries)
        parts = ("up", "down")
        assert network.names == tuple(
            f"blocks.{i}.{p}" for i in range(3) for p in parts
        )
        assert network.layers[0].out_shape == (2, 9)
        found = network.replay(params, (), (x,)).output
        chex.assert_trees_all_close(found, apply(params, x), rtol=1e-5, atol=1e-6)


def test_the_products_of_an_iteration_of_a_scan_are_one_layer_if_grouped():
    def apply(params, x):
        def body(h, p):
            h = h + jnp.tanh(h @ p["attention"])
            return h + jnp.tanh(h @ p["mlp"]), None

        return jax.lax.scan(body, x, params["blocks"])[0] @ params["head"]

    blocks = {"attention": _x(3, 4, 4), "mlp": _x(3, 4, 4, seed=1)}
    params = {"blocks": blocks, "head": _x(4, 2)}
    fine = find_layers(apply, params, (_x(2, 4),))
    assert fine.names[:2] == ("blocks.0.attention", "blocks.0.mlp")
    coarse = find_layers(apply, params, (_x(2, 4),), boundaries="blocks")
    assert coarse.names == ("blocks.0", "blocks.1", "blocks.2", "head")


def test_a_layer_ends_where_the_examples_lead_if_it_can():
    """Two products of sequences in time-major order, each with its own transposes."""

    def apply(ws, x):
        for w in ws:
            x = jnp.swapaxes(jnp.swapaxes(x, 0, 1) @ w, 0, 1)
        return x

    ws, x = [_x(3, 3, seed=i) for i in range(2)], _x(2, 5, 3)
    network = find_layers(apply, ws, (x,))
    assert [place.out_shape for place in network.layers] == [(2, 5, 3)] * 2
    assert [place.in_shapes for place in network.layers] == [((2, 5, 3),)] * 2
    found = network.activations(ws, (x,))
    chex.assert_trees_all_close(found[0], apply(ws[:1], x), rtol=1e-6)


def test_arrays_of_several_dtypes_and_ranks_pass_a_boundary_unchanged():
    def apply(params, x):
        skip = x.astype(jnp.bfloat16)
        image = checkpoint_name((x @ params["a"]).reshape(-1, 2, 2), "image")
        h = image.reshape(-1, 4) @ params["b"]
        return h + (skip * skip).astype(jnp.float32)

    x = _x(2, 3)
    network = find_layers(apply, PARAMS, (x,), boundaries="image")
    assert network.names == ("a", "b")
    assert network.layers[0].out_shape == (2, 7)
    found = network.replay(PARAMS, (), (x,)).output
    chex.assert_trees_all_close(found, apply(PARAMS, x), rtol=1e-6)


def test_arrays_without_examples_in_front_are_packed_as_one_row():
    def apply(params, x):
        skip = x.T
        h = checkpoint_name(jnp.tanh(x @ params["a"]), "middle")
        return (h @ params["b"]) + skip.T

    x = _x(2, 3)
    network = find_layers(apply, PARAMS, (x,), boundaries="middle")
    assert network.layers[0].out_shape == (1, 14)
    found = network.replay(PARAMS, (), (x,)).output
    chex.assert_trees_all_close(found, apply(PARAMS, x), rtol=1e-6)


@pytest.mark.parametrize(
    ("boundaries", "error", "match"),
    [
        ("blocks", ValueError, r"'blocks' matches no parameter path \(a, b\).*middle"),
        ("midd", ValueError, "matches no parameter path"),
        (["a", "c"], ValueError, "'c' matches no"),
        ("(", ValueError, "unterminated"),
        ([1], TypeError, "regular expressions"),
    ],
)
def test_boundaries_that_say_nothing_are_refused(boundaries, error, match):
    with pytest.raises(error, match=match):
        find_layers(_skip_over_two, PARAMS, (_x(2, 3),), boundaries=boundaries)


def _joined(apply, params, *inputs, **options):
    """What the network says of its first layer that is more than it seems."""
    network = find_layers(apply, params, inputs or (_x(2, 3),), **options)
    return next((place.note for place in network.layers if place.note), None)


def _long_skips(ws, x):
    skips = []
    for w in ws["down"]:
        skips.append(x)
        x = jnp.tanh(x @ w)
    for w in ws["up"]:
        x = jnp.tanh(x @ w) + skips.pop()
    return x


def test_a_network_of_long_skips_says_why_it_is_one_layer():
    params = {n: [_x(3, 3, seed=i) for i in range(2)] for n in ("down", "up")}
    note = _joined(_long_skips, params, boundaries=())
    assert note.startswith("one layer: skips or branches")
    assert r'down (2), up (2); boundaries=r"down\.\d+|up\.\d+" parts them' in note
    for boundaries in (None, r"down\.\d+|up\.\d+"):
        network = find_layers(_long_skips, params, (_x(2, 3),), boundaries=boundaries)
        assert network.names == ("down.0", "down.1", "up.0", "up.1")
        assert not any(place.note for place in network.layers)
        assert "leave down (2), up.0 together" in network.notes[0]


def test_a_list_of_blocks_in_one_layer_says_why():
    def dense(ws, x):
        found = [x]
        for w in ws["list"]:
            found.append(jnp.tanh(sum(found) @ w))
        return sum(found) @ ws["head"]

    params = {"list": [_x(3, 3, seed=i) for i in range(3)], "head": _x(3, 2)}
    assert "list.0, list.1, list.2" in _joined(dense, params, boundaries=())
    network = find_layers(dense, params, (_x(2, 3),))
    assert network.names == ("list.0", "list.1", "list.2", "head")


def test_products_inside_a_branch_say_that_it_is_not_entered():
    def apply(params, x):
        def deep(x):
            return x @ params["a"] @ params["b"] @ params["c"]

        return jax.lax.cond(jnp.sum(x) > 0, deep, lambda x: x, x)

    params = {name: _x(3, 3, seed=i) for i, name in enumerate("abc")}
    assert "a, b, c lie inside a cond that cannot be entered" in _joined(apply, params)


def test_residual_blocks_and_gates_need_no_reason():
    def apply(params, x):
        for p in params["blocks"]:
            h = jnp.tanh(jnp.tanh(x @ p["one"]["w"]) @ p["two"]["w"])
            x = x + h @ p["three"]["w"]
        return jnp.tanh(x @ params["value"]) * jax.nn.sigmoid(x @ params["gate"])

    names = ("one", "two", "three")
    block = {name: {"w": _x(3, 3, seed=i)} for i, name in enumerate(names)}
    params = {"blocks": [block] * 4, "value": _x(3, 3), "gate": _x(3, 3)}
    assert _joined(apply, params) is None


def test_what_follows_a_scan_before_a_boundary_belongs_to_the_next_layer():
    """An iteration of the scan cannot take it, and without a product it is no layer."""

    def apply(params, x):
        h = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["w"])[0]
        return checkpoint_name(jnp.sin(h), "middle") @ params["head"]

    params, x = {"w": _x(2, 3, 3), "head": _x(3, 2)}, _x(2, 3)
    network = find_layers(apply, params, (x,), boundaries="middle")
    assert network.names == ("w.0", "w.1", "head")
    h, _ = _data(network, network.layers[2], params, x)
    by_hand = jnp.tanh(jnp.tanh(x @ params["w"][0]) @ params["w"][1])
    chex.assert_trees_all_close(h, by_hand, rtol=1e-6)
