import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gradstab.models import build, scan_blocks, stack
from gradstab.models.stack import call_and_keep, scan_stacks

NUM = 3
WIDTH = 4
X = jax.random.normal(jax.random.key(7), (5, WIDTH))
# Fused and unfused sums of a few terms of size one.
CLOSE = 10 * float(jnp.finfo(jnp.float32).eps)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, h):
        return self.dropout(jnp.tanh(self.norm(self.dense(h))))


def make_blocks():
    return stack(Block, NUM, rngs=nnx.Rngs(0))


def unrolled(blocks, h):
    """The blocks called one by one: every output, and every block afterwards."""
    graphdef, state = nnx.split(blocks)
    outputs, after = [], []
    for i in range(NUM):
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], state))
        h = block(h)
        outputs.append(h)
        after.append(nnx.state(block))
    return outputs, after


@pytest.mark.slow
def test_a_scanned_stack_equals_a_loop_over_its_blocks():
    blocks = make_blocks()
    with jax.debug_key_reuse(False):  # slices of an array of keys count as its use
        outputs, _ = unrolled(nnx.clone(blocks), X)
    h, emitted = scan_blocks(blocks, X, step=call_and_keep)
    chex.assert_trees_all_close(h, outputs[-1], atol=CLOSE)
    chex.assert_trees_all_close(emitted, jnp.stack(outputs), atol=CLOSE)


def test_statistics_and_random_streams_of_every_block_are_written_back():
    blocks = make_blocks()
    with jax.debug_key_reuse(False):  # slices of an array of keys count as its use
        _, after = unrolled(nnx.clone(blocks), X)
    scan_blocks(blocks, X)
    for name in ("mean", "var"):
        expected = jnp.stack([state["norm"][name][...] for state in after])
        chex.assert_trees_all_close(
            getattr(blocks.norm, name)[...], expected, atol=CLOSE
        )
    chex.assert_trees_all_equal(blocks.dropout.rngs.count[...], jnp.ones(NUM, "uint32"))


@pytest.mark.slow
def test_gradients_through_the_scan_equal_those_of_the_loop():
    blocks = make_blocks()
    blocks.eval()
    graphdef, state = nnx.split(blocks)

    def scanned(state):
        return jnp.sum(scan_blocks(nnx.merge(graphdef, state), X)[0])

    def looped(state):
        return jnp.sum(unrolled(nnx.merge(graphdef, state), X)[0][-1])

    is_kernel = nnx.Param
    with jax.debug_key_reuse(False):  # slices of an array of keys count as its use
        params, rest = nnx.split_state(state, is_kernel, ...)
        got, expected = (
            jax.grad(lambda p, f=f: f(nnx.merge_state(p, rest)))(params)
            for f in (scanned, looped)
        )
    chex.assert_trees_all_close(got, expected, atol=10 * CLOSE)


def test_every_block_has_its_own_parameters_and_random_stream():
    blocks = make_blocks()
    kernels = blocks.dense.kernel[...]
    keys = jax.random.key_data(blocks.dropout.rngs.key[...])
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert (kernels[i] != kernels[j]).all()
        assert (keys[i] != keys[j]).any()


def test_initialisers_see_the_shape_of_one_block():
    shapes = []

    def init(key, shape, dtype):
        shapes.append(shape)
        return jnp.zeros(shape, dtype)

    stack(
        lambda rngs: nnx.Linear(WIDTH, WIDTH, kernel_init=init, rngs=rngs),
        NUM,
        rngs=nnx.Rngs(0),
    )
    assert shapes == [(WIDTH, WIDTH)]


def test_what_is_given_per_block_reaches_its_own_block():
    blocks = stack(Block, NUM, rngs=nnx.Rngs(0))
    order = jnp.array([1.0, 2.0, 3.0])
    h, emitted = scan_blocks(
        blocks, jnp.ones(()), order, step=lambda block, h, x: (10 * h + x, -x)
    )
    assert h == 1123
    chex.assert_trees_all_equal(emitted, -order)


def test_nothing_is_emitted_unless_a_step_does():
    assert scan_blocks(make_blocks(), X)[1] is None


def test_an_evaluated_model_can_be_closed_over_in_jit():
    blocks = make_blocks()
    blocks.eval()
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(blocks, nnx.BatchStat)))
    out = jax.jit(lambda x: scan_blocks(blocks, x)[0])(X)
    chex.assert_trees_all_close(out, scan_blocks(blocks, X)[0], atol=CLOSE)
    chex.assert_trees_all_equal(
        nnx.to_pure_dict(nnx.state(blocks, nnx.BatchStat)), before
    )


def test_blocks_are_kept_by_their_place_in_all_stacks():
    stacks = [
        stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), n, rngs=nnx.Rngs(n))
        for n in (2, 3)
    ]
    middle, (first,) = scan_stacks(stacks[:1], X, keep=(1,))
    last, kept = scan_stacks(stacks, X, keep=(5, 0, 2, 1))
    chex.assert_trees_all_close(kept, [last, X, middle, first], atol=CLOSE)


def test_a_single_block_may_change_the_shape_and_is_written_back():
    class Narrow(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(WIDTH, 2, rngs=rngs)
            self.norm = nnx.BatchNorm(2, momentum=0.0, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, h):
            return self.dropout(self.norm(self.dense(h)))

    blocks = stack(Narrow, 1, rngs=nnx.Rngs(0))
    first, kept = scan_blocks(blocks, X, step=call_and_keep)
    second, _ = scan_blocks(blocks, X)
    chex.assert_trees_all_equal(kept, first[None])
    assert (first != second).any()
    means = (X @ blocks.dense.kernel[0]).mean(axis=0)
    chex.assert_trees_all_close(blocks.norm.mean[0], means, atol=CLOSE)


def test_a_stack_of_no_blocks_is_refused():
    with pytest.raises(ValueError, match="at least one block, got 0"):
        stack(Block, 0, rngs=nnx.Rngs(0))


def test_the_tree_mode_of_flax_gives_the_same_answer():
    blocks = make_blocks()
    expected = scan_blocks(blocks, X)[0]
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        blocks = make_blocks()
        chex.assert_trees_all_equal(scan_blocks(blocks, X)[0], expected)
        assert (blocks.norm.mean[...] != 0).all()


def num_equations(jaxpr):
    """Equations of a jaxpr and of all jaxprs inside it."""
    inner = jax.tree.leaves(
        [list(e.params.values()) for e in jaxpr.eqns],
        is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr"),
    )
    inner = [getattr(p, "jaxpr", p) for p in inner]
    return len(jaxpr.eqns) + sum(num_equations(p) for p in inner if hasattr(p, "eqns"))


@pytest.mark.parametrize(
    ("kind", "in_shape", "options"),
    [
        ("mlp", (4,), {"norm": "batch", "dropout": 0.1, "aux_heads": (3,)}),
        ("resnet", (4,), {"norm": "batch", "dropout": 0.1}),
        ("lstm", (3, 4), {"dropout": 0.1}),
        ("transformer", (3, 4), {"dropout": 0.1, "num_heads": 2}),
    ],
)
def test_the_program_of_a_training_step_does_not_grow_with_depth(
    kind, in_shape, options
):
    def equations(depth):
        model = nnx.eval_shape(
            lambda: build(
                kind, in_shape=in_shape, num_outputs=2, width=4, depth=depth, **options
            )
        )
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params, rest, x):
            model = nnx.merge(graphdef, params, rest, copy=True)
            total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(model(x)))
            return total, nnx.state(model, nnx.Not(nnx.Param))

        step = jax.value_and_grad(loss, has_aux=True)
        x = jnp.ones((5, *in_shape))
        return num_equations(jax.make_jaxpr(step)(params, rest, x).jaxpr)

    assert equations(1000) == equations(10)
