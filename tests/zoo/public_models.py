"""Models of the kinds that public repositories hold, rebuilt small, as functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from entries import handed, normal, shelf, weights

PUBLIC, _holds = shelf("public")
holds = functools.partial(_holds, slow=True)


def _named(start, names, width=4):
    return {name: weights(start + i, width, width) for i, name in enumerate(names)}


def _norm(x):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-5)


def _attention(p, x, context):
    q, k, v = x @ p["query"], context @ p["key"], context @ p["value"]
    return jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2), axis=-1) @ v @ p["out"]


def _attention_params(seed):
    return _named(seed, ("query", "key", "value", "out"))


def _mlp(p, x):
    return jax.nn.gelu(x @ p["up"]) @ p["down"]


def _mlp_params(seed, width=4):
    return {"up": weights(seed, width, 6), "down": weights(seed + 1, 6, width)}


def _conv(w, x, stride=1):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=dims
    )


def _upsampled(x):
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def _stacked(*trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _complex(seed, *shape):
    return (weights(seed, *shape) + 1j * weights(seed + 1, *shape)) / 2**0.5


# Recurrences: complex ones, by a scan and in parallel; several in one scan.


def _linear_recurrence(p, u):
    decay = jnp.exp(-jnp.exp(p["nu"]) + 1j * p["theta"])

    def step(h, u):
        h = decay[None] * h + u
        return h, h

    start = jnp.zeros((u.shape[0], decay.size), decay.dtype)
    return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(u, 0, 1))[1], 0, 1)


def _parallel_recurrence(p, u):
    decay = jnp.exp(-jnp.exp(p["nu"]) + 1j * p["theta"])

    def combine(one, other):
        return one[0] * other[0], one[1] * other[0] + other[1]

    decays = jnp.broadcast_to(decay, u.shape)
    return jax.lax.associative_scan(combine, (decays, u), axis=1)[1]


def _linear_recurrent_unit(recurrence):
    def apply(params, x):
        x = x @ params["encoder"]
        for p in params["layers"]:
            h = recurrence(p, x @ p["B"])
            x = x + jax.nn.gelu((h @ p["C"]).real + x * p["D"])
        return jnp.mean(x, axis=1) @ params["decoder"]

    def layer(seed):
        return {
            "nu": normal(seed, 3),
            "theta": normal(seed + 1, 3),
            "B": _complex(seed + 2, 4, 3),
            "C": _complex(seed + 4, 3, 4),
            "D": normal(seed + 6, 4),
        }

    params = {"encoder": weights(1, 2, 4), "decoder": weights(2, 4, 2)}
    params["layers"] = [layer(3), layer(13)]
    return handed(apply, params, normal(0, 3, 5, 2))


@holds("encoder", "layers.0", "layers.1", "decoder")
def linear_recurrent_unit():
    return _linear_recurrent_unit(_linear_recurrence)


@holds("encoder", "layers.0", "layers.1", "decoder")
def linear_recurrent_unit_in_parallel():
    return _linear_recurrent_unit(_parallel_recurrence)


@holds("stem", "cells.0", "cells.1", "head")
def minimal_gru_in_parallel():
    def combine(one, other):
        return one[0] * other[0], one[1] * other[0] + other[1]

    def apply(params, x):
        x = x @ params["stem"]
        for p in params["cells"]:
            gate = jax.nn.sigmoid(x @ p["gate"])
            pair = 1 - gate, gate * (x @ p["state"])
            x = jax.lax.associative_scan(combine, pair, axis=1)[1]
        return x[:, -1] @ params["head"]

    cells = [_named(i, ("gate", "state")) for i in (3, 5)]
    params = {"stem": weights(1, 2, 4), "cells": cells, "head": weights(2, 4, 2)}
    return handed(apply, params, normal(0, 3, 5, 2))


def _cell(p, h, u):
    return jnp.tanh(h @ p["state"] + u @ p["input"])


@_holds("cells.0", "cells.1", "cells.2", "head")
def deep_recurrent_network_in_one_scan():
    def apply(params, x):
        def step(states, u):
            new = []
            for p, h in zip(params["cells"], states, strict=True):
                u = _cell(p, h, u)
                new.append(u)
            return new, u

        start = [jnp.zeros((x.shape[0], 4), x.dtype) for _ in params["cells"]]
        _, hs = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
        return hs[-1] @ params["head"]

    cells = [_named(i, ("state", "input")) for i in (1, 3, 5)]
    params = {"cells": cells, "head": weights(9, 4, 2)}
    return handed(apply, params, normal(0, 3, 5, 4))


@holds("lstm_0", "lstm_1", "head")
def deep_lstm_with_skips_in_one_scan():
    def lstm(p, state, u):
        h, c = state
        i, f, g, o = jnp.split(h @ p["state"] + u @ p["input"], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def apply(params, x):
        def step(states, u):
            first = lstm(params["lstm_0"], states[0], u)
            both = jnp.concatenate([first[0], u], axis=1)
            second = lstm(params["lstm_1"], states[1], both)
            return (first, second), second[0]

        zero = jnp.zeros((x.shape[0], 3), x.dtype)
        start = (zero, zero), (zero, zero)
        _, hs = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
        return jnp.mean(hs, axis=0) @ params["head"]

    def cell(seed, width):
        return {"state": weights(seed, 3, 12), "input": weights(seed + 1, width, 12)}

    params = {"lstm_0": cell(1, 2), "lstm_1": cell(3, 5), "head": weights(9, 3, 2)}
    return handed(apply, params, normal(0, 3, 4, 2))


@holds("dense_0", "dense_1", "readout")
def spiking_network():
    def neuron(v, current):
        v = 0.9 * v + current
        spike = jax.nn.sigmoid(4 * (v - 1))
        return v - spike, spike

    def apply(params, x):
        def step(state, u):
            one, other, count = state
            one, spikes = neuron(one, u @ params["dense_0"]["w"])
            other, spikes = neuron(other, spikes @ params["dense_1"]["w"])
            return (one, other, count + 1), spikes

        zero = jnp.zeros((x.shape[0], 4), x.dtype)
        _, spikes = jax.lax.scan(step, (zero, zero, 0), jnp.swapaxes(x, 0, 1))
        return jnp.sum(spikes, axis=0) @ params["readout"]["w"]

    names = ("dense_0", "dense_1", "readout")
    params = {name: {"w": weights(i, 4, 4)} for i, name in enumerate(names)}
    return handed(apply, params, normal(0, 3, 4, 4))


# Spectra, implicit layers.


@holds("lift", "blocks.0", "blocks.1", "project")
def fourier_neural_operator():
    def apply(params, x):
        x = x @ params["lift"]
        for p in params["blocks"]:
            modes = jnp.fft.rfft(x, axis=1)[:, :3]
            modes = jnp.einsum("bki,kio->bko", modes, p["spectral"])
            x = jax.nn.gelu(jnp.fft.irfft(modes, n=x.shape[1], axis=1) + x @ p["skip"])
        return x @ params["project"]

    blocks = [
        {"spectral": _complex(i, 3, 4, 4), "skip": weights(i, 4, 4)} for i in (3, 5)
    ]
    params = {"lift": weights(1, 2, 4), "project": weights(2, 4, 1), "blocks": blocks}
    return handed(apply, params, normal(0, 3, 6, 2))


@holds("hidden", "head")
def complex_boltzmann_machine():
    def apply(params, x):
        p = params["hidden"]
        h = jnp.log(jnp.cosh(x @ p["kernel"] + p["bias"]))
        return jnp.abs(h @ params["head"]["kernel"])

    hidden = {"kernel": _complex(1, 4, 6), "bias": _complex(3, 6, 1)[:, 0]}
    params = {"hidden": hidden, "head": {"kernel": _complex(5, 6, 2)}}
    return handed(apply, params, normal(0, 3, 4))


@functools.partial(jax.custom_vjp)
def _fixed_point(w, x):
    return jax.lax.fori_loop(0, 60, lambda _, z: jnp.tanh(z @ w + x), x)


def _fixed_point_backward(saved, g):
    w, x, z = saved
    _, pull = jax.vjp(lambda z, w, x: jnp.tanh(z @ w + x), z, w, x)

    def unfinished(state):
        return (jnp.max(jnp.abs(state[0] - state[1])) > 1e-14) & (state[2] < 300)

    start = g, g + 1, 0
    step = lambda s: (g + pull(s[0])[0], s[0], s[2] + 1)  # noqa: E731
    u = jax.lax.while_loop(unfinished, step, start)[0]
    return pull(u)[1:]


def _fixed_point_forward(w, x):
    z = _fixed_point(w, x)
    return z, (w, x, z)


_fixed_point.defvjp(_fixed_point_forward, _fixed_point_backward)


@holds("stem", "layers.0", "layers.1", "head")
def implicit_layers_with_a_loop_in_the_rule():
    def apply(params, x):
        x = x @ params["stem"]
        for p in params["layers"]:
            x = _fixed_point(p["w"] / 4, x)
        return x @ params["head"]

    layers = [{"w": weights(i, 4, 4)} for i in (3, 4)]
    params = {"stem": weights(1, 2, 4), "layers": layers, "head": weights(2, 4, 2)}
    return handed(apply, params, normal(0, 3, 2))


@holds("stem", *(f"cell.{i}" for i in range(4)), "head")
def weights_tied_with_the_input_injected():
    def apply(params, x):
        x = x @ params["stem"]
        step = lambda _, z: jnp.tanh(z @ params["cell"]["w"] + x)  # noqa: E731
        return jax.lax.fori_loop(0, 4, step, jnp.zeros_like(x)) @ params["head"]

    params = {"stem": weights(1, 2, 4), "cell": {"w": weights(2, 4, 4)}}
    return handed(apply, params | {"head": weights(3, 4, 2)}, normal(0, 3, 2))


# Two carries and two streams.


def _coupling(p, x, log_det):
    one, other = jnp.split(x, 2, axis=1)
    h = jnp.tanh(one @ p["hidden"])
    scale, shift = jnp.tanh(h @ p["scale"]), h @ p["shift"]
    other = other * jnp.exp(scale) + shift
    x = jnp.concatenate([other, one], axis=1)
    return x, log_det + jnp.sum(scale, axis=1)


def _coupling_params(seed):
    parts = _named(seed, ("scale", "shift", "hidden"))
    return parts | {"hidden": weights(seed, 2, 4), **_narrow(seed)}


def _narrow(seed):
    return {"scale": weights(seed + 1, 4, 2), "shift": weights(seed + 2, 4, 2)}


def _log_likelihood(x, log_det):
    return log_det - 0.5 * jnp.sum(jnp.square(x), axis=1)


@holds("layers.0", "layers.1", "layers.2")
def coupling_flow():
    def apply(params, x):
        log_det = jnp.zeros(x.shape[0], x.dtype)
        for p in params["layers"]:
            x, log_det = _coupling(p, x, log_det)
        return _log_likelihood(x, log_det)

    params = {"layers": [_coupling_params(i) for i in (1, 4, 7)]}
    return handed(apply, params, normal(0, 3, 4))


@_holds("layers.0", "layers.1", "layers.2")
def coupling_flow_as_a_scan():
    def apply(params, x):
        def layer(carry, p):
            return _coupling(p, *carry), None

        start = x, jnp.zeros(x.shape[0], x.dtype)
        return _log_likelihood(*jax.lax.scan(layer, start, params["layers"])[0])

    layers = _stacked(*(_coupling_params(i) for i in (1, 4, 7)))
    return handed(apply, {"layers": layers}, normal(0, 3, 4))


@holds("stem", *(f"layers.{i}" for i in range(3)), "head")
def mixtures_of_experts_beside_a_balancing_loss():
    def apply(params, x):
        def layer(carry, p):
            h, penalty = carry
            gates = jax.nn.softmax(_norm(h) @ p["router"], axis=-1)
            outs = jnp.einsum("nd,edf->nef", h, p["experts"])
            penalty = penalty + jnp.sum(jnp.square(jnp.mean(gates, axis=0)))
            return (h + jnp.sum(jnp.tanh(outs) * gates[..., None], 1), penalty), None

        start = x @ params["stem"], jnp.zeros((), x.dtype)
        return jax.lax.scan(layer, start, params["layers"])[0][0] @ params["head"]

    layers = {"router": weights(3, 3, 4, 2), "experts": weights(4, 3, 2, 4, 4)}
    params = {"stem": weights(1, 2, 4), "layers": layers, "head": weights(2, 4, 2)}
    return handed(apply, params, normal(0, 3, 2))


@holds(*(f"blocks.{i}.{n}" for i in range(3) for n in "fg"), "head")
def reversible_network():
    def apply(params, x):
        one, other = jnp.split(x, 2, axis=1)
        for p in params["blocks"]:
            one = one + _mlp(p["f"], other)
            other = other + _mlp(p["g"], one)
        return jnp.concatenate([one, other], axis=1) @ params["head"]

    blocks = [{"f": _mlp_params(i, 2), "g": _mlp_params(i + 2, 2)} for i in (1, 5, 9)]
    return handed(apply, {"blocks": blocks, "head": weights(13, 4, 2)}, normal(0, 3, 4))


_EVOFORMER = ("row_attention", "transition", "outer_product", "pair_transition")


def _evoformer(p, msa, pair):
    rows = _norm(msa) + jnp.mean(pair, axis=1, keepdims=True)
    msa = msa + _attention(p["row_attention"], rows, rows)
    msa = msa + _mlp(p["transition"], _norm(msa))
    pair = pair + jnp.tanh(_norm(msa) @ p["outer_product"]["w"])
    return msa, pair + _mlp(p["pair_transition"], _norm(pair))


def _evoformer_params(seed):
    return {
        "row_attention": _attention_params(seed),
        "transition": _mlp_params(seed + 4),
        "outer_product": {"w": weights(seed + 6, 4, 4)},
        "pair_transition": _mlp_params(seed + 7),
    }


_EVOFORMER_LAYERS = [f"blocks.{i}.{part}" for i in range(2) for part in _EVOFORMER]


@holds(*_EVOFORMER_LAYERS, "head")
def two_streams_of_an_evoformer():
    def apply(params, msa, pair):
        for p in params["blocks"]:
            msa, pair = _evoformer(p, msa, pair)
        return jnp.mean(pair, axis=1) @ params["head"]

    params = {"blocks": [_evoformer_params(i) for i in (1, 11)]}
    params["head"] = weights(31, 4, 2)
    return handed(apply, params, normal(0, 3, 2, 4), normal(1, 3, 2, 4))


@holds(*_EVOFORMER_LAYERS, "head")
def two_streams_of_an_evoformer_as_a_scan():
    def apply(params, msa, pair):
        def body(streams, p):
            return _evoformer(p, *streams), None

        _, pair = jax.lax.scan(body, (msa, pair), params["blocks"])[0]
        return jnp.mean(pair, axis=1) @ params["head"]

    blocks = _stacked(_evoformer_params(1), _evoformer_params(11))
    params = {"blocks": blocks, "head": weights(31, 4, 2)}
    return handed(apply, params, normal(0, 3, 2, 4), normal(1, 3, 2, 4))


@holds(*(f"steps.{i}" for i in range(3)))
def hamiltonian_network():
    def apply(params, q, p):
        def energy_slope(w, x):
            return jnp.tanh(x @ w["up"]) @ w["down"]

        def leapfrog(state, w):
            q, p = state
            p = p - 0.1 * energy_slope(w, q)
            return (q + 0.1 * p, p), None

        q, p = jax.lax.scan(leapfrog, (q, p), params["steps"])[0]
        return q * p

    steps = _stacked(*(_mlp_params(i) for i in (1, 3, 5)))
    return handed(apply, {"steps": steps}, normal(0, 3, 4), normal(1, 3, 4))


# Encoders and decoders, pyramids.


def _encoder(p, x):
    h = _norm(x)
    x = x + _attention(p["attention"], h, h)
    return x + _mlp(p["mlp"], _norm(x))


def _decoder(p, x, encoded):
    h = _norm(x)
    x = x + _attention(p["attention"], h, h)
    x = x + _attention(p["cross"], _norm(x), encoded)
    return x + _mlp(p["mlp"], _norm(x))


def _encoder_params(seed):
    return {"attention": _attention_params(seed), "mlp": _mlp_params(seed + 4)}


def _decoder_params(seed):
    return _encoder_params(seed) | {"cross": _attention_params(seed + 6)}


_TRANSLATION = (
    *(f"encoder.{i}.{part}" for i in range(2) for part in ("attention", "mlp")),
    *(f"decoder.{i}.{p}" for i in range(2) for p in ("attention", "cross", "mlp")),
    "head",
)


@holds(*_TRANSLATION)
def encoder_and_decoder():
    def apply(params, source, target):
        for p in params["encoder"]:
            source = _encoder(p, source)
        for p in params["decoder"]:
            target = _decoder(p, target, source)
        return _norm(target)[:, -1] @ params["head"]

    params = {"encoder": [_encoder_params(i) for i in (1, 11)]}
    params["decoder"] = [_decoder_params(i) for i in (21, 41)]
    params["head"] = weights(61, 4, 2)
    return handed(apply, params, normal(0, 3, 2, 4), normal(1, 3, 2, 4))


@holds(*_TRANSLATION)
def encoder_and_decoder_as_scans():
    def apply(params, source, target):
        source, _ = jax.lax.scan(
            lambda h, p: (_encoder(p, h), None), source, params["encoder"]
        )
        target, _ = jax.lax.scan(
            lambda h, p: (_decoder(p, h, source), None), target, params["decoder"]
        )
        return _norm(target)[:, -1] @ params["head"]

    params = {"encoder": _stacked(_encoder_params(1), _encoder_params(11))}
    params["decoder"] = _stacked(_decoder_params(21), _decoder_params(41))
    params["head"] = weights(61, 4, 2)
    return handed(apply, params, normal(0, 3, 2, 4), normal(1, 3, 2, 4))


@holds("time", "stem", "down.0", "down.1", "mid", "up.0", "up.1", "head")
def diffusion_u_net():
    def block(p, x, time):
        h = jax.nn.silu(_conv(p["conv1"], x)) + (time @ p["time"])[:, None, None]
        return jax.nn.silu(_conv(p["conv2"], h)) + _conv(p["skip"], x)

    def apply(params, x, time):
        time = jax.nn.silu(time @ params["time"])
        x, skips = _conv(params["stem"], x), []
        for p in params["down"]:
            skips.append(x)
            x = block(p, x[:, ::2, ::2], time)
        x = block(params["mid"], x, time)
        for p in params["up"]:
            x = jnp.concatenate([_upsampled(x), skips.pop()], axis=-1)
            x = block(p, x, time)
        return _conv(params["head"], x)

    def part(seed, width):
        return {
            "conv1": weights(seed, 3, 3, width, 2) / 3,
            "conv2": weights(seed + 1, 3, 3, 2, 2) / 3,
            "skip": weights(seed + 2, 1, 1, width, 2),
            "time": weights(seed + 3, 3, 2),
        }

    params = {"time": weights(1, 2, 3), "stem": weights(2, 3, 3, 1, 2) / 3}
    params |= {"down": [part(3, 2), part(7, 2)], "mid": part(11, 2)}
    params |= {"up": [part(15, 4), part(19, 4)], "head": weights(23, 1, 1, 2, 1)}
    return handed(apply, params, normal(0, 3, 4, 4, 1), normal(1, 3, 2))


@holds(
    "bottom.0", "bottom.1", "bottom.2", "lateral.2", "lateral.1", "lateral.0", "head"
)
def feature_pyramid():
    def apply(params, x):
        maps = []
        for w in params["bottom"]:
            x = jax.nn.silu(_conv(w, x, stride=1 if not maps else 2))
            maps.append(x)
        x = _conv(params["lateral"][2], maps[2])
        for level in (1, 0):
            x = _upsampled(x) + _conv(params["lateral"][level], maps[level])
        return _conv(params["head"], x)

    bottom = [weights(i, 3, 3, c, 2) / 3 for i, c in ((1, 1), (2, 2), (3, 2))]
    lateral = [weights(i, 1, 1, 2, 2) for i in (4, 5, 6)]
    params = {"bottom": bottom, "lateral": lateral, "head": weights(7, 1, 1, 2, 1)}
    return handed(apply, params, normal(0, 3, 4, 4, 1))


@holds(
    "embed",
    *(f"blocks.{i}.{part}" for i in range(3) for part in ("attention", "mlp")),
    "head",
)
def pre_norm_transformer():
    def apply(params, x):
        x = x @ params["embed"]
        for p in params["blocks"]:
            x = _encoder(p, x)
        return _norm(x)[:, -1] @ params["head"]

    params = {"embed": weights(1, 2, 4), "head": weights(2, 4, 2)}
    params["blocks"] = [_encoder_params(i) for i in (3, 13, 23)]
    return handed(apply, params, normal(0, 3, 2, 2))


# Message passing, derivatives of networks.

_RING = np.eye(4)[[1, 2, 3, 0]]


@holds(*(f"steps.{i}.{n}" for i in range(2) for n in ("edge", "node")), "head")
def message_passing_over_nodes_and_edges():
    def apply(params, nodes, edges):
        ring = jnp.asarray(_RING, nodes.dtype)
        for p in params["steps"]:
            ends = [edges, nodes, jnp.einsum("ij,bjd->bid", ring, nodes)]
            edges = jnp.tanh(jnp.concatenate(ends, axis=2) @ p["edge"]["w"])
            arriving = jnp.einsum("ij,bid->bjd", ring, edges)
            both = jnp.concatenate([nodes, arriving], axis=2)
            nodes = jnp.tanh(both @ p["node"]["w"])
        return (jnp.mean(nodes, 1) + jnp.mean(edges, 1)) @ params["head"]

    def step(seed):
        return {
            "edge": {"w": weights(seed, 6, 2)},
            "node": {"w": weights(seed + 1, 4, 2)},
        }

    params = {"steps": [step(1), step(3)], "head": weights(5, 2, 2)}
    return handed(apply, params, normal(0, 3, 4, 2), normal(1, 3, 4, 2))


@holds(
    *(f"layers.{i}" for i in range(4)),
    *(f"layers.{i}@2" for i in range(4)),
    *(f"layers.{i}@3" for i in range(4)),
)
def residual_of_a_differential_equation():
    """The network, and its second derivatives in two directions."""

    def network(layers, x):
        for p in layers[:-1]:
            x = jnp.tanh(x @ p["w"] + p["b"])
        return (x @ layers[-1]["w"])[0]

    def apply(params, points):
        def residual(x):
            u = functools.partial(network, params["layers"])

            def second(v):
                def slope(x):
                    return jax.jvp(u, (x,), (v,))[1]

                return jax.jvp(slope, (x,), (v,))[1]

            return sum(second(v) for v in jnp.eye(2, dtype=x.dtype)) + u(x) ** 2

        return jax.vmap(residual)(points)

    sizes = ((2, 4), (4, 4), (4, 4), (4, 1))
    layers = [{"w": weights(i, *s), "b": normal(i, s[1])} for i, s in enumerate(sizes)]
    return handed(apply, {"layers": layers}, normal(9, 3, 2))
