"""Parametrisations of depth: which slopes say, and what is done to a model."""

import io

import jax
import jax.numpy as jnp
import optax
import pytest
from rich.console import Console

import gradstab as gs
from gradstab.scaling import DEPTH_SCHEMES, depth_exponents
from gradstab.scaling.blocks import layers_before

INPUTS = jax.random.normal(jax.random.key(7), (4, 8))
LABELS = jnp.array([0, 1, 2, 0])
WIDTH = 16


def weights(depth, key):
    keys = jax.random.split(key, 4)

    def normal(key, *shape):
        return jax.random.normal(key, shape) / shape[-2] ** 0.5

    return {
        "blocks": {
            "up": normal(keys[0], depth, WIDTH, WIDTH),
            "down": normal(keys[1], depth, WIDTH, WIDTH),
        },
        "embed": normal(keys[2], 8, WIDTH),
        "head": normal(keys[3], WIDTH, 3),
    }


def normalized(h):
    return h * jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def residual(depth, key, branch=None):
    """A scan over blocks of two weights, normalised before."""

    def usual(h, block):
        return jax.nn.relu(normalized(h) @ block["up"]) @ block["down"]

    def apply(params, x):
        def step(h, block):
            return h + (branch or usual)(h, block), None

        h, _ = jax.lax.scan(step, x @ params["embed"], params["blocks"])
        return normalized(h) @ params["head"]

    return apply, weights(depth, key)


def unrolled(depth, key):
    """The same with a list of blocks."""
    params = weights(depth, key)
    stack = params.pop("blocks")
    params["layers"] = [{n: v[i] for n, v in stack.items()} for i in range(depth)]

    def apply(params, x):
        h = x @ params["embed"]
        for block in params["layers"]:
            h = h + jax.nn.relu(normalized(h) @ block["up"]) @ block["down"]
        return normalized(h) @ params["head"]

    return apply, params


def loss(output):
    labels = optax.softmax_cross_entropy_with_integer_labels(output, LABELS)
    return labels.mean()


def scaled(scheme, optimizer, make=residual, inputs=INPUTS):
    return gs.parametrize(
        make, base_depth=4, scheme=scheme, optimizer=optimizer, inputs=inputs
    )


def check(make, optimizer, **options):
    options = {"widths": (4, 8, 16, 32), "seeds": 3, "steps": 1} | options
    return gs.transfer(
        make,
        INPUTS,
        loss=loss,
        optimizer=optimizer,
        vary="depth",
        progress=False,
        **options,
    )


RATES = {"adam": optax.adam(1e-5), "sgd": optax.sgd(1e-3)}


@pytest.mark.parametrize(
    ("scheme", "optimizer", "block", "end"),
    [
        # Yang et al. (2023), table 1; Dey et al. (2025), table 1. A factor c that is
        # moved into a weight is c in the rate of Adam, and c^2 in that of SGD.
        ("depth-mup", "adam", (0, -0.5), (-0.5, -1)),
        ("depth-mup", "sgd", (0, 0), (-0.5, -1)),
        ("completep", "adam", (0, 0), (-1, -1)),
        ("completep", "muon", (0, 0), (-1, -1)),
        ("completep", "sgd", (0, 1), (-1, -1)),
        ("standard", "adam", (0, 0), (0, 0)),
    ],
)
def test_the_exponents_are_those_published(scheme, optimizer, block, end):
    assert depth_exponents(scheme, optimizer, is_end=False) == block
    assert depth_exponents(scheme, optimizer, is_end=True) == end


@pytest.mark.parametrize(
    ("make", "stack"), [(residual, "blocks"), (unrolled, "layers.#")]
)
def test_the_last_weight_of_a_branch_takes_its_factor(make, stack):
    found = scaled("completep", "sgd", make)
    places = {one.name: str(one.place) for one in found.roles}
    assert places == {
        f"{stack}.up": "block",
        f"{stack}.down": "end of a branch",
        "embed": "outside",
        "head": "outside",
    }
    _, plain = make(12, jax.random.key(1))
    _, other = found.make(12, jax.random.key(1))
    ones = jax.tree.map(jnp.ones_like, plain)
    rates, _ = found.transform.update(ones, found.transform.init(plain))
    for (path, old), new, rate in zip(
        jax.tree.leaves_with_path(plain),
        jax.tree.leaves(other),
        jax.tree.leaves(rates),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        size = 1 / 3 if "down" in name else 1.0
        assert jnp.allclose(new, size * old, rtol=1e-6), name
        wanted = 1 / 3 if "down" in name else 3.0 if "up" in name else 1.0
        assert jnp.allclose(rate, wanted, rtol=1e-6), name


def test_at_the_base_depth_nothing_changes():
    found = scaled("depth-mup", "adam")
    _, plain = residual(4, jax.random.key(1))
    same = found.make(4, jax.random.key(1))[1]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, plain, same))


def test_a_branch_that_no_weight_scales_is_left_to_the_user():
    def make(depth, key):
        return residual(depth, key, lambda h, b: jnp.tanh(h @ b["up"] @ b["down"]))

    found = scaled("completep", "adam", make)
    assert {one.size for one in found.roles} == {0.0}
    assert "multiply it by (base_depth / depth) by hand" in found.notes[0]
    assert "test_depth.py" in found.notes[0]


def test_a_shared_weight_is_not_taken_for_the_end_of_one_branch():
    def make(depth, key):
        return residual(depth, key, lambda h, b: jnp.tanh(h @ b["up"]) @ b["up"])

    found = scaled("completep", "adam", make)
    assert {one.size for one in found.roles} == {0.0}
    assert "by hand" in found.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": None}, "needs inputs="),
        ({"base_width": 4}, "base_width or base_depth"),
        ({"scheme": "mup"}, "scheme must be one of standard, depth-mup, completep"),
        ({"base_depth": 0}, "base_depth must be a whole number"),
        ({"make": lambda d, k: residual(4, k)}, "make must use the depth"),
        (
            {"make": lambda d, k: residual(d, k, lambda h, b: -h)},
            "no residual branch was found",
        ),
    ],
)
def test_what_has_no_parametrisation_of_depth_is_refused(options, message):
    given = {"base_depth": 4, "scheme": "completep", "inputs": INPUTS} | options
    make = given.pop("make", residual)
    with pytest.raises(ValueError, match=message):
        gs.parametrize(make, **given)


def test_a_block_is_all_with_one_number():
    names = ["stem", "a.0.x", "a.0.y", "a.1.x", "b.0", "head"]
    assert layers_before(names) == (None, None, 0, 2, 3, None)
    assert layers_before(["0.w", "1.w"]) == (None, 0)


def shown(found):
    console = Console(file=io.StringIO(), width=80, record=True)
    found.show(console)
    return " ".join(console.export_text().split())


@pytest.mark.slow  # four depths each
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("scheme", DEPTH_SCHEMES)
def test_slopes_over_depth_name_the_parametrisation(scheme, optimizer):
    rules = scaled(scheme, optimizer)
    optimizer_ = optax.chain(RATES[optimizer], rules.transform)
    # The gradients of descent vary with the seed; Adam's steps do not.
    found = check(rules.make, optimizer_, seeds=5 if optimizer == "sgd" else 3)
    assert {name for name, _ in found.schemes} == {scheme}
    assert optimizer in {kind for _, kind in found.schemes}
    (stack,) = found.blocks
    power = {"standard": 0, "depth-mup": -0.5, "completep": -1}[scheme]
    assert abs(stack.added.value - power) < 0.1
    if scheme == "standard":
        assert found.layer("blocks.last").activation.value > 0.35
    else:
        assert abs(found.layer("blocks.last").activation.value) < 0.25
        assert abs(stack.effect + 1) < (0.2 if optimizer == "sgd" else 0.15)
    assert f"those of {scheme} (" in shown(found)


@pytest.mark.slow  # four depths
def test_branches_of_a_scheme_with_rates_of_another_are_told_what_mends_them():
    rules = scaled("depth-mup", "adam")
    found = check(rules.make, optax.adam(1e-5), seeds=2)
    assert found.schemes == ()
    text = shown(found)
    assert "as in depth-mup, but what its updates do" in text
    assert "multiply its learning rates by depth^-0.5" in text
    assert found.causes == ()


@pytest.mark.slow  # traces models of three frameworks
@pytest.mark.parametrize(
    ("kind", "options", "ends"),
    [
        ("transformer", {}, {"attention.out", "mlp.down"}),
        ("transformer", {"prenorm": False}, {"attention.out", "mlp.down"}),
        ("resnet", {"norm": "layer"}, {"last"}),
        ("resnet", {"norm": "none", "preactivation": False}, {"last"}),
    ],
)
def test_the_branches_of_own_models_end_where_they_are_written(kind, options, ends):
    inputs = INPUTS[:, :, None] if kind == "transformer" else INPUTS

    def make(depth, key):
        return gs.models.build(
            kind,
            in_shape=inputs.shape[1:],
            num_outputs=3,
            depth=depth,
            width=WIDTH,
            seed=key,
            **options,
        )

    found = scaled("depth-mup", "adam", make, inputs)
    names = {one.name for one in found.roles if one.place == "end of a branch"}
    both = ("kernel", "bias")
    assert names == {f"blocks.{end}.{part}" for end in ends for part in both}
    assert not any("by hand" in note for note in found.notes)
