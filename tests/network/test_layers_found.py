"""Which layers are found, what they compute, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import pytest

from gradstab.network import find_layers, layer_slice
from gradstab.network.naming import base_names, distinct, layer_name

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _x(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def _tanh_layers(ws, x):
    for w in ws:
        x = jnp.tanh(x @ w)
    return x


def test_a_layers_jacobian_is_that_of_the_layer_cut_by_hand():
    ws, x = [_x(3, 4), _x(4, 2, seed=1)], _x(2, 3, seed=2)
    network = find_layers(_tanh_layers, ws, (x,))
    replay = network.replay(ws, (), (x,))
    place = network.layers[1]
    (data,) = layer_slice(replay.entering, place)
    chex.assert_trees_all_equal(data, jnp.tanh(x @ ws[0]))
    block, context = network.blocks[1], layer_slice(replay.contexts, place)
    chex.assert_trees_all_close(
        jax.jacfwd(lambda h: block(context, h))(data),
        jax.jacfwd(lambda h: jnp.tanh(h @ ws[1]))(data),
        rtol=1e-6,
    )


def test_a_bias_an_activation_and_a_pooling_belong_to_the_layer_before():
    def apply(params, x):
        h = jax.nn.relu(x @ params["a"] + params["b"][None])
        h = jnp.mean(h.reshape(2, 2, 2), axis=2)
        return h @ params["c"]

    params = {"a": _x(3, 4), "b": _x(4), "c": _x(2, 2)}
    network = find_layers(apply, params, (_x(2, 3),))
    assert network.names == ("a", "c")
    assert network.layers[0].params == ("a", "b")
    assert network.layers[0].contraction_params == ("a",)
    assert network.layers[0].out_shape == (2, 2)


def test_a_scaling_before_the_first_product_belongs_to_the_first_layer():
    network = find_layers(lambda w, x: jnp.sin(2 * x) @ w, _x(3, 3), (_x(2, 3),))
    assert len(network.layers) == 1
    assert network.layers[0].in_shapes == ((2, 3),)


def test_four_layers_in_a_stack_are_blocks_0_to_3():
    def apply(params, x):
        def body(h, w):
            return jnp.tanh(h @ w), None

        return jax.lax.scan(body, x, params["blocks"]["dense"])[0]

    params = {"blocks": {"dense": jnp.stack([jnp.eye(3)] * 4)}}
    network = find_layers(apply, params, (_x(2, 3),))
    assert network.layers[3].name == "blocks.3"
    assert [place.index for place in network.layers] == [0, 1, 2, 3]
    assert len(network.blocks) == 1


def test_a_reversed_scan_owns_its_last_slice_first():
    def apply(params, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, params["w"], reverse=True)[0]

    params = {"w": jnp.arange(1.0, 4.0)[:, None, None] * jnp.eye(2)[None]}
    network = find_layers(apply, params, (jnp.ones((1, 2)),))
    assert [(place.index, place.slice) for place in network.layers] == [
        (0, 2),
        (1, 1),
        (2, 0),
    ]
    found = network.activations(params, (jnp.ones((1, 2)),))
    assert [float(h[0, 0]) for h in found] == [3.0, 6.0, 6.0]


def test_activations_are_the_data_that_leave_each_layer():
    ws, x = [_x(3, 3, seed=i) for i in range(3)], _x(2, 3)
    network = find_layers(_tanh_layers, ws, (x,))
    expected = [_tanh_layers(ws[: i + 1], x) for i in range(3)]
    found = list(network.activations(ws, (x,)))
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_a_network_is_traced_once_whatever_the_depth_of_its_scan():
    def apply(ws, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, ws)[0]

    def size(depth):
        ws, x = jnp.zeros((depth, 2, 2)), jnp.zeros((1, 2))
        network = find_layers(apply, ws, (x,))
        replay = jax.make_jaxpr(lambda ws: network.replay(ws, (), (x,)).activations)
        return len(str(replay(ws)).splitlines()), len(network.blocks)

    assert size(3) == size(300)


def test_weights_that_a_scan_does_not_slice_are_kept_once():
    """A hundred copies of tied weights would fill the memory."""

    def apply(w, x):
        return jax.lax.scan(lambda h, _: (h @ w, None), x, None, length=100)[0]

    w, x = _x(5, 5), _x(2, 5)
    network = find_layers(apply, w, (x,))
    (context,) = network.replay(w, (), (x,)).contexts
    assert context.varying == []
    chex.assert_shape(context.shared, (5, 5))
    place = network.layers[41]
    chex.assert_trees_all_equal(layer_slice([context], place).shared, [w])


def test_a_parameter_that_nothing_uses_belongs_to_no_layer():
    def apply(params, x):
        return x @ params["w"]

    network = find_layers(apply, {"w": _x(3, 3), "unused": _x(2)}, (_x(2, 3),))
    assert [place.params for place in network.layers] == [("w",)]


def test_a_leaf_called_value_keeps_its_name():
    """Only the wrapper of Flax NNX is left out of a path."""
    params = {"query": _x(3, 3), "value": _x(3, 3)}

    def apply(p, x):
        return jnp.tanh(x @ p["query"]) @ p["value"]

    assert find_layers(apply, params, (_x(2, 3),)).names == ("query", "value")


@pytest.mark.parametrize(
    "apply",
    [
        lambda w, x: jnp.ones((2, 3)) @ w,
        lambda w, x: 1.0,
        lambda w, x: (x > 0).astype(x.dtype),
    ],
    ids=["parameters only", "a number", "a mask"],
)
def test_an_output_that_does_not_depend_on_the_inputs_is_an_error(apply):
    with pytest.raises(ValueError, match="does not depend on the inputs"):
        find_layers(apply, jnp.eye(3), (_x(2, 3),))


def test_several_outputs_need_to_be_told_apart():
    def apply(w, x):
        return x @ w, x

    with pytest.raises(ValueError, match=r"2 floating arrays.*output=lambda"):
        find_layers(apply, jnp.eye(3), (_x(2, 3),))
    chosen = find_layers(apply, jnp.eye(3), (_x(2, 3),), output=lambda out: out[0])
    assert len(chosen.layers) == 1


@pytest.mark.parametrize(
    "output",
    [lambda out: out, lambda out: out[0] * 2, lambda out: out[1]],
    ids=["a tuple", "another array", "integers"],
)
def test_output_must_select_one_floating_array(output):
    def apply(w, x):
        return x @ w, jnp.argmax(x, axis=1)

    with pytest.raises(ValueError, match="output= must return one floating array"):
        find_layers(apply, jnp.eye(3), (_x(2, 3),), output=output)


@pytest.mark.parametrize(
    "inputs",
    [(1.0,), (_x(2, 3), _x(4, 3)), (_x(0, 3),), ()],
    ids=["a scalar", "two batches", "an empty batch", "nothing"],
)
def test_inputs_must_share_their_leading_axis(inputs):
    with pytest.raises(ValueError, match="leading axis"):
        find_layers(lambda w, *x: x[0] @ w, jnp.eye(3), inputs)


def test_inputs_must_be_a_tuple():
    with pytest.raises(TypeError, match=r"write \(x,\)"):
        find_layers(lambda w, x: x @ w, jnp.eye(3), _x(2, 3))


def test_a_key_in_front_of_the_data_is_no_batch():
    def apply(w, key, x):
        return x @ w * jax.random.uniform(key, x.shape)

    network = find_layers(apply, jnp.eye(3), (jax.random.key(0), _x(2, 3)))
    assert network.num_examples == 2


def test_a_carry_that_a_scan_resets_is_part_of_an_opaque_layer():
    """The body's result is a literal there, which no dictionary can hold."""

    def apply(params, x):
        def body(carry, w):
            h, _ = carry
            return (jnp.tanh(h @ w), 0.0), None

        return jax.lax.scan(body, (x, 1.0), params["w"])[0][0]

    params = {"w": jnp.stack([jnp.eye(3)] * 2)}
    network = find_layers(apply, params, (_x(2, 3),))
    assert network.names == ("w.0", "w.1")


def test_equations_that_only_feed_a_mask_make_no_layer():
    def apply(ws, x):
        noise = x @ ws[0]  # used for its sign alone: no derivative passes
        return jnp.where(noise > 0, x, 0) @ ws[1]

    assert find_layers(apply, [_x(3, 3), _x(3, 3)], (_x(2, 3),)).names == ("1",)


def test_names_are_the_outermost_modules_that_hold_one_block():
    contracted = [["net.0.fc.w"], ["net.1.up.w"], ["net.1.down.w"], ["head.w"]]
    expected = ["net.0", "net.1.up", "net.1.down", "head"]
    assert base_names(contracted, [[]] * 4) == expected


def test_modules_of_haiku_are_parted_by_slashes():
    contracted = [["net/~/conv_0.w"], ["net/~/block/~/a.w", "net/~/block/~/b.w"]]
    assert base_names(contracted, [[], []]) == ["net/~/conv_0", "net/~/block"]
    assert layer_name("stack/down", 1, ["stack/down.w", "stack/up.w"]) == "stack.1.down"


def test_a_block_that_shares_all_its_modules_is_named_by_its_parts():
    contracted = [["b.0", "b.1", "c.w"], ["b.2"], ["d.e.w", "d.f.w"], ["d.g.w"]]
    expected = ["b.0+b.1+c", "b.2", "d.e+f", "d.g"]
    assert base_names(contracted, [[]] * 4) == expected


def test_of_many_parts_the_first_two_are_named():
    contracted = [[f"net.{part}.w" for part in "abcd"], ["net.e.w"]]
    assert base_names(contracted, [[], []]) == ["net.a+b+2 more", "net.e"]


def test_a_module_that_is_used_twice_is_one_module():
    contracted = [["embed.table"], ["hidden.w"], ["embed.table"]]
    assert base_names(contracted, [[]] * 3) == ["embed", "hidden", "embed"]


def test_a_block_without_a_product_is_named_by_what_it_uses():
    assert base_names([[], []], [["norm.scale"], []]) == ["norm", "(no parameters)"]


def test_a_stack_is_numbered_after_the_part_that_its_blocks_share():
    stack = ["net.blocks.mlp.up", "net.blocks.norm.scale"]
    assert layer_name("net.blocks.mlp", 2, stack) == "net.blocks.2.mlp"
    assert layer_name("other", 2, stack) == "other.2"


def test_equal_names_are_numbered():
    assert distinct(["w", "w", "v", "w"]) == ["w", "w@2", "v", "w@3"]
