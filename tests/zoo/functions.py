"""Bare functions over pytrees: architectures and structures without a framework."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from entries import handed, normal, shelf, tokens, weights

FUNCTIONS, holds = shelf("functions")


def _dense(w, x):
    return jnp.tanh(x @ w)


def _pair(*names, width=4):
    return {name: weights(i, width, width) for i, name in enumerate(names)}


def _norm(x):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-5)


def _conv(w, x, **options):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, options.pop("stride", (1, 1)), "SAME", dimension_numbers=dims, **options
    )


@holds("first", "second", "head")
def mlp_with_biases():
    def apply(params, x):
        for name in ("first", "second"):
            x = jax.nn.gelu(x @ params[name]["w"] + params[name]["b"][None])
        return x @ params["head"]["w"]

    params = {
        n: {"w": weights(1, 4, 4), "b": normal(2, 4)} for n in ("first", "second")
    }
    return handed(apply, params | {"head": {"w": weights(3, 4, 2)}}, normal(4, 3, 4))


@holds("blocks.0", "blocks.1", "blocks.2", "head")
def scan_over_rematerialised_layers():
    def apply(params, x):
        @jax.checkpoint
        def block(h, p):
            return h + _dense(p["up"], _norm(h)) @ p["down"], None

        return jax.lax.scan(block, x, params["blocks"])[0] @ params["head"]

    blocks = {"up": weights(1, 3, 4, 6), "down": weights(2, 3, 6, 4)}
    params = {"blocks": blocks, "head": weights(3, 4, 2)}
    return handed(apply, params, normal(4, 3, 4))


def _u_net(**options):
    def apply(params, x):
        x = jax.nn.softplus(_conv(params["stem"], x))
        skips = []
        for w in params["down"]:
            skips.append(x)
            x = jax.nn.softplus(_conv(w, x, stride=(2, 2)))
        x = jax.nn.softplus(_conv(params["mid"], x))
        for w in params["up"]:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = jax.nn.softplus(_conv(w, x))
        return _conv(params["head"], x)

    params = {
        "stem": weights(1, 3, 3, 1, 3) / 3,
        "down": [weights(i, 3, 3, 3, 3) / 3 for i in (2, 3)],
        "mid": weights(4, 3, 3, 3, 3) / 3,
        "up": [weights(i, 3, 3, 6, 3) / 3 for i in (5, 6)],
        "head": weights(7, 1, 1, 3, 1),
    }
    return handed(apply, params, normal(8, 3, 4, 4, 1), **options)


@holds("stem", "down+mid+up.0", "up.1", "head")
def u_net_left_whole():
    return _u_net(boundaries=())


@holds("stem", "down.0", "down.1", "mid", "up.0", "up.1", "head")
def u_net():
    return _u_net()


@holds("stem", "down.0", "down.1", "mid", "up.0", "up.1", "head")
def u_net_with_boundaries():
    return _u_net(boundaries=r"(down|up)\.\d+")


@holds("stem", "growth.0", "growth.1", "growth.2", "head")
def densely_connected_one_after_the_other():
    def apply(params, x):
        x = _dense(params["stem"], x)
        for w in params["growth"]:
            x = jnp.concatenate([x, _dense(w, x)], axis=1)
        return x @ params["head"]

    growth = [weights(i, 3 + 2 * i, 2) for i in range(3)]
    params = {"stem": weights(5, 4, 3), "growth": growth, "head": weights(6, 9, 2)}
    return handed(apply, params, normal(7, 3, 4))


@holds("stem", "growth.0", "growth.1", "growth.2", "head")
def densely_connected_all_at_once():
    def apply(params, x):
        features = [_dense(params["stem"], x)]
        for w in params["growth"]:
            features.append(_dense(w, jnp.concatenate(features, axis=1)))
        return jnp.concatenate(features, axis=1) @ params["head"]

    growth = [weights(i, 3 + 2 * i, 2) for i in range(3)]
    params = {"stem": weights(5, 4, 3), "growth": growth, "head": weights(6, 9, 2)}
    return handed(apply, params, normal(7, 3, 4))


@holds("blocks.0", "blocks.1", "head")
def inception_branches():
    def apply(params, x):
        for block in params["blocks"]:
            branches = [jax.nn.silu(_conv(w, x)) for w in block.values()]
            x = jnp.concatenate(branches, axis=-1)
        return jnp.mean(x, axis=(1, 2)) @ params["head"]

    def block(seed, channels):
        sizes = {"one": 1, "three": 3, "five": 5}
        return {n: weights(seed, k, k, channels, 2) / k for n, k in sizes.items()}

    params = {"blocks": [block(1, 2), block(2, 6)], "head": weights(3, 6, 2)}
    return handed(apply, params, normal(4, 3, 4, 4, 2))


@holds("stem", "experts+router", "head")
def mixture_of_experts():
    def apply(params, x):
        x = _dense(params["stem"], x)
        scores, chosen = jax.lax.top_k(x @ params["router"], 2)
        gates = jax.nn.softmax(scores, axis=-1)
        outs = jnp.tanh(jnp.einsum("nd,edf->nef", x, params["experts"]))
        picked = jnp.take_along_axis(outs, chosen[..., None], axis=1)
        return (x + jnp.sum(picked * gates[..., None], axis=1)) @ params["head"]

    params = {"stem": weights(1, 4, 4), "router": weights(2, 4, 3)}
    params |= {"experts": weights(3, 3, 4, 4), "head": weights(4, 4, 2)}
    return handed(apply, params, normal(5, 3, 4))


@holds(
    "stem",
    "blocks.0.tokens",
    "blocks.0.channels",
    "blocks.1.tokens",
    "blocks.1.channels",
    "head",
)
def mlp_mixer():
    def mlp(p, x):
        return jax.nn.gelu(_norm(x) @ p["up"]) @ p["down"]

    def apply(params, x):
        x = x @ params["stem"]
        for block in params["blocks"]:
            x = x + jnp.swapaxes(mlp(block["tokens"], jnp.swapaxes(x, 1, 2)), 1, 2)
            x = x + mlp(block["channels"], x)
        return jnp.mean(x, axis=1) @ params["head"]

    def part(seed, width):
        return {"up": weights(seed, width, 5), "down": weights(seed + 1, 5, width)}

    blocks = [{"tokens": part(i, 3), "channels": part(i + 2, 4)} for i in (1, 5)]
    params = {"stem": weights(9, 2, 4), "blocks": blocks, "head": weights(10, 4, 2)}
    return handed(apply, params, normal(11, 3, 3, 2))


@holds("stem", "layers.0", "layers.1", "layers.2", "head")
def wavenet():
    def causal(w, x, dilation):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (1,),
            [(dilation, 0)],
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )

    def apply(params, x):
        x = causal(params["stem"], x, 1)
        for i, p in enumerate(params["layers"]):
            gate = jax.nn.sigmoid(causal(p["gate"], x, 2**i))
            x = x + (jnp.tanh(causal(p["filter"], x, 2**i)) * gate) @ p["mix"]
        return x[:, -1] @ params["head"]

    def layer(i):
        convs = {n: weights(i, 2, 3, 3) for n in ("filter", "gate")}
        return convs | {"mix": weights(i + 1, 3, 3)}

    params = {"stem": weights(9, 2, 1, 3), "layers": [layer(i) for i in range(3)]}
    return handed(apply, params | {"head": weights(8, 3, 2)}, normal(7, 3, 6, 1))


@holds("layers.0", "layers.1", "layers.2", "head")
def highway():
    def apply(params, x):
        for p in params["layers"]:
            gate = jax.nn.sigmoid(x @ p["gate"] - 1)
            x = gate * jnp.tanh(x @ p["body"]) + (1 - gate) * x
        return x @ params["head"]

    layers = [_pair("gate", "body") for _ in range(3)]
    params = {"layers": layers, "head": weights(3, 4, 2)}
    return handed(apply, params, normal(4, 3, 4))


@functools.partial(jax.custom_vjp, nondiff_argnums=())
def _equilibrium(w, x):
    def step(state):
        return _dense(w, state[0]) + x, state[0], state[2] + 1

    def unfinished(state):
        return (jnp.max(jnp.abs(state[0] - state[1])) > 1e-14) & (state[2] < 200)

    start = (x, x + 1, 0)
    return jax.lax.while_loop(unfinished, step, start)[0]


def _equilibrium_forward(w, x):
    z = _equilibrium(w, x)
    return z, (w, x, z)


def _equilibrium_backward(saved, g):
    w, x, z = saved
    _, pull = jax.vjp(lambda z: _dense(w, z), z)
    u = jax.lax.fori_loop(0, 200, lambda _, u: g + pull(u)[0], g)
    _, pull = jax.vjp(lambda w, x: _dense(w, z) + x, w, x)
    return pull(u)


_equilibrium.defvjp(_equilibrium_forward, _equilibrium_backward)


@holds("stem", "equilibrium", "head")
def deep_equilibrium():
    def apply(params, x):
        x = _dense(params["stem"], x)
        return _equilibrium(params["equilibrium"], x) @ params["head"]

    params = _pair("stem", "equilibrium", "head")
    params["equilibrium"] = params["equilibrium"] / 4
    return handed(apply, params, normal(4, 3, 4))


@holds("stem", "loop", "head", forward=True)
def while_loop_of_unknown_length():
    def apply(params, x):
        def body(state):
            step, h = state
            return step + 1, _dense(params["loop"], h)

        def more(state):
            return (state[0] < 5) & (jnp.max(jnp.abs(state[1])) > 1e-9)

        x = _dense(params["stem"], x)
        return jax.lax.while_loop(more, body, (0, x))[1] @ params["head"]

    return handed(apply, _pair("stem", "loop", "head"), normal(4, 3, 4))


@holds("stem", "gated", "head")
def cond_gated_layer():
    def apply(params, x):
        x = _dense(params["stem"], x)
        x = jax.lax.cond(
            jnp.mean(x) > -2,
            lambda w, x: x + _dense(w, x),
            lambda w, x: x,
            params["gated"],
            x,
        )
        return x @ params["head"]

    return handed(apply, _pair("stem", "gated", "head"), normal(4, 3, 4))


@holds("stem", "branches", "head")
def switch_between_branches():
    def apply(params, x):
        x = _dense(params["stem"], x)
        which = jnp.argmax(x[0])
        branches = [lambda ws, x, i=i: _dense(ws[i], x) for i in range(4)]
        return jax.lax.switch(which, branches, params["branches"], x) @ params["head"]

    params = _pair("stem", "head") | {"branches": [weights(i, 4, 4) for i in range(4)]}
    return handed(apply, params, normal(4, 3, 4))


@holds("stem", "sharded", "head")
def shard_map_on_one_device():
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec

    def apply(params, x):
        x = _dense(params["stem"], x)
        inner = jax.shard_map(
            _dense, mesh=mesh, in_specs=(spec(), spec()), out_specs=spec()
        )
        return inner(params["sharded"], x) @ params["head"]

    return handed(apply, _pair("stem", "sharded", "head"), normal(4, 3, 4))


@holds("first", "second", "head")
def mapped_over_examples_inside():
    def one(params, x):
        x = jax.lax.tanh(params["first"] @ x)
        return params["head"] @ jax.lax.tanh(params["second"] @ x)

    def apply(params, x):
        return jax.vmap(one, in_axes=(None, 0))(params, x)

    # As wide as the batch is long: shapes do not tell which axis holds the examples.
    return handed(apply, _pair("first", "second", "head", width=3), normal(4, 3, 3))


@jax.custom_jvp
def _clipped_cube(x):
    return x * x * x


_clipped_cube.defjvp(
    lambda primals, tangents: (
        _clipped_cube(*primals),
        jnp.minimum(3 * primals[0] ** 2, 4) * tangents[0],
    )
)


@jax.custom_vjp
def _straight_through(x):
    return jnp.round(4 * x) / 4


_straight_through.defvjp(lambda x: (_straight_through(x), None), lambda _, g: (g,))


@holds("0", "1", "2")
def activations_with_rules_of_their_own():
    def apply(ws, x):
        x = _clipped_cube(x @ ws[0])
        return _straight_through(x @ ws[1]) @ ws[2]

    return handed(apply, [weights(i, 4, 4) for i in range(3)], normal(4, 3, 4))


@holds("source", "encoder", "bridge", "decoder+target", "head", table="source")
def sequence_to_sequence():
    def unroll(cell, state, xs):
        def step(h, x):
            h = jnp.tanh(h @ cell["recurrent"] + x @ cell["input"])
            return h, h

        state, hs = jax.lax.scan(step, state, jnp.swapaxes(xs, 0, 1))
        return state, jnp.swapaxes(hs, 0, 1)

    def apply(params, source, target):
        zero = jnp.zeros((source.shape[0], 4), params["bridge"].dtype)
        state, _ = unroll(params["encoder"], zero, params["source"][source])
        state = _dense(params["bridge"], state)
        _, hs = unroll(params["decoder"], state, params["target"][target])
        return hs[:, -1] @ params["head"]

    params = {n: _pair("recurrent", "input") for n in ("encoder", "decoder")}
    params |= {"source": weights(1, 5, 4), "target": weights(2, 5, 4)}
    params |= {"bridge": weights(3, 4, 4), "head": weights(4, 4, 2)}
    return handed(apply, params, tokens(5, 3, 4), tokens(5, 3, 2))


def _siamese_towers(**options):
    def apply(params, x, y):
        def tower(x):
            for w in params["tower"]:
                x = _dense(w, x)
            return x

        return jnp.abs(tower(x) - tower(y)) @ params["head"]

    params = {"tower": [weights(i, 4, 4) for i in range(3)], "head": weights(5, 4, 2)}
    return handed(apply, params, normal(6, 3, 4), normal(7, 3, 4), **options)


@holds("tower", "head")
def siamese_towers_left_whole():
    return _siamese_towers(boundaries=())


@holds(*(f"tower.{i}" for i in range(3)), *(f"tower.{i}@2" for i in range(3)), "head")
def siamese_towers():
    return _siamese_towers()


@holds(*(f"tower.{i}" for i in range(3)), *(f"tower.{i}@2" for i in range(3)), "head")
def siamese_towers_with_boundaries():
    return _siamese_towers(boundaries=r"tower\.\d")


@holds("first", "second", "head")
def weight_normalised():
    def layer(p, x):
        direction = p["direction"] / jnp.linalg.norm(p["direction"], axis=0)[None]
        return jnp.tanh(x @ (direction * p["length"][None]))

    def apply(params, x):
        return layer(params["second"], layer(params["first"], x)) @ params["head"]

    params = {
        n: {"direction": weights(i, 4, 4), "length": 1 + normal(i, 4) / 4}
        for i, n in enumerate(("first", "second"))
    }
    return handed(apply, params | {"head": weights(5, 4, 2)}, normal(6, 3, 4))


def _language_model(**options):
    def attention(p, x):
        q, k, v = (x @ p[n] for n in ("query", "key", "value"))
        scores = q @ jnp.swapaxes(k, 1, 2) / np.sqrt(4).astype(x.dtype)
        seen = np.tril(np.ones((1, 5, 5), bool))
        scores = jax.nn.softmax(jnp.where(seen, scores, -1e9), axis=-1)
        return scores @ v @ p["out"]

    def apply(params, ids):
        x = params["embed"][ids] + params["positions"]
        for p in params["layers"]:
            x = x + attention(p["attention"], _norm(x))
            x = x + jax.nn.gelu(_norm(x) @ p["mlp"]["up"]) @ p["mlp"]["down"]
        return _norm(x)[:, -1] @ params["embed"].T

    def layer():
        mlp = {"up": weights(7, 4, 6), "down": weights(8, 6, 4)}
        return {"attention": _pair("query", "key", "value", "out"), "mlp": mlp}

    params = {"embed": weights(1, 6, 4), "positions": normal(2, 1, 5, 4)}
    params["layers"] = [layer() for _ in range(2)]
    return handed(apply, params, tokens(6, 3, 5), **options)


@holds(
    "embed",
    *(f"layers.{i}.{part}" for i in range(2) for part in ("attention", "mlp")),
    "embed@2",
    positions="positions",
)
def causal_language_model_with_tied_embedding():
    return _language_model()


@holds("embed", "layers.0", "layers.1", "embed@2", positions="positions")
def causal_language_model_of_whole_blocks():
    return _language_model(boundaries=r"layers\.\d")


@holds("down", "steps.0", "steps.1", "steps.2", "steps.3", "up")
def neural_ode():
    def apply(params, x):
        def euler(_, x):
            return x + 0.25 * _dense(params["steps"]["w"], x)

        x = jax.lax.fori_loop(0, 4, euler, _dense(params["down"], x))
        return x @ params["up"]

    params = _pair("down", "up") | {"steps": {"w": weights(3, 4, 4)}}
    return handed(apply, params, normal(4, 3, 4))


def _late_input(**options):
    def apply(params, x, condition):
        x = _dense(params["second"], _dense(params["first"], x))
        joined = jnp.concatenate([x, condition], axis=1)
        return _dense(params["third"], joined) @ params["head"]

    params = _pair("first", "second", "head") | {"third": weights(9, 6, 4)}
    return handed(apply, params, normal(4, 3, 4), normal(5, 3, 2), **options)


@holds("first+second", "third", "head")
def a_second_input_that_joins_late():
    return _late_input()


@holds("first", "second", "third", "head")
def a_second_input_that_joins_late_with_boundaries():
    return _late_input(boundaries="first|second")
