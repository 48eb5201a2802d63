"""Roles that the program tells, of models that are written in unusual ways."""

import jax
import jax.numpy as jnp
import pytest

import gradstab as gs
from gradstab.scaling import Role

X = jnp.ones((4, 5))
BASE = 16


def normal(key, *shape, fan=None):
    """Draws of standard deviation one over the root of the fan-in."""
    return jax.random.normal(key, shape) / (fan or shape[0]) ** 0.5


def roles_of(apply, shapes, inputs=X, **options):
    """What is found for a function of parameters of these shapes, by name."""

    def make(width, key):
        params = {
            name: normal(jax.random.fold_in(key, i), *shape(width))
            for i, (name, shape) in enumerate(shapes.items())
        }
        return apply, params

    found = gs.parametrize(make, base_width=BASE, inputs=inputs, **options)
    return {one.name: one for one in found.roles}


AROUND = {"first": lambda n: (5, n), "head": lambda n: (n, 3)}


def around(middle):
    """A network with something in its middle."""

    def apply(params, x):
        h = jnp.tanh(x @ params["first"])
        return jnp.tanh(middle(params, h)) @ params["head"]

    return apply


def fused(params, h):
    """Queries, keys and values of one kernel, over heads of one size."""
    q, k, v = jnp.split(h @ params["qkv"], 3, -1)
    heads = [a.reshape(len(h), -1, 8) for a in (q, k, v)]
    weights = jax.nn.softmax(jnp.einsum("bhd,chd->hbc", *heads[:2]) / 8**0.5)
    return jnp.einsum("hbc,chd->bhd", weights, heads[2]).reshape(h.shape)


def grouped(params, h):
    """A convolution over time in groups whose size stays."""
    return jax.lax.conv_general_dilated(
        h[:, None],
        params["w"],
        (1,),
        "SAME",
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=h.shape[-1] // 4,
    )[:, 0]


def two_groups(params, h):
    """A convolution in two groups that grow."""
    return jax.lax.conv_general_dilated(
        h[:, None],
        params["w"],
        (1,),
        "SAME",
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=2,
    )[:, 0]


def weight_norm(params, h):
    """A direction and a length."""
    v = params["v"]
    return h @ (v / jnp.linalg.norm(v, axis=0) * params["g"])


def experts(params, h):
    """Two experts, mixed by a router."""
    shares = jax.nn.softmax(h @ params["router"])
    return jnp.einsum("be,bed->bd", shares, jnp.einsum("bn,end->bed", h, params["w"]))


def dispatched(params, h):
    """Two experts, each for its examples."""
    return jax.lax.ragged_dot(h, params["w"], jnp.array([2, 2]))


def gathered(params, h):
    """An expert for each example, looked up."""
    chosen = jnp.argmax(h[:, :2], -1)
    return jnp.einsum("bn,bnd->bd", h, params["w"][chosen])


def scanned(params, h):
    """Layers in a scan with rematerialisation."""

    def step(h, layer):
        return jnp.tanh(h @ layer), None

    return jax.lax.scan(jax.checkpoint(step), h, params["w"])[0]


def branched(params, h):
    """A layer in a branch."""
    return jax.lax.cond(h.sum() > 0, lambda h: h @ params["w"], lambda h: h, h)


CASES = {
    "fused queries, keys and values": (
        fused,
        {"qkv": lambda n: (n, 3 * n)},
        {"qkv": "hidden"},
    ),
    "a gate": (
        lambda p, h: jax.nn.silu(h @ p["gate"]) * (h @ p["up"]),
        {"gate": lambda n: (n, n), "up": lambda n: (n, n)},
        {"gate": "hidden", "up": "hidden"},
    ),
    "low-rank adapters": (
        lambda p, h: h @ p["w"] + h @ p["a"] @ p["b"],
        {"w": lambda n: (n, n), "a": lambda n: (n, 2), "b": lambda n: (2, n)},
        {"w": "hidden", "a": "output", "b": "input"},
    ),
    "merged low-rank adapters": (
        lambda p, h: h @ (p["w"] + p["a"] @ p["b"]),
        {"w": lambda n: (n, n), "a": lambda n: (n, 2), "b": lambda n: (2, n)},
        {"w": "hidden", "a": "ambiguous", "b": "ambiguous"},
    ),
    "groups whose size stays": (
        grouped,
        {"w": lambda n: (3, 4, n)},
        {"w": "input"},
    ),
    "groups that grow": (two_groups, {"w": lambda n: (3, n // 2, n)}, {"w": "hidden"}),
    "blocks on the diagonal": (
        lambda p, h: jnp.einsum(
            "bhk,hkj->bhj", h.reshape(len(h), -1, 4), p["w"]
        ).reshape(h.shape),
        {"w": lambda n: (n // 4, 4, 4)},
        {"w": "input"},
    ),
    "weight normalisation": (
        weight_norm,
        {"v": lambda n: (n, n), "g": lambda n: (n,)},
        {"v": "ambiguous", "g": "ambiguous"},
    ),
    "experts": (
        experts,
        {"router": lambda n: (n, 2), "w": lambda n: (2, n, n)},
        {"router": "output", "w": "hidden"},
    ),
    "experts with ragged products": (
        dispatched,
        {"w": lambda n: (2, n, n)},
        {"w": "hidden"},
    ),
    "experts that are looked up": (
        gathered,
        {"w": lambda n: (2, n, n)},
        {"w": "ambiguous"},
    ),
    "a bias over heads": (
        lambda p, h: (h.reshape(len(h), 2, -1) + p["b"]).reshape(h.shape),
        {"b": lambda n: (2, n // 2)},
        {"b": "vector"},
    ),
    "positions that are sliced": (
        lambda p, h: h + p["positions"][:4],
        {"positions": lambda n: (9, n)},
        {"positions": "vector"},
    ),
    "a token before the others": (
        lambda p, h: jnp.concatenate([jnp.tile(p["token"], (1, 1)), h])[:4] * 1.5,
        {"token": lambda n: (1, n)},
        {"token": "vector"},
    ),
    "a scalar gain": (
        lambda p, h: p["gain"] * h @ p["w"],
        {"gain": lambda n: (1,), "w": lambda n: (n, n)},
        {"gain": "fixed", "w": "hidden"},
    ),
    "one kernel twice": (
        lambda p, h: jnp.tanh(h @ p["w"]) @ p["w"].T,
        {"w": lambda n: (n, n)},
        {"w": "hidden"},
    ),
    "layers in a scan": (scanned, {"w": lambda n: (2, n, n)}, {"w": "hidden"}),
    "layers mapped over": (
        lambda p, h: jax.vmap(lambda w: h @ w)(p["w"]).sum(0),
        {"w": lambda n: (2, n, n)},
        {"w": "hidden"},
    ),
    "a layer in a branch": (branched, {"w": lambda n: (n, n)}, {"w": "ambiguous"}),
    "a product written as two steps": (
        lambda p, h: (h[:, :, None] * p["w"]).sum(1),
        {"w": lambda n: (n, n)},
        {"w": "hidden"},
    ),
    "a bottleneck written as two steps": (
        lambda p, h: h * (h * p["w"]).mean(1, keepdims=True),
        {"w": lambda n: (n,)},
        {"w": "output"},
    ),
    "a gain before a mean that is subtracted": (
        lambda p, h: (h * p["gain"]) - (h * p["gain"]).mean(-1, keepdims=True),
        {"gain": lambda n: (n,)},
        {"gain": "ambiguous"},
    ),
    "a kernel of signs": (
        lambda p, h: h @ jnp.sign(p["w"]),
        {"w": lambda n: (n, n)},
        {"w": "ambiguous"},
    ),
    "a standardised kernel": (
        lambda p, h: h @ ((p["w"] - p["w"].mean(0)) / (p["w"].std(0) + 1e-5)),
        {"w": lambda n: (n, n)},
        {"w": "ambiguous"},
    ),
    "a kernel in half precision, masked": (
        lambda p, h: (
            h
            @ jnp.where(
                jnp.arange(h.shape[1])[:, None] % 2 == 0, p["w"].astype(jnp.bfloat16), 0
            ).astype(jnp.float32)
        ),
        {"w": lambda n: (n, n)},
        {"w": "hidden"},
    ),
    "input kernels of heads": (
        lambda p, h: jnp.einsum("bhk,hk->bh", h.reshape(len(h), 4, -1), p["w"]).repeat(
            h.shape[1] // 4, 1
        ),
        {"w": lambda n: (4, n // 4)},
        {"w": "output"},
    ),
}


@pytest.mark.slow  # two traces and compiled draws each
@pytest.mark.parametrize("case", CASES)
def test_the_program_says_what_a_parameter_is(case):
    middle, shapes, expected = CASES[case]
    with jax.numpy_rank_promotion("allow"):
        found = roles_of(around(middle), AROUND | shapes)
    assert {name: str(found[name].role) for name in expected} == expected
    assert str(found["first"].role) == "input"
    assert str(found["head"].role) == "output"
    for one in found.values():
        assert one.note or one.role is not Role.AMBIGUOUS
        if one.role is Role.AMBIGUOUS:
            assert (one.size, one.rate) == (0, 0)
