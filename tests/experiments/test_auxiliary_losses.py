"""A loss on a shallow layer is not a shortcut."""

import jax
import pytest
from held import broken, measured

from experiments import auxiliary_losses


@pytest.fixture(autouse=True)
def optax_promotes():
    """Adam of Optax multiplies integers with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


TINY = {"depth": 4, "width": 4, "heads": (1,), "num_steps": 2}


@pytest.mark.slow
def test_auxiliary_heads_leave_the_main_gradient_as_it_was():
    claims = measured(auxiliary_losses, **TINY)
    assert not broken(claims, "auxiliary heads over plain")[1:]


@pytest.mark.slow
def test_without_the_identity_or_the_weight_the_first_layer_has_no_gradient():
    assert not broken(measured(auxiliary_losses))
    changed = measured(auxiliary_losses, skip=False, weight=0.0, num_steps=20)
    assert broken(changed, "gradient of all losses")
    assert broken(changed, "identity over plain")
