import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradstab.models import OPTIONS, build

# Sizes of four and stacks of two everywhere: JAX compiles an operation once per shape.
IN_SHAPE = {
    "mlp": (4,),
    "resnet": (2, 2, 1),
    "lstm": (4, 4),
    "rnn": (4, 4),
    "transformer": (4, 4),
}
SMALL = {"depth": 3, "width": 4, "init": "normal:0.5"}
SMALL_OF = {
    "mlp": SMALL,
    "resnet": {**SMALL, "depth": 2},
    "lstm": {**SMALL, "recurrent_init": "normal:0.5"},
    "rnn": {**SMALL, "recurrent_init": "normal:0.5"},
    "transformer": {**SMALL, "depth": 2, "num_heads": 2, "mlp_width": 4},
}
TO_EVERY_KIND = {
    "depth": {"depth": 5},
    "width": {"width": 8},
    "init": {"init": "constant:0.3"},
    "head_init": {"head_init": "zeros"},
    "dropout": {"dropout": 0.5},
    "dtype": {"dtype": "bfloat16"},
    "param_dtype": {"param_dtype": "bfloat16", "dtype": "float32"},
    "parametrization": {"parametrization": "mup", "base_width": 2},
    "base_width": {"base_width": 2},
}
TO_LAYERED_KINDS = {
    "activation": {"activation": "elu"},
    "slope": {"slope": 0.5},
    "bias_init": {"bias_init": "ones"},
    "use_bias": {"use_bias": False},
    "norm": {"norm": "rms"},
    "norm_momentum": {"norm_momentum": 0.5},
    "num_groups": {"num_groups": 4},
    "aux_heads": {"aux_heads": (1,)},
}
TO_RECURRENT_KINDS = {
    "recurrent_init": {"recurrent_init": "identity:0.5"},
    "sequence_output": {"sequence_output": True},
    "bias_init": {"bias_init": "ones"},
}
CHANGES = {
    "mlp": {
        **TO_EVERY_KIND,
        **TO_LAYERED_KINDS,
        "widths": {"widths": (8, 4, 4), "depth": None, "width": None},
        "norm_output": {"norm_output": True},
        "skip": {"skip": True},
    },
    "resnet": {
        **TO_EVERY_KIND,
        **TO_LAYERED_KINDS,
        "kernel_size": {"kernel_size": 3},
        "preactivation": {"preactivation": False},
        "residual_scale": {"residual_scale": 0.5},
        "skip_init": {"skip_init": True},
        "last_init": {"last_init": "zeros"},
    },
    "lstm": {
        **TO_EVERY_KIND,
        **TO_RECURRENT_KINDS,
        "forget_bias": {"forget_bias": 3.0},
    },
    "rnn": {
        **TO_EVERY_KIND,
        **TO_RECURRENT_KINDS,
        "activation": {"activation": "relu"},
        "slope": {"slope": 0.5},
    },
    "transformer": {
        **TO_EVERY_KIND,
        **TO_LAYERED_KINDS,
        "num_heads": {"num_heads": 4},
        "mlp_width": {"mlp_width": 8},
        "vocab_size": {"vocab_size": 4},
        "prenorm": {"prenorm": False},
        "causal": {"causal": True},
        "sequence_output": {"sequence_output": True},
        "residual_scale": {"residual_scale": 0.5},
        "embed_init": {"embed_init": "ones"},
    },
}
# What an option needs beside it to have a meaning.
BESIDE = {
    "slope": {"activation": "leaky_relu"},
    "norm_momentum": {"norm": "batch"},
    "num_groups": {"norm": "group", "num_groups": 2},
    "norm_output": {"norm": "batch"},
    "base_width": {"parametrization": "mup", "base_width": 4},
}
EVERY_OPTION = [(kind, option) for kind in CHANGES for option in CHANGES[kind]]


@functools.cache
def answers(kind, options):
    """Logits in training mode, then in evaluation mode, of one fixed batch."""
    options = dict(options)
    in_shape = IN_SHAPE[kind]
    if "vocab_size" in options:
        in_shape = in_shape[:1]
    x = jax.random.normal(jax.random.key(1), (4, *in_shape))
    if "vocab_size" in options:
        x = jnp.arange(16).reshape(4, 4) % 4

    model = build(kind, in_shape=in_shape, num_outputs=4, **options)
    # Operation by operation: a hundred small models would compile for three minutes.
    # Its loop takes slices of one array of keys, which the reuse check takes for reuse.
    with jax.disable_jit(), jax.debug_key_reuse(False):
        model.train()
        training = model(x)
        model.eval()
        return jax.tree.map(np.asarray, (training, model(x)))


def test_every_option_of_every_kind_has_a_case():
    assert {k: set(v) for k, v in CHANGES.items()} == {
        # A longer maximum changes no answer but one: see the test of it below.
        k: set(v) - {"max_length"}
        for k, v in OPTIONS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "option"), EVERY_OPTION)
def test_every_option_changes_the_answer(kind, option):
    base = {**SMALL_OF[kind], **BESIDE.get(option, {})}
    before = answers(kind, tuple(base.items()))
    after = answers(kind, tuple({**base, **CHANGES[kind][option]}.items()))
    if jax.tree.structure(before) != jax.tree.structure(after):
        return
    assert any(
        a.dtype != b.dtype or a.shape != b.shape or (a != b).any()
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


@pytest.mark.slow
def test_the_longest_sequence_is_that_of_max_length_or_of_the_examples():
    small = SMALL_OF["transformer"]
    model = build("transformer", in_shape=(4, 4), num_outputs=4, **small)
    longer = build("transformer", in_shape=(4, 4), num_outputs=4, max_length=9, **small)
    x = jnp.ones((4, 9, 4))
    assert longer(x).shape == (4, 4)
    with pytest.raises(ValueError, match=r"at most 4 steps .* got 9"):
        model(x)


def test_none_stands_for_the_default():
    plain = answers("mlp", tuple(SMALL.items()))
    with_none = answers("mlp", (*SMALL.items(), ("dropout", None), ("norm", None)))
    chex.assert_trees_all_equal(plain, with_none)


def test_models_of_one_seed_are_equal_and_of_two_seeds_are_not():
    def kernel(seed):
        model = build("mlp", in_shape=(4,), num_outputs=4, seed=seed, **SMALL)
        return model.blocks.dense.kernel[...]

    assert (kernel(1) == kernel(1)).all()
    assert (kernel(1) != kernel(2)).any()
    assert (kernel(1) == kernel(jax.random.key(1))).all()


def test_models_built_alike_have_one_structure_and_so_compile_once():
    leaky = {"activation": "leaky_relu", "slope": 0.2, "norm": "batch"}
    made = [
        build("mlp", in_shape=(4,), num_outputs=4, seed=seed, **SMALL, **leaky)
        for seed in (0, 1)
    ]
    assert nnx.graphdef(made[0]) == nnx.graphdef(made[1])


def test_an_ensemble_of_models_is_made_by_vmap_over_keys():
    def kernel(key):
        model = build("mlp", in_shape=(4,), num_outputs=4, seed=key, **SMALL)
        return model.blocks.dense.kernel[...]

    keys = jax.random.split(jax.random.key(0), 3)
    assert jax.vmap(kernel)(keys).shape == (3, 2, 4, 4)


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("mpl", {}, KeyError, "no model named 'mpl'; known: mlp, resnet, lstm"),
        ("lstm", {"skip": True}, ValueError, "'lstm' has no option skip; it has: base"),
        ("mlp", {"activation": "rleu"}, KeyError, "no activation named 'rleu'; known"),
        ("mlp", {"norm": "bach"}, KeyError, "known: batch, layer, group, rms"),
        ("mlp", {"init": "hee"}, KeyError, "no initialiser named 'hee'"),
        ("mlp", {"slope": 0.1}, ValueError, "slope is of leaky_relu; 'sigmoid' has"),
        ("mlp", {"num_groups": 2}, ValueError, "of norm='group'; norm is 'none'"),
        ("mlp", {"widths": (3,), "depth": 2}, ValueError, "not both"),
        ("mlp", {"depth": 0}, ValueError, "depth must be a whole number from 1, got 0"),
        ("mlp", {"width": 0}, ValueError, "width must be a whole number from 1, got 0"),
        (
            "mlp",
            {"dropout": 1.0},
            ValueError,
            "dropout must be a number from 0 below 1, got 1.0",
        ),
        (
            "mlp",
            {"aux_heads": (20,)},
            ValueError,
            r"names the layers \[20\], but .* 20",
        ),
        ("mlp", {"norm_output": True}, ValueError, "needs a norm"),
        ("rnn", {}, ValueError, r"\(time, features\); in_shape is \(4,\)"),
        ("resnet", {"kernel_size": 3}, ValueError, r"\(height, width, channels\)"),
        ("transformer", {"num_heads": 7}, ValueError, r"\(time, features\)"),
        ("lstm", {"forget_bias": 1.0, "bias_init": "ones"}, ValueError, "not both"),
    ],
)
def test_a_wrong_option_is_named_in_the_error(kind, options, error, message):
    in_shape = (4, 4) if kind == "lstm" else (4,)
    with pytest.raises(error, match=message):
        build(kind, in_shape=in_shape, num_outputs=4, **options)
