"""The verdict speaks of the whole network, and of no more than is known."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.report import Expected, GrowthPair, judge
from gradstab.spectra import fit_growth


def _mean_square(output):
    return jnp.mean(jnp.square(output))


def _chain(gains, widths, activation=lambda x: x):
    keys = jax.random.split(jax.random.key(0), len(gains))
    shapes = itertools.pairwise(widths)
    weights = [
        gain / a**0.5 * jax.random.normal(key, (a, b))
        for key, gain, (a, b) in zip(keys, gains, shapes, strict=True)
    ]

    def apply(params, x):
        for w in params:
            x = activation(x @ w)
        return x

    return apply, weights, jax.random.normal(jax.random.key(1), (8, widths[0]))


def _report(apply, params, x, **options):
    options = {"layers": [], "progress": False} | options
    return gs.analyze(apply, params, x, loss=_mean_square, **options)


def _says_what_is_measured(report):
    """No sentence keeps a size beside a change above the bound that it states."""
    for growth in (report.growth.forward, report.growth.backward):
        if growth.law == "constant" and not growth.settling:
            change = abs(np.log(growth.change))
            assert change <= np.log(growth.bound) * (growth.depth - 1) * (1 + 1e-9)


@pytest.mark.slow
def test_three_sigmoid_layers_are_vanishing_because_theory_says_so_too():
    report = _report(*_chain([1.0] * 3, [64] * 4, jax.nn.sigmoid))
    assert report.growth.backward.law != "constant"
    assert report.verdict == "vanishing"
    assert "theory says" in report.reasons[0]
    without = _report(*_chain([1.0] * 3, [64] * 4, jax.nn.sigmoid), theory=False)
    assert without.verdict == "unknown"
    assert without.growth.backward.change == report.growth.backward.change


@pytest.mark.slow
def test_five_narrow_relu_layers_of_lecun_do_not_keep_their_size():
    report = _report(*_chain([1.0] * 5, [30] * 6, jax.nn.relu))
    assert report.growth.backward.law != "constant"
    assert report.verdict == "vanishing"


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "verdict"), [(5.0, "exploding"), (0.2, "vanishing")])
def test_the_stages_of_a_pyramid_vote_with_the_longest_run(gain, verdict):
    widths = [32, 32, 32, 32, 30, 28, 26, 24, 22, 20, 18, 16]
    report = _report(*_chain([1.0] * 3 + [gain] * 8, widths), theory=False)
    assert report.verdict == verdict
    _says_what_is_measured(report)


def _normalised(x):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _residual(depth, *, last_norm, width=64, num_outputs=10):
    keys = jax.random.split(jax.random.key(0), 2 * depth + 1)
    weights = jax.vmap(lambda k: jax.random.normal(k, (width, width)))(keys)
    weights = weights / width**0.5
    params = {
        "up": weights[:depth],
        "down": weights[depth:-1],
        "head": weights[-1][:, :num_outputs],
    }

    def apply(p, x):
        def block(x, w):
            return x + jax.nn.relu(_normalised(x) @ w[0]) @ w[1], None

        x, _ = jax.lax.scan(block, x, (p["up"], p["down"]))
        return (_normalised(x) if last_norm else x) @ p["head"]

    return apply, params, jax.random.normal(jax.random.key(1), (16, width))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [24, 48])
def test_the_last_norm_of_a_pre_norm_network_does_not_hide_its_law(depth):
    reports = [_report(*_residual(depth, last_norm=n)) for n in (False, True)]
    for report in reports:
        # Of 24 blocks a root of the depth is not told from exp of a root.
        found = report.growth.forward.compatible
        assert found == ("power",) or (depth < 48 and found == ("power", "exp-sqrt"))
        if found == ("power",):
            assert report.growth.forward.rate == pytest.approx(0.5, abs=0.15)
        assert report.verdict == "critical"
        assert any("taken for the head" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("last_norm", [False, True])
def test_a_head_as_wide_as_the_network_leaves_its_law_as_it_is(last_norm):
    square, other = (
        _report(*_residual(24, last_norm=last_norm, num_outputs=n)) for n in (64, 10)
    )
    assert square.verdict == other.verdict == "critical"
    for side in ("forward", "backward"):
        found, expected = getattr(square.growth, side), getattr(other.growth, side)
        assert found.law == expected.law
        assert found.layers == expected.layers


@dataclasses.dataclass
class Case:
    """A measured factor over few layers beside the expected one."""

    factor: float
    expected: float
    error: float
    verdict: str


CASES = {
    "they agree on a fall": Case(0.06, 0.05, 0.1, "vanishing"),
    "they agree on growth": Case(20.0, 18.0, 0.1, "exploding"),
    "they agree on no change": Case(1.05, 1.0, 0.1, "stable"),
    "a mild change": Case(0.6, 0.62, 0.1, "critical"),
    "they contradict one another": Case(0.06, 0.5, 0.1, "unknown"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_measurement_and_theory_are_taken_together_where_layers_are_few(case):
    backward = fit_growth([case.factor, case.factor**0.4, 1.0])
    forward = fit_growth([1.0, 1.0, 1.0])
    # Counted from the input the gradient's norm grows where it shrinks on its way back.
    expected = None, Expected(-np.log(case.expected), case.error)
    verdict, reasons = judge((), GrowthPair(forward, backward), (), expected=expected)
    assert verdict == case.verdict
    (said,) = [reason for reason in reasons if "the gradient" in reason]
    assert f"a factor {case.factor:.3g} over" in said
