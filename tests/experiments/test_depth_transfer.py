"""Parametrisations of depth: measured small, and claims that a fault breaks."""

import itertools

import numpy as np
import pytest
from held import broken, measured

from experiments import depth_transfer

# What leaves the last block, its update, what a block adds, its update, named.
PUBLISHED = {
    "standard": (0.5, 1.0, 0.0, 0.0, 1),
    "depth-mup": (0.0, 0.0, -0.5, -1.0, 1),
    "completep": (0.0, 0.0, -1.0, -1.0, 1),
}


def arrays_of(rows, one_rate=(0.0, 0.5, -0.5, -0.5, 0)):
    kinds = itertools.product(depth_transfer.MODELS, depth_transfer.RATES, rows)
    found = {f"{m} {o} {s}": np.array(rows[s], float) for m, o, s in kinds}
    return found | {"one rate": np.array(one_rate, float)}


def test_what_is_published_holds():
    config = depth_transfer.Config()
    assert not broken(depth_transfer.claims(config, arrays_of(PUBLISHED)))


@pytest.mark.parametrize("scheme", ["depth-mup", "completep"])
def test_branches_without_their_factor_do_not_hold(scheme):
    wrong = PUBLISHED | {scheme: PUBLISHED["standard"]}
    claims = depth_transfer.claims(depth_transfer.Config(), arrays_of(wrong))
    assert len(broken(claims, scheme)) >= 3


def test_rates_that_are_not_told_from_those_published_do_not_hold():
    arrays = arrays_of(PUBLISHED, one_rate=(0.0, 0.0, -0.5, -1.0, 1))
    assert len(broken(depth_transfer.claims(depth_transfer.Config(), arrays))) == 2


@pytest.mark.slow
def test_every_scheme_is_named_at_small_depths(monkeypatch):
    monkeypatch.setattr(depth_transfer, "MODELS", {"resnet": {"norm": "layer"}})
    claims = measured(depth_transfer, depths=(4, 8, 16), width=16, seeds=3)
    assert not broken(claims, "power of what one block adds")
