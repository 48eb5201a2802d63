"""Own models in a parametrisation: the published multipliers, and nothing else."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gradstab.models import build, parametrized

BASE, WIDTH = 8, 32
SHAPES = {
    "mlp": ((5,), {"depth": 2}),
    "resnet": ((4, 4, 3), {"depth": 2, "kernel_size": 3, "norm": "layer"}),
    "lstm": ((4, 5), {"depth": 2}),
    "rnn": ((4, 5), {"depth": 1}),
    "transformer": ((4,), {"depth": 2, "num_heads": 2, "vocab_size": 7}),
}
# By name: powers of m = 4 in the initial size at m times the width, over that at the
# base width, and in the rates of Adam and of SGD (Yang et al. 2022, table 3). Queries
# take 1 / sqrt(m), so that their product with keys is divided by the size of a head.
TABLE = [
    (r"query\.kernel", (-1.0, -1.5, -1.0)),
    (r"query\.bias", (None, -0.5, 0.0)),
    (r"head\.kernel", (-1.0, -1.0, -1.0)),
    (r"head\.bias|alpha", (None, 0.0, 0.0)),
    (r"(input\.dense|stem|embed)\.kernel|input\.kernel", (0.0, 0.0, 1.0)),
    (r"embedding|position", (0.0, 0.0, 1.0)),
    (r"kernel", (-0.5, -1.0, 0.0)),
    (r"bias|scale", (None, 0.0, 1.0)),
]


def powers(name):
    return next(row for pattern, row in TABLE if re.search(pattern, name))


def arrays(model):
    """Parameters by their dotted names."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): leaf[...] for path, leaf in flat}


def sizes_of(kind, **options):
    shape, own = SHAPES[kind]
    return {"in_shape": shape, "num_outputs": 3, **own, **options}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_own_models_have_the_published_multipliers(kind):
    options = sizes_of(kind, init="normal:0.25", base_width=BASE)
    if kind in ("lstm", "rnn"):
        options |= {"recurrent_init": "normal:0.25"}
    made = arrays(build(kind, width=WIDTH, parametrization="mup", **options))
    plain = options | {"base_width": None}
    same = arrays(build(kind, width=WIDTH, **plain))
    ones = jax.tree.map(jnp.ones_like, nnx.state(build(kind, width=WIDTH, **plain)))
    for number, optimizer in ((1, "adam"), (2, "sgd")):
        rates = parametrized(kind, optimizer=optimizer, **options).transform
        scaled, _ = rates.update(nnx.filter_state(ones, nnx.Param), None)
        flat = nnx.to_flat_state(scaled)
        for path, leaf in flat:
            wanted = 4.0 ** powers(".".join(map(str, path)))[number]
            assert float(leaf[...].ravel()[0]) == pytest.approx(wanted), path
    for name, values in made.items():
        if (power := powers(name)[0]) is not None:
            assert jnp.allclose(values, 4.0**power * same[name]), name
        else:
            assert jnp.array_equal(values, same[name]), name


@pytest.mark.parametrize("options", [{}, {"parametrization": "standard"}])
def test_the_standard_parametrisation_changes_nothing(options):
    shapes = sizes_of("mlp", width=16)
    plain, same = build("mlp", **shapes), build("mlp", **shapes, **options)
    assert nnx.graphdef(plain) == nnx.graphdef(same)
    found = arrays(same)
    for name, values in arrays(plain).items():
        assert jnp.array_equal(values, found[name])


def test_at_the_base_width_nothing_changes():
    shapes = sizes_of("mlp", width=BASE, seed=3)
    found = arrays(build("mlp", parametrization="mup", base_width=BASE, **shapes))
    for name, values in arrays(build("mlp", **shapes)).items():
        assert jnp.array_equal(values, found[name])


@pytest.mark.slow
def test_hidden_units_of_a_transformer_go_with_its_width():
    shapes = sizes_of("transformer", depth=1, mlp_width=3 * WIDTH)
    options = {"parametrization": "mean-field", "base_width": BASE}
    found = arrays(build("transformer", width=WIDTH, **options, **shapes))
    assert found["blocks.mlp.up.kernel"].shape == (1, WIDTH, 3 * WIDTH)
    scaled = parametrized("transformer", width=WIDTH, base_width=BASE, **shapes)
    narrow = {one.name: one.shape for one in scaled.roles}
    assert narrow["blocks.mlp.up.kernel"] == (1, BASE, 3 * BASE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrization": "mup"}, "needs base_width"),
        ({"base_width": 8}, "base_width is of a parametrization other"),
        ({"parametrization": "mpu", "base_width": 8}, "scheme must be one of"),
        ({"parametrization": "mup", "base_width": 0}, "base_width must be a whole"),
        (
            {"parametrization": "mup", "base_width": 8, "widths": (8, 8)},
            "give depth and width, not widths",
        ),
        (
            {"parametrization": "mup", "base_width": 8, "aux_heads": (0,)},
            "leave out aux_heads",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("mlp", in_shape=(4,), num_outputs=2, **options)


def test_a_width_that_the_hidden_units_do_not_have_is_refused():
    with pytest.raises(ValueError, match="no whole number at width 8"):
        build(
            "transformer",
            in_shape=(4, 4),
            num_outputs=2,
            width=12,
            mlp_width=13,
            parametrization="mup",
            base_width=8,
        )
