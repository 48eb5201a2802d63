"""The forget gate's bias says how long a cell remembers."""

import pytest
from held import broken, measured

from experiments import forget_gates

TINY = {"biases": (1.0,), "time_steps": 6, "units": 64, "hidden": 3}
SMALL = {"biases": (1.0, 2.0), "time_steps": 40, "units": 2048, "hidden": 12}


@pytest.mark.slow
def test_the_formula_holds_when_tiny():
    assert not broken(measured(forget_gates, **TINY), "zero weights")


@pytest.mark.slow
def test_recurrent_weights_break_the_formula_and_a_constant_bias_the_chrono_mean():
    assert not broken(measured(forget_gates, **SMALL))
    changed = measured(forget_gates, **SMALL, recurrent=1.0, chrono=False)
    assert len(broken(changed, "zero weights")) == 2
    assert len(broken(changed, "chrono")) == 1
