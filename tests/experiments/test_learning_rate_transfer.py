"""Where the best learning rate of a transformer goes, on small ones."""

import numpy as np
import pytest
from held import broken, measured

from experiments import learning_rate_transfer as experiment

SMALL = {"widths": (16, 64), "seeds": 1, "steps": 20, "examples": 64, "batch_size": 8}


@pytest.mark.slow
def test_every_width_has_an_optimum_within_the_rates():
    claims = measured(experiment, **SMALL, lowest=-11, highest=-2)
    assert not broken(claims, "the first or the last")


@pytest.mark.slow
def test_a_readout_of_zero_begins_with_equal_logits_and_a_random_one_does_not():
    far = {"steps": 1, "lowest": -40, "highest": -38}  # rates that move nothing
    starts = {}
    for head in experiment.INITIAL_HEADS:
        config = experiment.Config(**SMALL | far, head=head)
        starts[head] = experiment._searched(config, "mup").losses
    np.testing.assert_allclose(starts["zero"], np.log(10), rtol=1e-5)
    assert np.abs(starts["random"] - np.log(10)).min() > 0.01


def test_an_optimum_that_moves_holds_for_standard_alone():
    config = experiment.Config(widths=(64, 512), lowest=-12, highest=-2)
    powers = np.arange(-12, -1.0)
    valleys = np.stack([[1 + (powers + 6) ** 2], [1 + (powers + 9) ** 2]])
    arrays = {"rates": 2**powers}
    moving = arrays | {f"{scheme}: losses": valleys for scheme in experiment.SCHEMES}
    assert broken(experiment.claims(config, moving), "muP")
    assert not broken(experiment.claims(config, moving), "standard: largest")
    still = np.stack([valleys[0], valleys[0]])
    moving |= {"mup: losses": still}
    assert not broken(experiment.claims(config, moving))
    moving |= {"standard: losses": still}
    assert len(broken(experiment.claims(config, moving))) == 2
