"""What is trained counts as a parameter, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gradstab as gs
from gradstab import _tree
from gradstab.network import find_layers
from gradstab.network.adapters import as_target
from gradstab.network.trained import trained_only

pytestmark = pytest.mark.usefixtures("quick_compiler")
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)


def _trained(model, *args):
    """The target, the number of its parameters, and what is said of the rest."""
    before = as_target(model, args)
    target, notes = trained_only(before, model)
    out = target.apply(target.params, target.state, *target.inputs)
    expected = before.apply(before.params, before.state, *before.inputs)
    np.testing.assert_array_equal(out, expected)
    return target, _tree.num_entries(target.params), notes


def _masked(params, x):
    h = jnp.where(params["mask"], params["w"], 0)
    return jnp.take(x @ h, params["table"], axis=1)


MASKED = {
    "mask": jnp.tril(jnp.ones((5, 5), bool)),
    "table": jnp.array([0, 2, 1]),
    "w": jnp.ones((5, 5)),
}


def test_masks_and_index_tables_are_no_parameters():
    target, num, notes = _trained(_masked, MASKED, X)
    assert num == 25
    assert notes == ("arrays that count as no parameters: 1 of bool, 1 of int32",)
    network = find_layers(target.apply, target.params, (X,), state=target.state)
    assert network.names == ("w",)
    assert network.layers[0].params == ("w",)


@pytest.mark.slow
def test_the_report_counts_what_is_trained():
    report = gs.analyze(
        _masked, MASKED, X, loss=lambda out: jnp.mean(out**2), progress=False
    )
    (layer,) = report.layers
    assert (layer.name, layer.num_params, layer.params) == ("w", 25, ("w",))
    np.testing.assert_allclose(layer.param_norm, 5, rtol=1e-6)
    assert report.notes[0].startswith("arrays that count as no parameters")


class _Normed(linen.Module):
    @linen.compact
    def __call__(self, x):
        """A product and a normalisation by running statistics."""
        return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))


def test_running_statistics_of_linen_are_no_parameters():
    module = _Normed()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = module.init(jax.random.key(0), X)
        for model in (module.apply, lambda v, x: module.apply(v, x)):
            target, num, notes = _trained(model, variables, X)
            assert num == 5 * 3 + 3 + 2 * 3
            assert notes == ("arrays that count as no parameters: 2 in batch_stats",)
            assert all("params." in name for name in _tree.paths(target.params))


def test_a_dict_that_happens_to_have_a_key_params_is_not_parted():
    def apply(tree, x):
        return x @ tree["params"] + tree["shift"][None]

    tree = {"params": jnp.ones((5, 2)), "shift": jnp.ones(2)}
    assert _trained(apply, tree, X)[1:] == (12, ())


def test_of_a_state_of_nnx_what_is_no_param_is_not_trained():
    model = nnx.BatchNorm(5, use_running_average=True, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, num, notes = _trained(lambda s, x: nnx.merge(graph, s)(x), state, X)
    assert num == 10
    assert notes == ("arrays that count as no parameters: 2 of running state",)


def test_complex_arrays_and_numbers_are_parameters():
    def apply(params, x):
        return jnp.real(x @ params["w"]) * params["scale"] + params["steps"]

    params = {"w": jnp.ones((5, 2), jnp.complex64), "scale": 2.0, "steps": 3}
    with jax.numpy_dtype_promotion("standard"):
        assert _trained(apply, params, X)[1] == 11
