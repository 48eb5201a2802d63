"""The law that is found is that of the network, and changes with it."""

import pytest
from held import broken, measured

from experiments import growth_laws


@pytest.mark.slow
def test_growth_laws_run_when_tiny():
    tiny = {"width": 6, "depth": 4, "seeds": 1, "batch": 4, "families": ("sigmoid",)}
    assert measured(growth_laws, **tiny)


@pytest.mark.slow
def test_each_family_has_its_law_and_batch_normalisation_only_in_training():
    assert not broken(measured(growth_laws, seeds=2))
    norms = {"families": ("batch norm", "layer norm"), "seeds": 1}
    claims = measured(growth_laws, **norms, training=False)
    assert len(broken(claims, "batch norm")) == 1
    assert not broken(claims, "layer norm")
