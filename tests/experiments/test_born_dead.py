"""A narrow deep network of rectifiers is dead with the probability on paper."""

import pytest
from held import broken, measured

from experiments import born_dead


def test_it_runs_when_tiny_and_an_interval_dies_no_more_often_than_a_point():
    claims = measured(born_dead, widths=(2, 3), depths=(3, 4), networks=400)
    assert not broken(claims, "[-1, 1]")


@pytest.mark.slow
def test_biases_bring_layers_back_to_life():
    assert not broken(measured(born_dead))
    assert len(broken(measured(born_dead, bias=1.0), "at a point")) == 6
