"""A delta-orthogonal convolution keeps lengths; others do not."""

import pytest
from held import broken, measured

from experiments import delta_orthogonal

SMALL = {"depth": 500, "side": 4, "channels": 4}


@pytest.mark.slow
def test_it_holds_when_tiny():
    tiny = {"depth": 20, "shallow": 20, "side": 4, "channels": 4}
    assert not broken(measured(delta_orthogonal, **tiny), "delta-orthogonal")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["orthogonal", "Gaussian"])
def test_another_kernel_is_no_isometry(kernel):
    assert not broken(measured(delta_orthogonal, **SMALL))
    claims = measured(delta_orthogonal, **SMALL, kernel=kernel)
    assert len(broken(claims, "delta-orthogonal")) == 2
