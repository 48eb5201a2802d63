"""Networks of many kinds, small, in float64: what the analyser must see through."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx

from gradstab import models
from gradstab.network.adapters import as_target


class Case(NamedTuple):
    """A model, and the names of the layers that it has."""

    apply: Any  # apply(params, state, *inputs)
    params: Any
    inputs: tuple
    names: tuple
    state: Any = ()
    output: Any = None


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def _weights(num, width=3):
    return [_normal(i, width, width) for i in range(num)]


def _plain(apply, params, names, inputs=None, **more):
    def with_state(params, state, *inputs):
        return apply(params, *inputs)

    return Case(with_state, params, inputs or (_normal(99, 2, 3),), names, **more)


def _of_model(model, x, names, *, batched=True):
    target = as_target(model, (x,), batched=batched)
    widen = functools.partial(jax.tree.map, _float64)
    params, state = widen(target.params), widen(target.state)

    def apply(params, state, x):
        # The normalisations of flax ask jnp.promote_types, which strictness forbids.
        with jax.numpy_dtype_promotion("standard"):
            return target.apply(params, state, x)

    return Case(apply, params, (x,), names, state=state)


def _float64(leaf):
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if floating else leaf


def _dense(w, x):
    return jnp.tanh(x @ w)


def unrolled_list():
    def apply(ws, x):
        for w in ws:
            x = _dense(w, x)
        return x

    return _plain(apply, _weights(4), ("0", "1", "2", "3"))


def stacked_scan():
    def apply(params, x):
        x = _dense(params["stem"], x)
        x, _ = jax.lax.scan(lambda h, w: (_dense(w, h), None), x, params["blocks"])
        return x @ params["head"]

    params = {"stem": _normal(7, 3, 4), "head": _normal(8, 4, 2)}
    params["blocks"] = jnp.stack(_weights(3, 4))
    names = ("stem", "blocks.0", "blocks.1", "blocks.2", "head")
    return _plain(apply, params, names)


def reversed_scan():
    def apply(params, x):
        def body(h, block):
            return _dense(block["w"], h) + block["b"][None], None

        return jax.lax.scan(body, x, params["blocks"], reverse=True)[0]

    params = {"blocks": {"w": jnp.stack(_weights(3)), "b": _normal(5, 3, 3)}}
    return _plain(apply, params, ("blocks.2", "blocks.1", "blocks.0"))


def two_products_in_a_scanned_block():
    def apply(params, x):
        def body(h, block):
            h = h + jnp.tanh(h @ block["first"]["w"]) @ block["first"]["v"]
            return h + jnp.sin(h @ block["second"]["w"]), None

        return jax.lax.scan(body, x, params)[0]

    first = {"w": jnp.stack(_weights(2)), "v": jnp.stack(_weights(2))}
    params = {"first": first, "second": {"w": jnp.stack(_weights(2))}}
    names = ("first.0", "second.0", "first.1", "second.1")
    return _plain(apply, params, names)


def tied_weights():
    def apply(params, x):
        for _ in range(3):
            x = _dense(params["w"], x)
        return x

    return _plain(apply, {"w": _normal(1, 3, 3)}, ("w", "w@2", "w@3"))


def tied_in_a_scan():
    def apply(params, x):
        def body(h, _):
            return _dense(params["cell"]["w"], h), None

        return jax.lax.scan(body, x, None, length=3)[0]

    names = ("cell.0", "cell.1", "cell.2")
    return _plain(apply, {"cell": {"w": _normal(1, 3, 3)}}, names)


def nested_jit_and_remat():
    inner = jax.jit(_dense)
    outer = jax.jit(lambda w, x: inner(w, x) + x)
    saved = jax.checkpoint(lambda w, x: outer(w, jnp.sin(x)))

    def apply(ws, x):
        for w in ws:
            x = saved(w, x)
        return x

    return _plain(apply, _weights(2), ("0", "1"))


@jax.custom_vjp
def squash(x):
    """A softsign whose rule has the backward direction only."""
    return x / (1 + jnp.abs(x))


squash.defvjp(lambda x: (squash(x), x), lambda x, g: (g / jnp.square(1 + jnp.abs(x)),))


@jax.custom_jvp
def cube(x):
    """A cube with a rule of its own."""
    return x * x * x


cube.defjvp(
    lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2 * tangents[0])
)


def rules_of_differentiation():
    def apply(ws, x):
        for w in ws:
            x = cube(squash(x @ w))
        return x

    return _plain(apply, _weights(2), ("0", "1"))


def fresh(tree):
    """The arrays, with keys that have not been used."""
    return jax.tree.map(
        lambda leaf: jax.random.clone(leaf) if _key(leaf) else leaf, tree
    )


def _key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def dropout_with_a_key():
    def apply(ws, x, key):
        for w in ws:
            key, key_mask = jax.random.split(key)
            mask = jax.random.bernoulli(key_mask, 0.7, x.shape)
            x = jnp.where(mask, _dense(w, x) / 0.7, 0)
        return x

    inputs = (_normal(99, 2, 3), jax.random.key(3))
    return _plain(apply, _weights(2), ("0", "1"), inputs)


def masks_computed_from_data():
    def apply(ws, x):
        mask = x > 0
        first = jnp.argsort(x, axis=1)[:, 0].astype(jnp.int32)
        for w in ws:
            x = jnp.where(mask, x @ w, 0.5 * x)
            _, top = jax.lax.top_k(x, 2)
            x = x * jax.nn.one_hot(top[:, 0] + first, 3, dtype=x.dtype) + x
        return x

    return _plain(apply, _weights(2), ("0", "1"))


def embedding_of_integers():
    def apply(params, ids):
        h = params["table"][ids] + params["positions"][None]
        h = jnp.where((ids > 0)[..., None], _dense(params["hidden"], h), 0)
        return jnp.mean(h, axis=1) @ params["head"]

    params = {"table": _normal(1, 5, 3), "positions": _normal(2, 4, 3)}
    params |= {"hidden": _normal(3, 3, 3), "head": _normal(4, 3, 2)}
    ids = jnp.array([[0, 1, 2, 3], [4, 0, 2, 1]])
    return _plain(apply, params, ("table", "hidden", "head"), (ids,))


def auxiliary_heads():
    def apply(params, x):
        first = _dense(params["first"], x)
        second = _dense(params["second"], first)
        return {"main": second @ params["head"], "early": first @ params["aux"]}

    params = dict(zip(("first", "second", "head", "aux"), _weights(4), strict=True))
    names = ("first", "second", "head")
    return _plain(apply, params, names, output=lambda result: result["main"])


def branches_and_long_skips():
    def apply(params, x):
        y = _dense(params["a"], x) * jax.nn.sigmoid(x @ params["gate"])
        z = jnp.concatenate([y, x], axis=1) @ params["join"]
        return _dense(params["last"], z)

    params = dict(zip(("a", "gate", "last"), _weights(3), strict=True))
    params |= {"join": _normal(5, 6, 3)}
    # No point before the concatenation is passed by all paths: one layer.
    return _plain(apply, params, ("a+gate", "join", "last"))


def reshaped_and_normalised_weights():
    def apply(params, x):
        w = params["flat"].reshape(3, 3)
        v = params["direction"]
        v = v / jnp.linalg.norm(v, axis=0, keepdims=True) * params["length"][None]
        return _dense(v, _dense(w, x))

    params = {"flat": _normal(1, 9), "direction": _normal(2, 3, 3)}
    params["length"] = _normal(3, 3)
    return _plain(apply, params, ("flat", "direction+length"))


def two_inputs():
    def apply(params, x, y):
        return _dense(params["b"], _dense(params["a"], jnp.concatenate([x, y], 1)))

    params = {"a": _normal(1, 5, 3), "b": _normal(2, 3, 3)}
    return _plain(apply, params, ("a", "b"), (_normal(3, 2, 3), _normal(4, 2, 2)))


def two_carries():
    def apply(params, x):
        def body(carry, w):
            a, b = carry
            return (b + jnp.tanh(a @ w), a), None

        (a, b), _ = jax.lax.scan(body, (x, x), params["w"])
        return (a + b) @ params["head"]

    params = {"w": jnp.stack(_weights(2)), "head": _normal(1, 3, 2)}
    return _plain(apply, params, ("w.0", "w.1", "head"))


def cond_is_opaque():
    def apply(params, x):
        x = jax.lax.cond(jnp.sum(x) > 0, _dense, lambda w, x: x @ w, params["a"], x)
        return _dense(params["b"], x)

    params = dict(zip("ab", _weights(2), strict=True))
    return _plain(apply, params, ("a", "b"))


def counter_in_the_carry():
    def apply(ws, x):
        def body(carry, w):
            h, step = carry
            return (_dense(w, h) * (1 + step), step + 1), None

        return jax.lax.scan(body, (x, jnp.zeros(())), ws["layers"])[0][0]

    return _plain(apply, {"layers": jnp.stack(_weights(2))}, ("layers.0", "layers.1"))


def mlp():
    model = models.MLP(
        3, 2, widths=(4,) * 4, activation="tanh", kernel_init=_init, rngs=nnx.Rngs(0)
    )
    names = ("input", "blocks.0", "blocks.1", "blocks.2", "head")
    return _of_model(model, _normal(1, 2, 3), names)


def dense_resnet():
    model = models.ResNet(
        3, 2, width=4, depth=2, activation="relu", kernel_init=_init, rngs=nnx.Rngs(0)
    )
    return _of_model(model, _normal(1, 2, 3), ("stem", "blocks.0", "blocks.1", "head"))


def convolutional_resnet():
    model = models.ResNet(
        1,
        2,
        width=2,
        depth=2,
        kernel_size=3,
        activation="softplus",
        kernel_init=_init,
        rngs=nnx.Rngs(0),
    )
    names = ("stem", "blocks.0", "blocks.1", "head")
    return _of_model(model, _normal(1, 2, 4, 4, 1), names)


def transformer():
    model = models.Transformer(
        3,
        2,
        width=4,
        depth=2,
        num_heads=2,
        mlp_width=5,
        max_length=3,
        activation="gelu",
        kernel_init=_init,
        rngs=nnx.Rngs(0),
    )
    names = ("embed", *TRANSFORMER_BLOCKS, "head")
    return _of_model(model, _normal(1, 2, 3, 3), names)


TRANSFORMER_BLOCKS = (
    "blocks.0.attention",
    "blocks.0.mlp",
    "blocks.1.attention",
    "blocks.1.mlp",
)
_init = jax.nn.initializers.lecun_normal()


class LinenNet(linen.Module):
    """Two dense layers."""

    @linen.compact
    def __call__(self, x):
        """Logits."""
        hidden = linen.Dense(4)(x)
        return linen.Dense(2)(jnp.tanh(hidden))


def linen_pair():
    module, x = LinenNet(), _normal(1, 2, 3)
    variables = module.init(jax.random.key(0), x.astype(jnp.float32))
    return _of_model((module, variables), x, ("Dense_0", "Dense_1"))


class Affine(NamedTuple):
    """A callable pytree of arrays and functions, as Equinox makes them."""

    weight: Any
    bias: Any
    activation: Any

    def __call__(self, x):
        """One example at a time."""
        return self.activation(self.weight @ x + self.bias)


class Sequential(NamedTuple):
    """A callable pytree that holds others."""

    first: Affine
    last: Affine

    def __call__(self, x):
        """One example at a time."""
        return self.last(self.first(x))


def callable_pytree_of_one_example():
    first = Affine(_normal(1, 4, 3), _normal(2, 4), jnp.tanh)
    last = Affine(_normal(3, 2, 4), _normal(4, 2), jax.nn.silu)
    x = _normal(5, 2, 3)
    return _of_model(Sequential(first, last), x, ("first", "last"), batched=False)


NETWORKS = {
    function.__name__: function
    for function in (
        unrolled_list,
        stacked_scan,
        reversed_scan,
        two_products_in_a_scanned_block,
        tied_weights,
        tied_in_a_scan,
        nested_jit_and_remat,
        rules_of_differentiation,
        dropout_with_a_key,
        masks_computed_from_data,
        embedding_of_integers,
        auxiliary_heads,
        branches_and_long_skips,
        reshaped_and_normalised_weights,
        two_inputs,
        two_carries,
        cond_is_opaque,
        counter_in_the_carry,
        mlp,
        dense_resnet,
        convolutional_resnet,
        transformer,
        linen_pair,
        callable_pytree_of_one_example,
    )
}
