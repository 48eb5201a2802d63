r"""How likely a law is beside its noise, and the total change that it says.

Steps are Gaussian about the law with an unknown scale. Given the shape of the curves
and the noise, the coefficients and the scale are integrated out exactly (flat priors on
the coefficients within wide limits, 1/scale on the scale); the shape is taken where it
is likeliest, and counts as one more coefficient there (Laplace's method).

References:
    Kass and Raftery (1995), Bayes factors, sections 2 and 4.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from gradstab.spectra.growth_laws import Law
from gradstab.spectra.growth_noise import Noise

# Prior widths, in natural logarithms: a law changes a norm by up to 1e4 either way over
# the network, a transient by up to 30.
_CHANGE_WIDTH = 2 * math.log(1e4)
_TRANSIENT_WIDTH = 2 * math.log(30)

# Steps are taken for rounded to this: relative rounding errors in float32.
_ROUNDING = 1e-7

# The step of finite differences in the logarithm of a shape.
_NUDGE = 1e-4


class Fit(NamedTuple):
    """A law under one noise.

    Attributes:
        law: from `laws_for`.
        noise: from `noises_for`.
        shape: scalar, the likeliest offset or length.
        log_evidence: scalar.
        transient: scalar, by how much the transient changes the logarithm.
        freedom: degrees of freedom of Student's distribution of rate and change.
        rate: scalar, of the law's own curve; 0 for a constant.
        error: scalar, its standard error.
        change: scalar, by how much that curve changes the logarithm over the network.
    """

    law: Law
    noise: Noise
    shape: float
    log_evidence: float
    transient: float
    freedom: int
    rate: float = 0.0
    error: float = 0.0
    change: float = 0.0


def fit(law, noise, layer, levels):
    """The fit, or None if fewer steps than coefficients leave no scatter to see.

    Args:
        law: from `laws_for`.
        noise: from `noises_for`.
        layer: (layers,) positions.
        levels: (layers,) logarithms of norms.
    """
    num = law.num_curves + law.shaped
    freedom = len(layer) - 1 - num
    if freedom < 1:
        return None
    steps = noise.whiten(np.diff(levels)[:, None])[:, 0]
    columns = functools.partial(_columns, law, noise, layer)
    shape = _likeliest(law.shapes, columns, steps)
    own, totals = columns(np.array([shape]))
    weights = np.linalg.lstsq(own[0], steps)[0]
    residual = steps - own[0] @ weights
    design, prior = own[0], np.zeros(num)
    rest = residual @ residual
    variance = (rest + len(steps) * _ROUNDING**2) / freedom
    log_prior = noise.log_prior - _log_widths(law)
    if law.shaped:
        reach = math.log(law.shapes[-1] / law.shapes[0])
        moved, moved_totals = columns(np.array([shape * math.exp(_NUDGE)]))
        bend = (moved[0] - own[0]) @ weights / _NUDGE
        design = np.column_stack([own[0], bend])
        # A shape that changes nothing is known as well as before: uniform over it.
        prior[-1] = 12 * variance / reach**2
        log_prior -= math.log(reach)
    precision = design.T @ design + np.diag(prior)
    evidence = (
        noise.log_scale
        + log_prior
        + special.gammaln(freedom / 2)
        - freedom / 2 * math.log(math.pi * freedom * variance)
        - np.linalg.slogdet(precision)[1] / 2
    )
    settles = law.num_curves > (law.name != "constant")
    found = Fit(
        law,
        noise,
        shape=float(shape),
        log_evidence=float(evidence),
        transient=float(weights[-1]) if settles else 0.0,
        freedom=freedom,
    )
    if law.name == "constant":
        return found
    slope = np.zeros(num)
    slope[0] = 1 / totals[0, 0]
    if law.shaped:
        further = (totals / moved_totals)[0, 0] - 1
        slope[-1] = weights[0] / totals[0, 0] * further / _NUDGE
    square = slope @ np.linalg.solve(precision, slope) * rest / freedom
    return found._replace(
        rate=float(weights[0] / totals[0, 0]),
        error=math.sqrt(square) * noise.wider,
        change=float(weights[0]),
    )


def _columns(law, noise, layer, shapes):
    """Whitened steps of the curves, each of total change one, and the totals."""
    steps = np.diff(law.curves(layer, shapes), axis=1)
    totals = steps.sum(axis=1)
    steps = steps / totals[:, None]
    num_shapes, num_steps, num_curves = steps.shape
    flat = np.moveaxis(steps, 1, 0).reshape(num_steps, -1)
    white = noise.whiten(flat).reshape(num_steps, num_shapes, num_curves)
    return np.moveaxis(white, 1, 0), totals


def _log_widths(law):
    if law.name == "constant":
        return law.num_curves * math.log(_TRANSIENT_WIDTH)
    rest = (law.num_curves - 1) * math.log(_TRANSIENT_WIDTH)
    return math.log(_CHANGE_WIDTH) + rest


def _likeliest(grid, columns, steps):
    """The shape of the largest likelihood: on a grid that closes in three times."""

    def score(shapes):
        q, r = np.linalg.qr(columns(shapes)[0])
        rest = steps - (q @ (np.swapaxes(q, 1, 2) @ steps)[..., None])[..., 0]
        square = np.sum(np.square(rest), axis=1) + len(steps) * _ROUNDING**2
        scales = np.abs(np.diagonal(r, axis1=1, axis2=2))
        freedom = len(steps) - r.shape[1]
        return -freedom / 2 * np.log(square) - np.sum(np.log(scales), axis=1)

    if len(grid) == 1:
        return grid[0]
    for _ in range(3):
        best = int(np.argmax(score(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.unique(np.append(np.geomspace(low, high, 15), grid[best]))
    return grid[int(np.argmax(score(grid)))]


def interval(weights, means, errors, freedoms, /):
    """The central 95 % of a mixture of Student's distributions, and its median."""
    errors = np.maximum(errors, np.finfo(np.float64).tiny)
    reach = -special.stdtrit(freedoms, 0.01) * errors + np.abs(means - means[0])
    ends = []
    for level in (0.025, 0.5, 0.975):
        low, high = means[0] - 1e3 * reach.max(), means[0] + 1e3 * reach.max()
        for _ in range(70):
            middle = (low + high) / 2
            below = weights @ special.stdtr(freedoms, (middle - means) / errors)
            low, high = (middle, high) if below < level else (low, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1], ends[2]
