"""Every model of the zoo is taken apart, unedited, into the layers its user knows."""

import collections
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from apart import ZOO, arithmetic, take_apart
from cut_by_hand import BY_HAND

import gradstab as gs

# Bare functions have every structure that modules have; a fifth runs each time.
QUICK = {"functions", "public"}


def _marks(entry):
    quick = entry.framework in QUICK and not entry.slow
    return [pytest.mark.cases if quick else pytest.mark.slow]


ENTRIES = [pytest.param(entry, id=entry.name, marks=_marks(entry)) for entry in ZOO]
CUT = [param for param in ENTRIES if param.id in BY_HAND]


@functools.cache
def _apart(entry):
    """Taken apart once, for all tests."""
    return take_apart(entry, jnp.float64)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_layers_are_those_that_a_user_names(entry):
    assert _apart(entry).network.names == entry.names


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_product_of_the_layers_jacobians_is_that_of_the_model(entry):
    found = _apart(entry)
    assert _relative_error(found.product, found.jacobian) < 1e-11


@pytest.mark.parametrize("entry", CUT)
def test_a_layers_jacobian_is_that_of_the_layer_cut_by_hand(entry):
    layers = _apart(entry).layers
    assert layers.keys() == BY_HAND[entry.name].keys()
    for jacobian, by_hand in layers.values():
        assert _relative_error(jacobian, by_hand) < 1e-11


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_network_that_is_one_layer_says_why(entry):
    layers = _apart(entry).network.layers
    assert len(layers) > 1 or layers[0].note


@pytest.mark.parametrize("entry", ENTRIES)
def test_examples_act_on_each_other_only_where_statistics_are_shared(entry):
    found = _apart(entry)
    if entry.table or entry.positions:
        pytest.skip("its Jacobian is that of parameters")
    num = found.network.num_examples
    rows = found.jacobian.reshape(num, -1, found.jacobian.shape[1])
    ends = np.cumsum([np.prod(shape) for shape in found.network.layers[0].in_shapes])
    parts = np.split(rows, ends[:-1], axis=2)
    blocks = [part.reshape(*part.shape[:2], num, -1) for part in parts]
    across = any(
        np.any(block[i, :, j]) for block in blocks for i, j in [(0, 1), (2, 0)]
    )
    assert across == entry.couples


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=[entry.name for entry in ZOO])
def test_the_product_is_that_of_the_model_in_float32(entry):
    found = take_apart(entry, jnp.float32)
    assert found.jacobian.dtype == np.float32
    assert _relative_error(found.product, found.jacobian) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=[entry.name for entry in ZOO])
def test_every_model_is_analysed_without_edits(entry):
    with arithmetic(entry):
        model, args, options = entry.make()
        if entry.forward:
            with pytest.raises(ValueError, match="Reverse-mode differentiation"):
                gs.analyze(model, *args, progress=False, **options)
            return
        report = gs.analyze(model, *args, progress=False, **options)
    assert tuple(layer.name for layer in report.layers) == entry.names
    for layer in report.layers:
        assert layer.jacobian is not None or layer.in_shape is None


def test_the_zoo_holds_a_hundred_models_of_five_frameworks():
    counts = collections.Counter(entry.framework for entry in ZOO)
    assert set(counts) == {"nnx", "linen", "haiku", "equinox", "functions", "public"}
    assert sum(counts.values()) >= 100
    assert min(counts.values()) >= 8


def _relative_error(found, expected):
    size = np.linalg.norm(expected)
    assert size > 1e-6  # a Jacobian that vanishes would hide every error
    return np.linalg.norm(found - expected) / size
