"""Muon's scales: which one is flat over width, and what mends the others."""

import jax
import numpy as np
import pytest
from held import broken, measured

from experiments import muon_scales as experiment
from gradstab.scaling import Trend

SMALL = {"widths": (16, 32, 64), "seeds": 2}


@pytest.mark.slow
def test_the_slopes_are_theorys_and_what_is_named_mends_them():
    config = experiment.Config(**SMALL)
    arrays = experiment.run(config)
    claims = experiment.claims(config, arrays)
    assert not broken(claims, "slope")
    assert not broken(claims, "powers named")
    for scale in experiment.THEORY:  # two seeds are few for a verdict
        assert np.abs(arrays[f"{scale}: mended"][:, 0]).max() < 0.15


@pytest.mark.slow
def test_another_scale_in_place_of_the_spectral_one_does_not_hold(monkeypatch):
    only = {"out/in": experiment.THEORY["out/in"]}
    monkeypatch.setattr(experiment, "THEORY", only)
    monkeypatch.setattr(experiment, "_narrowed", lambda updates, params: updates)
    claims = measured(experiment, **SMALL)
    assert broken(claims, "sqrt(out/in): slope of head")
    assert broken(claims, "sqrt(out/in): powers")


def test_a_check_that_calls_everything_flat_does_not_hold():
    num_weights, flat = len(experiment.WEIGHTS), list(Trend).index(Trend.FLAT)
    arrays = {}
    for scale in experiment.THEORY:
        rows = np.tile([0.0, 0.01, flat], (num_weights, 1))
        arrays |= {f"{scale}: slopes": rows, f"{scale}: mended": rows}
        arrays[f"{scale}: powers"] = np.zeros(num_weights)
    claims = experiment.claims(experiment.Config(), arrays)
    assert not broken(claims, "sqrt(out/in)")
    for scale in ("max(1, out/in)", "max(in, out)"):
        assert broken(claims, f"sqrt({scale}): slope of head")
        assert broken(claims, f"sqrt({scale}): powers")


def test_each_scale_is_what_it_is_called():
    rng = np.random.default_rng(0)
    shapes = {"wide": (6, 24), "tall": (24, 6), "square": (12, 12)}
    grads = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    params = jax.tree.map(np.zeros_like, grads)

    def norms(scale):
        muon = experiment._muon(scale, 1.0)
        with jax.numpy_dtype_promotion("standard"):  # which optax counts on
            updates, _ = muon.update(grads, muon.init(params), params)
        return {k: np.linalg.norm(u) / min(u.shape) ** 0.5 for k, u in updates.items()}

    first, entries, spectral = map(norms, experiment.THEORY)
    unit = first["square"]  # what the iteration makes of singular values: near 1
    assert 0.7 < unit < 1.2
    for name, (n_in, n_out) in shapes.items():
        wanted = {
            "first": max(1, n_out / n_in) ** 0.5,
            "entries": experiment.RMS * max(n_in, n_out) ** 0.5,
            "spectral": (n_out / n_in) ** 0.5,
        }
        found = {"first": first, "entries": entries, "spectral": spectral}
        for kind, value in wanted.items():
            # Rectangular matrices come nearer to orthogonal ones than square ones.
            np.testing.assert_allclose(found[kind][name], value, rtol=0.25)
