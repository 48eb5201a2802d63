"""A loss takes models as their own frameworks take them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from watched_losses import normal

import gradstab as gs

eqx = pytest.importorskip("equinox")

WIDTH = 5


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax and Flax promote."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


class Network(nnx.Module):
    """Batch statistics, random keys, and a list of layers."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(2)])
        self.last = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(self.norm(self.first(x)))
        for block in self.blocks:
            x = jnp.tanh(block(x))
        return self.last(x)


def mean_square(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


def with_output(model, x, y):
    output = model(x)
    return jnp.mean((output - y) ** 2), output


def plain(tree):
    """Every array of a tree as numbers, with keys as theirs."""

    def numbers(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return list(map(numbers, jax.tree.leaves(tree)))


def same(ours, others):
    pairs = zip(plain(ours), plain(others), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def nnx_steps(value_and_grad, loss=mean_square, num=2, **options):
    """Some steps of a loop, and what they leave: results, gradients, all variables."""
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        found, grads = value_and_grad(loss, **options)(model, x, y)
        optimizer.update(model, grads)
        return found, grads

    for number in range(num):
        found, grads = step(model, optimizer, normal(number, 8, 3), normal(9, 8, 2))
    return found, grads, nnx.state((model, optimizer))


@pytest.mark.slow
def test_a_module_of_nnx_trains_to_the_same_bits():
    value, grads, state = nnx_steps(nnx.value_and_grad)
    (watched, stats), ours, after = nnx_steps(gs.value_and_grad)
    assert same((value, grads, state), (watched, ours, after))
    assert jax.tree.structure(grads) == jax.tree.structure(ours)
    assert stats.names == ("first", "blocks.0", "blocks.1", "last", "(elsewhere)")
    assert stats.gradient_norm[-1] == 0  # every parameter belongs to a layer


@pytest.mark.slow
def test_what_a_loss_changes_in_a_module_is_changed():
    model, other = Network(nnx.Rngs(0)), Network(nnx.Rngs(0))
    x, y = normal(0, 8, 3), normal(1, 8, 2)
    nnx.jit(gs.value_and_grad(mean_square))(model, x, y)
    nnx.jit(nnx.value_and_grad(mean_square))(other, x, y)
    assert model.dropout.rngs.count[...] == 1
    assert (model.norm.mean[...] != 0).all()
    assert same(nnx.state(model), nnx.state(other))


@pytest.mark.slow
def test_a_loss_of_a_module_may_return_more():
    (value, output), grads, _ = nnx_steps(
        nnx.value_and_grad, with_output, num=1, has_aux=True
    )
    (watched, (ours, _)), others, _ = nnx_steps(
        gs.value_and_grad, with_output, num=1, has_aux=True
    )
    assert same((value, output, grads), (watched, ours, others))


@pytest.mark.slow
def test_a_part_of_a_module_may_be_chosen():
    part = nnx.DiffState(0, nnx.All(nnx.Param, nnx.PathContains("blocks")))
    value, grads, _ = nnx_steps_without_update(nnx.value_and_grad, part)
    (watched, stats), ours, _ = nnx_steps_without_update(gs.value_and_grad, part)
    assert list(ours) == ["blocks"]
    assert same((value, grads), (watched, ours))
    assert "blocks.1" in stats.names


def nnx_steps_without_update(value_and_grad, argnums):
    model = Network(nnx.Rngs(0))

    @nnx.jit
    def step(model, x, y):
        return value_and_grad(mean_square, argnums=argnums)(model, x, y)

    return (*step(model, normal(0, 8, 3), normal(1, 8, 2)), model)


@pytest.mark.slow
def test_keys_beside_the_model_are_counted_too():
    class Drops(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(3, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, rngs):
            return self.layer(self.dropout(x, rngs=rngs))

    def loss(model, x, rngs):
        return jnp.mean(model(x, rngs) ** 2)

    def run(value_and_grad):
        model, rngs = Drops(nnx.Rngs(0)), nnx.Rngs(1)
        step = nnx.jit(value_and_grad(loss))
        found = [step(model, normal(0, 8, 3), rngs) for _ in range(2)]
        return found, nnx.state(rngs)

    plain_steps, keys = run(nnx.value_and_grad)
    watched, ours = run(gs.value_and_grad)
    assert same(keys, ours)
    losses = [(value, grads) for (value, _), grads in watched]
    assert same(plain_steps, losses)
    assert losses[0][0] != losses[1][0]


def test_a_module_that_is_given_twice_is_refused():
    model = Network(nnx.Rngs(0))
    with pytest.raises(ValueError, match="shares variables"):
        gs.value_and_grad(lambda a, b: jnp.sum(b(a.first.bias)))(model, model)


def test_modules_in_a_container_are_refused():
    models = [nnx.Linear(2, 2, rngs=nnx.Rngs(0))]
    with pytest.raises(TypeError, match="give each module as an argument"):
        gs.value_and_grad(lambda m, x: jnp.sum(m[0](x)))(models, jnp.ones((3, 2)))


def test_a_part_of_what_is_no_module_is_refused():
    other = nnx.DiffState(0, nnx.BatchStat)
    with pytest.raises(TypeError, match="is no NNX module"):
        gs.value_and_grad(lambda w: jnp.sum(w), argnums=other)(jnp.ones(3))


def test_an_attribute_that_a_loss_changes_is_refused():
    class Counts(nnx.Module):
        def __init__(self, rngs):
            self.layer, self.calls = nnx.Linear(2, 2, rngs=rngs), 0

        def __call__(self, x):
            self.calls += 1
            return self.layer(x)

    model = Counts(nnx.Rngs(0))
    with pytest.raises(ValueError, match="attributes of the model"):
        gs.value_and_grad(lambda m, x: jnp.sum(m(x)))(model, jnp.ones((3, 2)))


class Perceptron(eqx.Module):
    """Functions, names and integers among the leaves; mapped over examples."""

    mlp: eqx.nn.MLP
    order: jax.Array
    scale: float

    def __init__(self, key):
        self.mlp = eqx.nn.MLP(3, 2, WIDTH, 2, activation=jax.nn.relu, key=key)
        self.order, self.scale = jnp.array([2, 0, 1]), 2.0

    def __call__(self, x):
        return self.mlp(x[self.order]) * self.scale


def mapped_mean_square(model, x, y):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def equinox_steps(value_and_grad, num=2):
    model, tx = Perceptron(jax.random.key(0)), optax.adam(1e-2)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        found, grads = value_and_grad(mapped_mean_square)(model, x, y)
        arrays = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(grads, state, arrays)
        if isinstance(found, tuple):
            found = found[0], found[1].with_updates(updates, arrays)
        return eqx.apply_updates(model, updates), state, found, grads

    for number in range(num):
        # As many examples as units: axes are not known by their lengths.
        x, y = normal(number, WIDTH, 3), normal(9, WIDTH, 2)
        model, state, found, grads = step(model, state, x, y)
    return found, grads, eqx.filter(model, eqx.is_array)


@pytest.mark.slow
def test_a_model_of_equinox_trains_to_the_same_bits():
    value, grads, model = equinox_steps(eqx.filter_value_and_grad)
    (watched, stats), ours, after = equinox_steps(gs.value_and_grad)
    assert same((value, grads, model), (watched, ours, after))
    assert jax.tree.structure(grads) == jax.tree.structure(ours)
    assert stats.names == (*(f"mlp.layers.{i}" for i in range(3)), "(elsewhere)")
    assert np.isfinite(stats.update_ratio[:-1]).all()


@pytest.mark.slow
def test_a_bias_behind_a_transposition_belongs_to_its_layer():
    """As `jax.vmap` of a product from the left makes them."""
    (_, stats), _, _ = equinox_steps(gs.value_and_grad)
    assert stats.gradient_norm[-1] == 0


def test_integers_of_a_plain_tree_are_still_refused():
    with pytest.raises(TypeError, match="floating arrays"):
        gs.value_and_grad(lambda p: jnp.sum(p["w"]))(
            {"w": jnp.ones(3), "n": jnp.arange(3)}
        )


def test_functions_among_the_leaves_of_a_plain_tree_are_left_alone():
    def loss(p, x):
        return jnp.mean(p["activation"](x @ p["w"]) ** 2)

    def step(w, x):
        return gs.value_and_grad(loss)({"w": w, "activation": jnp.tanh}, x)

    (_, stats), grads = jax.eval_shape(step, normal(0, 3, 2), normal(1, 8, 3))
    assert grads["activation"] is None
    assert grads["w"].shape == (3, 2)
    assert stats.names == ("w", "(elsewhere)")
