"""What holds for every transformation of the room."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradstab import clipping

pytestmark = pytest.mark.cases

CLIPPERS = {
    "value": clipping.clip_by_value(0.5),
    "global norm": clipping.clip_by_global_norm(0.5),
    "layer norm": clipping.clip_by_layer_norm(0.5),
    "stacked layers": clipping.clip_by_layer_norm(0.5, stacked="blocks"),
    "block rms": clipping.clip_by_block_rms(0.5),
    "adaptive": clipping.adaptive_clip(0.1),
    "percentile": clipping.clip_by_percentile(50.0, window=3),
    "zscore": clipping.clip_by_zscore(warmup=2),
}
OTHERS = {
    "skip nonfinite": clipping.skip_nonfinite(optax.sgd(0.1, momentum=0.9), 3),
    "skip large": clipping.skip_large(optax.sgd(0.1, momentum=0.9), 1.0),
    "l1": clipping.add_l1_penalty(0.1),
    "l2": clipping.add_l2_penalty(0.1),
    "recorded": clipping.recorded(clipping.clip_by_zscore()),
    "all": optax.chain(
        clipping.add_l2_penalty(0.1),
        clipping.skip_nonfinite(
            optax.chain(clipping.recorded(clipping.adaptive_clip()), optax.trace(0.9))
        ),
    ),
}
EVERY = CLIPPERS | OTHERS

every = pytest.mark.parametrize("tx", EVERY.values(), ids=EVERY.keys())
every_clipper = pytest.mark.parametrize("tx", CLIPPERS.values(), ids=CLIPPERS.keys())
every_dtype = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])


def parameters(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    arrays = {
        "blocks": {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)},
        "head": {"kernel": rng.normal(size=4)},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays)


@every
@every_dtype
def test_the_state_is_final_from_the_start(tx, dtype):
    params = parameters(dtype)
    state = tx.init(params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@pytest.mark.slow
@every
def test_steps_donate_their_state_are_traced_once_and_ride_in_mapped_scans(tx):
    chex.clear_trace_counter()  # it counts by id, and ids come again
    factors = jnp.array([0.5, 1.0, 20.0, jnp.nan])

    def step(params, state, factor):
        grads = jax.tree.map(lambda leaf: leaf * factor, params)
        updates, state = tx.update(grads, state, params)
        return state, updates

    def steps(params):
        return jax.lax.scan(functools.partial(step, params), tx.init(params), factors)

    one_step = jax.jit(chex.assert_max_traces(step, 1), donate_argnums=1)
    params, outputs = parameters(), []
    state = tx.init(params)
    for factor in factors:
        state, updates = one_step(params, state, factor)
        outputs.append(updates)
    outputs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)

    others = jax.tree.map(lambda leaf: jnp.stack([9 * leaf, leaf]), params)
    mapped = jax.jit(jax.vmap(steps))(others)
    second = jax.tree.map(lambda leaf: leaf[1], mapped)
    # XLA may order sums differently in another program, by a few roundings per sum.
    chex.assert_trees_all_close(second, (state, outputs), rtol=1e-5)


@every_clipper
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_with_a_nonfinite_entry_passes_unchanged(tx, bad):
    params = parameters()
    grads = jax.tree.map(lambda leaf: leaf * 100, params)
    grads["head"]["kernel"] = grads["head"]["kernel"].at[1].set(bad)
    step = jax.jit(tx.update)
    for state in (tx.init(params), step(params, tx.init(params), params)[1]):
        updates, after = step(grads, state, params)
        chex.assert_trees_all_equal(updates, grads)
        chex.assert_trees_all_equal(after, state)


@pytest.mark.slow
@every_clipper
def test_zero_gradients_stay_zero(tx):
    params = parameters()
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.debug_nans(True):
        updates, _ = tx.update(zeros, tx.init(params), params)
    chex.assert_trees_all_equal(updates, zeros)


@pytest.mark.parametrize(
    "clipper",
    [
        clipping.clip_by_value,
        clipping.clip_by_global_norm,
        clipping.clip_by_layer_norm,
        clipping.clip_by_block_rms,
        clipping.adaptive_clip,
    ],
)
def test_a_threshold_of_zero_gives_zeros(clipper):
    params, tx = parameters(), clipper(0.0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for grads in (params, zeros):
        updates, _ = tx.update(grads, tx.init(params), params)
        chex.assert_trees_all_equal(updates, zeros)


EVERY_BUT_STACKED = {k: v for k, v in EVERY.items() if k != "stacked layers"}


@pytest.mark.parametrize("tx", EVERY_BUT_STACKED.values(), ids=EVERY_BUT_STACKED.keys())
@pytest.mark.parametrize("tree", [{}, (), None, jnp.zeros((0, 3))])
def test_trees_without_entries_are_fine(tx, tree):
    updates, _ = tx.update(tree, tx.init(tree), tree if tree is not None else ())
    chex.assert_trees_all_equal(updates, tree)


@every_clipper
def test_leaves_that_are_no_floats_pass_unchanged(tx):
    params = parameters() | {"count": jnp.arange(3), "none": None}
    updates, _ = tx.update(params, tx.init(params), params)
    chex.assert_trees_all_equal(updates["count"], params["count"])
    assert updates["none"] is None


@every
def test_masked_leaves_are_left_to_others(tx):
    params = parameters()
    masked = optax.masked(tx, {"blocks": True, "head": False})
    updates, _ = masked.update(params, masked.init(params), params)
    chex.assert_trees_all_equal(updates["head"], params["head"])


@every
def test_extra_arguments_are_taken_and_ignored(tx):
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    params, value = parameters(), jnp.ones(())
    jax.eval_shape(tx.update, params, tx.init(params), params, value=value)


SCHEDULED = {
    "max_delta": (clipping.clip_by_value, {}, (0.1, 0.3)),
    "max_norm": (clipping.clip_by_global_norm, {}, (0.1, 0.3)),
    "layer max_norm": (clipping.clip_by_layer_norm, {}, (0.1, 0.3)),
    "threshold": (clipping.clip_by_block_rms, {}, (0.1, 0.3)),
    "clipping": (clipping.adaptive_clip, {"eps": 1e-2}, (0.1, 0.3)),
    "percentile": (clipping.clip_by_percentile, {"window": 4}, (0.0, 100.0)),
    "z_threshold": (clipping.clip_by_zscore, {"warmup": 1, "alpha": 0.9}, (1.0, 2.0)),
    "l1 weight": (clipping.add_l1_penalty, {}, (0.1, 0.3)),
    "l2 weight": (clipping.add_l2_penalty, {}, (0.1, 0.3)),
}


@pytest.mark.parametrize(
    ("factory", "others", "values"), SCHEDULED.values(), ids=SCHEDULED.keys()
)
def test_thresholds_can_be_scheduled(factory, others, values):
    name = next(iter(inspect.signature(factory).parameters))
    params = parameters()
    first, second = values
    static = ("window",) if "window" in others else ()
    tx = optax.inject_hyperparams(factory, static_args=static)(
        **{name: lambda count: jnp.where(count < 1, first, second)}, **others
    )
    state = tx.init(params)
    plain = [factory(value, **others) for value in values]
    plain_state = plain[0].init(params)
    for fixed in plain:
        updates, state = jax.jit(tx.update)(params, state, params)
        expected, plain_state = fixed.update(params, plain_state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_one_compiled_step_serves_many_thresholds():
    grads = jnp.array([3.0, 4.0])
    tx = optax.inject_hyperparams(clipping.clip_by_global_norm)(max_norm=1.0)

    chex.clear_trace_counter()

    @jax.jit
    @jax.vmap
    @chex.assert_max_traces(1)
    def norm(max_norm):
        state = optax.tree.set(tx.init(grads), max_norm=max_norm)
        return jnp.linalg.norm(tx.update(grads, state)[0])

    np.testing.assert_allclose(norm(jnp.array([0.1, 1.0, 9.0])), [0.1, 1, 5], rtol=1e-6)


INVALID = [
    lambda: clipping.clip_by_value(-1.0),
    lambda: clipping.clip_by_global_norm(float("nan")),
    lambda: clipping.clip_by_global_norm(jnp.array(-1.0)),
    lambda: clipping.clip_by_global_norm(jnp.ones(2)),
    lambda: clipping.clip_by_layer_norm(-1),
    lambda: clipping.clip_by_block_rms(np.float32(-1)),
    lambda: clipping.adaptive_clip(-0.01),
    lambda: clipping.adaptive_clip(eps=float("nan")),
    lambda: clipping.clip_by_percentile(101.0),
    lambda: clipping.clip_by_percentile(10.0, window=0),
    lambda: clipping.clip_by_percentile(10.0, window=2.5),
    lambda: clipping.clip_by_zscore(-1.0),
    lambda: clipping.clip_by_zscore(alpha=1.1),
    lambda: clipping.clip_by_zscore(warmup=0),
    lambda: clipping.skip_large(optax.sgd(1.0), -1.0),
    lambda: clipping.skip_nonfinite(optax.sgd(1.0), -1),
    lambda: clipping.add_l1_penalty(-1.0),
    lambda: clipping.add_l2_penalty(float("nan")),
]


@pytest.mark.parametrize("build", INVALID)
def test_an_invalid_threshold_is_an_error_when_it_is_given(build):
    with pytest.raises(ValueError, match="must be"):
        build()


def test_a_schedule_or_a_traced_size_is_an_error_that_says_what_to_do():
    with pytest.raises(TypeError, match="inject_hyperparams"):
        clipping.clip_by_global_norm(optax.linear_schedule(1.0, 0.1, 10))
    scheduled = optax.inject_hyperparams(clipping.clip_by_percentile)(10.0, window=5)
    with pytest.raises(ValueError, match="static_args"):
        scheduled.init(parameters())


@pytest.mark.parametrize("name", ["adaptive_clip", "add_l1_penalty", "add_l2_penalty"])
def test_missing_parameters_are_an_error_that_says_what_to_do(name):
    tx, grads = getattr(clipping, name)(0.1), parameters()
    with pytest.raises(ValueError, match=rf"{name} needs.*update\(updates, state, par"):
        tx.update(grads, tx.init(grads))
