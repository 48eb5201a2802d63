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
from collections.abc import Callable
from typing import Any, NamedTuple

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


def fits(
    law: Law, noises: list[Noise], layer: np.ndarray, levels: np.ndarray
) -> list[Fit]:
    """A fit for every noise; none if fewer steps than coefficients leave no scatter.

    Args:
        law: from `laws_for`.
        noises: from `noises_for`.
        layer: (layers,) positions.
        levels: (layers,) logarithms of norms.
    """
    num = law.num_curves + law.shaped
    freedom = len(layer) - 1 - num
    if freedom < 1:
        return []
    moves = np.diff(levels)[:, None]
    steps = np.stack([noise.whiten(moves)[:, 0] for noise in noises])
    columns = functools.partial(_columns, law, noises, layer)
    shapes = _likeliest(law.shapes, columns, steps)
    curves = _solved(law, columns, shapes, steps, freedom)
    settles = law.num_curves > (law.name != "constant")
    transients = curves.weights[:, -1] if settles else np.zeros(len(noises))
    evidences = _log_evidences(law, noises, curves, freedom)
    numbers = zip(noises, shapes, evidences, transients, strict=True)
    found = [
        Fit(law, noise, float(shape), float(evidence), float(transient), freedom)
        for noise, shape, evidence, transient in numbers
    ]
    return found if law.name == "constant" else _with_rates(found, curves)


class _Curves(NamedTuple):
    """The curves of a law beside the steps, for N noises.

    Attributes:
        weights: (N, curves) of the curves, each of total change one.
        totals: (N, curves) the changes of the curves themselves.
        further: (N,) by how much of itself the first total falls for a larger shape.
        rests: (N,) sums of the squared residuals.
        variances: (N,) of a step about the law.
        precisions: (N, k, k) of the weights and of the logarithm of the shape.
    """

    weights: np.ndarray
    totals: np.ndarray
    further: np.ndarray
    rests: np.ndarray
    variances: np.ndarray
    precisions: np.ndarray


def _solved(
    law: Law,
    columns: Callable[..., Any],
    shapes: np.ndarray,
    steps: np.ndarray,
    freedom,
):
    """The curves of the given shapes, fitted to the steps."""
    num, num_steps = steps.shape
    design, totals = (array[:, 0] for array in columns(shapes[:, None]))
    inverse = np.linalg.pinv(design, rcond=num_steps * np.finfo(np.float64).eps)
    weights = inverse @ steps[:, :, None]
    rests = np.sum((steps - (design @ weights)[:, :, 0]) ** 2, axis=1)
    variances = (rests + num_steps * _ROUNDING**2) / freedom
    priors, further = np.zeros((num, law.num_curves + law.shaped)), np.zeros(num)
    if law.shaped:
        moved = columns(shapes[:, None] * math.exp(_NUDGE))
        moved, moved_totals = (array[:, 0] for array in moved)
        bend = (moved - design) @ weights / _NUDGE
        design = np.concatenate([design, bend], axis=2)
        # A shape that changes nothing is known as well as before: uniform over it.
        priors[:, -1] = 12 * variances / _reach(law) ** 2
        further = ((totals / moved_totals)[:, 0] - 1) / _NUDGE
    precisions = np.swapaxes(design, 1, 2) @ design
    precisions = precisions + priors[:, :, None] * np.eye(priors.shape[1])
    return _Curves(weights[:, :, 0], totals, further, rests, variances, precisions)


def _log_evidences(law: Law, noises: list[Noise], curves, freedom):
    scales = np.array([noise.log_scale + noise.log_prior for noise in noises])
    return (
        scales
        - _log_widths(law)
        + special.gammaln(freedom / 2)
        - freedom / 2 * np.log(math.pi * freedom * curves.variances)
        - np.linalg.slogdet(curves.precisions)[1] / 2
    )


def _with_rates(found, curves):
    """The fits with rates, their errors and changes: of the first curve."""
    totals, changes = curves.totals[:, 0], curves.weights[:, 0]
    slopes = np.zeros((*curves.precisions.shape[:2], 1))
    if curves.precisions.shape[1] > curves.weights.shape[1]:
        slopes[:, -1, 0] = changes / totals * curves.further
    slopes[:, 0, 0] = 1 / totals
    squares = np.swapaxes(slopes, 1, 2) @ np.linalg.solve(curves.precisions, slopes)
    rows = zip(
        found, changes / totals, squares[:, 0, 0], curves.rests, changes, strict=True
    )
    return [
        fit._replace(
            rate=float(rate),
            error=math.sqrt(square * rest / fit.freedom) * fit.noise.wider,
            change=float(change),
        )
        for fit, rate, square, rest, change in rows
    ]


def _reach(law: Law):
    return math.log(law.shapes[-1] / law.shapes[0])


def _columns(law: Law, noises: list[Noise], layer: np.ndarray, shapes: np.ndarray):
    """Whitened steps of the curves, each of total change one, and the totals.

    Args:
        law: from `laws_for`.
        noises: N of them.
        layer: positions.
        shapes: (N, shapes)

    Returns:
        Arrays (N, shapes, steps, curves) and (N, shapes, curves).
    """
    steps = np.diff(law.curves(layer, shapes.reshape(-1)), axis=1)
    totals = steps.sum(axis=1)
    steps = (steps / totals[:, None]).reshape(*shapes.shape, *steps.shape[1:])
    pairs = zip(noises, steps, strict=True)
    white = np.stack([noise.whiten(part) for noise, part in pairs])
    return white, totals.reshape(*shapes.shape, -1)


def _log_widths(law: Law):
    """Logarithm of the volume within which coefficients lie, the shape's among them."""
    shape = math.log(_reach(law)) if law.shaped else 0.0
    if law.name == "constant":
        return law.num_curves * math.log(_TRANSIENT_WIDTH) + shape
    rest = (law.num_curves - 1) * math.log(_TRANSIENT_WIDTH)
    return math.log(_CHANGE_WIDTH) + rest + shape


def _likeliest(grid: np.ndarray, columns: Callable[..., Any], steps: np.ndarray):
    """For each noise the shape of the largest likelihood.

    It is looked for on a grid that closes in on the best three times.

    Args:
        grid: (shapes,) the first grid.
        columns: from shapes (N, shapes) to columns, see `_columns`.
        steps: (N, steps), whitened.

    Returns:
        Array (N,).
    """

    def best_of(shapes: np.ndarray):
        q, r = np.linalg.qr(columns(shapes)[0])
        wide = steps[:, None, :, None]
        rest = (wide - q @ (np.swapaxes(q, 2, 3) @ wide))[..., 0]
        num_steps, num_curves = q.shape[2:]
        square = np.sum(np.square(rest), axis=2) + num_steps * _ROUNDING**2
        scales = np.abs(np.diagonal(r, axis1=2, axis2=3))
        freedom = num_steps - num_curves
        score = -freedom / 2 * np.log(square) - np.sum(np.log(scales), axis=2)
        return np.take_along_axis(shapes, np.argmax(score, axis=1)[:, None], axis=1)

    grid = np.broadcast_to(grid, (len(steps), len(grid)))
    if grid.shape[1] == 1:
        return grid[:, 0]
    share = np.linspace(0, 1, 15)
    for _ in range(3):
        best = best_of(grid)
        low = np.max(grid, axis=1, keepdims=True, where=grid < best, initial=0)
        high = np.min(grid, axis=1, keepdims=True, where=grid > best, initial=np.inf)
        low, high = np.where(low > 0, low, best), np.where(high < np.inf, high, best)
        grid = np.concatenate([low * (high / low) ** share, best], axis=1)
        grid = np.sort(grid, axis=1)
    return best_of(grid)[:, 0]


def interval(
    weights: np.ndarray, means: np.ndarray, errors: np.ndarray, freedoms: np.ndarray, /
):
    """The central 95 % of a mixture of Student's distributions, and its median."""
    errors = np.maximum(errors, np.finfo(np.float64).tiny)
    reach = -special.stdtrit(freedoms, 0.01) * errors + np.abs(means - means[0])
    levels = np.array([0.025, 0.5, 0.975])
    low = np.full(3, means[0] - 1e3 * reach.max())
    high = np.full(3, means[0] + 1e3 * reach.max())
    for _ in range(70):
        middle = (low + high) / 2
        quantiles = (middle[:, None] - means) / errors
        below = special.stdtr(freedoms, quantiles) @ weights < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return tuple((low + high) / 2)
