import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn import initializers

from gradstab.models import Transformer, scan_blocks
from gradstab.models.transformer import Attention

pytestmark = pytest.mark.slow  # a program for every option

EPS = float(jnp.finfo(jnp.float32).eps)
X = jax.random.normal(jax.random.key(0), (3, 4, 4))
TOKENS = jnp.arange(12).reshape(3, 4) % 7


def transformer(in_features=4, **options):
    defaults = {
        "width": 4,
        "depth": 2,
        "num_heads": 2,
        "mlp_width": 4,
        "max_length": 6,
        "kernel_init": initializers.normal(0.5),
        "embed_init": initializers.normal(1.0),
        "rngs": nnx.Rngs(params=0, dropout=1),
    }
    return Transformer(in_features, 4, **(defaults | options))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_its_formula(causal):
    layer = Attention(
        4,
        num_heads=2,
        causal=causal,
        kernel_init=initializers.normal(1.0),
        rngs=nnx.Rngs(0),
    )
    out = layer(X)
    expected = np.zeros_like(X)
    for example in range(3):
        q, k, v = (
            np.asarray(X[example] @ p.kernel[...])
            for p in (layer.query, layer.key, layer.value)
        )
        gathered = np.zeros((4, 4))
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            for t in range(4):
                seen = t + 1 if causal else 4
                weights = np.exp(k[:seen, part] @ q[t, part] / np.sqrt(2))
                gathered[t, part] = weights @ v[:seen, part] / weights.sum()
        expected[example] = gathered @ layer.out.kernel[...]
    chex.assert_trees_all_close(out, expected, atol=200 * EPS)


def test_a_causal_network_does_not_look_ahead():
    model = transformer(causal=True, sequence_output=True)
    changed = X.at[:, 2:].add(1.0)
    before, after = model(X), model(changed)
    chex.assert_trees_all_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any(axis=-1).all()


def test_a_network_that_is_not_causal_looks_ahead():
    model = transformer(sequence_output=True)
    assert (model(X)[:, 0] != model(X.at[:, 2:].add(1.0))[:, 0]).any(axis=-1).all()


def test_without_positions_the_order_does_not_matter():
    model = transformer(embed_init=initializers.zeros)
    order = jnp.array([2, 0, 3, 1])
    chex.assert_trees_all_close(model(X[:, order]), model(X), atol=50 * EPS)
    placed = transformer()
    assert jnp.abs(placed(X[:, order]) - placed(X)).max() > 0.01


def test_with_zero_branches_prenorm_blocks_are_the_identity_and_postnorm_ones_a_norm():
    pre = transformer(residual_scale=0.0)
    post = transformer(residual_scale=0.0, prenorm=False)
    chex.assert_trees_all_equal(scan_blocks(pre.blocks, X)[0], X)
    spread = jnp.sqrt(X.var(axis=-1, keepdims=True))
    expected = (X - X.mean(axis=-1, keepdims=True)) / spread
    got = scan_blocks(post.blocks, X)[0]
    # Epsilon of 1e-6 against variances of at least 0.05, in four norms.
    chex.assert_trees_all_close(got, expected, atol=1e-4)


def test_prenorm_alone_has_a_norm_before_the_head():
    assert transformer().output_norm is not None
    assert transformer(prenorm=False).output_norm is None


def test_a_block_is_its_formula():
    model = transformer(depth=1, norm=None, residual_scale=0.5)
    graphdef, state = nnx.split(model.blocks)
    block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
    h = X + 0.5 * block.attention(X)
    up = jax.nn.gelu(h @ block.mlp.up.kernel[...], approximate=False)
    h = h + 0.5 * (up @ block.mlp.down.kernel[...])
    chex.assert_trees_all_close(scan_blocks(model.blocks, X)[0], h, atol=50 * EPS)


def test_logits_are_of_the_mean_over_time_or_of_every_time():
    every = transformer(sequence_output=True)(X)
    assert every.shape == (3, 4, 4)
    # The head is linear, so the logits of the mean are the mean of the logits.
    chex.assert_trees_all_close(transformer()(X), every.mean(axis=1), atol=50 * EPS)


def test_tokens_are_rows_of_the_table():
    tokens = transformer(7, tokens=True)
    vectors = transformer(7, tokens=False)
    graphdef, state = nnx.split(vectors)
    shared = nnx.to_pure_dict(nnx.state(tokens))
    table = shared["embed"].pop("embedding")
    shared["embed"] = {"kernel": table, "bias": jnp.zeros(4)}
    nnx.replace_by_pure_dict(state, shared)
    one_hot = jax.nn.one_hot(TOKENS, 7)
    expected = nnx.merge(graphdef, state)(one_hot)
    chex.assert_trees_all_close(tokens(TOKENS), expected, atol=50 * EPS)


def test_dropout_acts_on_the_embedding_and_on_every_branch():
    model = transformer(dropout=0.5)
    assert (model(X) != model(X)).any()
    assert (scan_blocks(model.blocks, X)[0] != scan_blocks(model.blocks, X)[0]).any()
    chex.assert_trees_all_equal(model.dropout.rngs.count[...], jnp.uint32(2))
    model.eval()
    chex.assert_trees_all_close(model(X), transformer()(X), atol=50 * EPS)


def test_auxiliary_heads_read_the_embedding_and_the_blocks():
    model = transformer(aux_heads=(0, 2))
    _, (at_embedding, at_last) = model(X)
    h = model.embed(X) + model.position[:4][None]
    expected = model.auxiliary[0](h.mean(axis=1))
    chex.assert_trees_all_close(at_embedding, expected, atol=50 * EPS)
    h, _ = scan_blocks(model.blocks, h)
    expected = model.auxiliary[1](h.mean(axis=1))
    chex.assert_trees_all_close(at_last, expected, atol=50 * EPS)


def test_half_precision_is_used_throughout_if_asked():
    model = transformer(7, tokens=True, dtype=jnp.bfloat16)
    assert model(TOKENS).dtype == jnp.bfloat16
    assert model.blocks.mlp.up.kernel.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "x", "error", "message"),
    [
        ({}, X[0], ValueError, r"\(batch, time, 4\), got \(4, 4\)"),
        ({}, jnp.ones((1, 7, 4)), ValueError, "at most 6 steps .* got 7"),
        ({"tokens": True}, X, ValueError, r"\(batch, time\), got \(3, 4, 4\)"),
        ({"tokens": True}, X[0], TypeError, "expects integers, got float32"),
        ({}, jnp.ones((1, 2, 4), int), TypeError, "floating inputs, got int32"),
    ],
)
def test_wrong_inputs_are_named(options, x, error, message):
    with pytest.raises(error, match=message):
        transformer(**options)(x)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads=3 does not divide width=4"):
        transformer(num_heads=3)
