"""The published tables, for models of every framework, without a word on roles.

Yang et al. (2022), table 3: initial variances and learning rates of input weights and
biases, of hidden weights and of output weights.
"""

import fnmatch

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gradstab as gs
from tests.scaling.scaled_models import MODELS

# Names of parameters, and what they are; the first that fits counts.
NAMES = {
    "nnx mlp": "input first.kernel; hidden second.kernel",
    "nnx transformer": "hidden block.*.kernel block.*.*.kernel; vector positions",
    "nnx resnet": "input stem.kernel; hidden conv.* shortcut.kernel wide.kernel",
    "nnx lstm": "input *dense_i.kernel; hidden *dense_h.kernel",
    "linen mlp": "input Dense_0.kernel; hidden Dense_1.kernel; output Dense_2.kernel;"
    "fixed Dense_2.bias",
    "linen transformer": "hidden blocks.*.kernel; vector positions",
    "linen resnet": "input Conv_0.kernel; hidden Conv_1.* shortcut.kernel wide.kernel;"
    "output Dense_0.kernel; fixed Dense_0.bias",
    "linen lstm": "input *.i?.kernel; hidden *.h?.kernel; output Dense_0.kernel;"
    "fixed Dense_0.bias",
    "equinox mlp": "input *.0.weight; hidden *.1.weight; output *.2.weight;"
    "fixed *.2.bias",
    "equinox transformer": "vector positions norm.*; embedding embed.weight;"
    "hidden attention.* up.weight down.weight",
    "equinox resnet": "input stem.weight; hidden conv.weight; vector norm.*",
    "equinox lstm": "input *.weight_ih; hidden *.weight_hh",
    "bare mlp": "input 0.w; hidden 1.w; output 2.w; fixed 2.b",
    "bare transformer": "embedding embed; vector gain; hidden down out qkv up",
    "bare resnet": "input stem deep; hidden conv",
    "bare lstm": "input input; hidden state; vector bias",
    "haiku mlp": "input *_0.w; hidden *_1.w; output *_2.w; fixed *_2.b",
    "haiku lstm": "hidden lstm*.w; output linear.w; fixed linear.b",
}
ALWAYS = (
    "embedding *.embedding; fixed head.bias; output head head.kernel head.weight;"
    "vector *.bias *.scale *.b"
)
# Exponents of standard deviation (None: as it is initialised) and learning rate.
SGD = {"input": 1, "embedding": 1, "vector": 1, "hidden": 0, "output": -1, "fixed": 0}
ADAM = {"input": 0, "embedding": 0, "vector": 0, "hidden": -1, "output": -1, "fixed": 0}
STDDEV = {"input": 0, "embedding": 0, "hidden": -0.5, "output": -1}


def expected_role(model, name):
    """What the tables above say."""
    own = NAMES[model.removesuffix(", tied")]
    for rule in f"{own};{ALWAYS}".split(";"):
        role, *patterns = rule.split()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            tie = model.endswith("tied") and role == "embedding"
            return "tied embedding" if tie else role
    raise AssertionError(f"no role for {name}")


def parametrized(model, **options):
    """The parametrisation of a model at the base width 16."""
    make, inputs = MODELS[model]
    if "inputs" not in options:
        options["inputs"] = inputs
    batched = not model.startswith("equinox")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return gs.parametrize(make, base_width=16, batched=batched, **options)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_program_says_the_role_of_every_parameter(model):
    found = parametrized(model)
    roles = {one.name: str(one.role) for one in found.roles}
    assert roles == {name: expected_role(model, name) for name in roles}
    for one in found.roles:
        # Queries take what attention lacks.
        query = -0.5 if "quer" in one.name else 0
        role = str(one.role).removeprefix("tied ")
        assert one.rate == ADAM[role] + query
        if (model, role) not in OWN:
            continue
        assert one.size == STDDEV[role] - OWN[model, role] + query
    by_hand = [note for note in found.all_notes() if "by hand" in note]
    assert len(by_hand) == model.endswith("tied") + model.startswith("bare trans")


# How initialisers go with the width by themselves.
OWN = {
    **{
        (model, role): exponent
        for model in MODELS
        for role, exponent in [("input", 0), ("hidden", -0.5), ("output", -0.5)]
        if not model.startswith(("equinox lstm", "bare transformer", "haiku"))
    },
    **dict.fromkeys(
        [
            (f"bare transformer{t}", r)
            for t in ("", ", tied")
            for r in ("embedding", "hidden", "output")
        ],
        0,
    ),
    ("equinox lstm", "input"): -0.5,
    ("equinox lstm", "hidden"): -0.5,
    ("equinox transformer", "embedding"): 0,
    ("nnx transformer", "embedding"): -0.5,
    ("linen transformer", "embedding"): -0.5,
    ("haiku lstm", "output"): -0.5,
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nnx mlp", "equinox lstm", "bare resnet"])
def test_rates_of_sgd_are_those_of_the_table(model):
    for one in parametrized(model, optimizer="sgd").roles:
        assert one.rate == SGD[str(one.role)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_names_and_shapes_alone_say_as_much_where_they_can(model):
    for one in parametrized(model, inputs=None).roles:
        role = expected_role(model, one.name)
        if one.role == "fixed":
            assert role == "fixed"
            continue
        assert "with inputs= the program says" in one.note
        same = {role, "embedding"} if role == "tied embedding" else {role}
        assert str(one.role) in same


@pytest.mark.slow
def test_kernels_that_muon_reads_the_wrong_way_round_are_set_right():
    rates = {}
    for model in ("nnx mlp", "equinox mlp"):
        found = parametrized(model, optimizer="muon").roles
        rates[model] = {str(one.role): one.rate for one in found}
    both = {"vector": 0, "fixed": 0, "hidden": 0}
    # Optax multiplies by sqrt(max(1, columns / rows)); sqrt(out / in) is wanted.
    assert rates["nnx mlp"] == both | {"input": 0, "output": -0.5}
    assert rates["equinox mlp"] == both | {"input": 0.5, "output": -1}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_the_same_at_the_base_width_and_finite_at_others(model):
    make, _ = MODELS[model]
    found = parametrized(model, inputs=None)
    key = jax.random.key(1)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        plain, same = make(16, jax.random.clone(key)), found.make(16, key)
        pairs = zip(_arrays(plain), _arrays(same), strict=True)
        assert all(jnp.array_equal(a, b) for a, b in pairs)
        for width in (8, 48):
            for leaf in _arrays(found.make(width, jax.random.key(2))):
                assert jnp.isfinite(leaf).all()


def _arrays(made):
    tree = nnx.state(made, nnx.Param) if isinstance(made, nnx.Module) else made
    return [x for x in jax.tree.leaves(tree) if hasattr(x, "shape")]
