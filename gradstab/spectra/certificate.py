r"""How far above a Ritz value the singular value of the same rank can lie.

A Ritz value :math:`\theta_i` is never above :math:`\sigma_i`, but a copy of a multiple
value, or a direction that the start happened to miss, may be above it and unseen. Let
:math:`A = J^T J`, and :math:`A V = V T + v_+ E` the recursion of a block of b vectors
:math:`V_1`, where :math:`T` has the eigenvectors :math:`y_j` and eigenvalues
:math:`\theta_j^2`. Any eigenvector x of A, of eigenvalue :math:`\lambda`, obeys

.. math:: V_1^T x = \sum_j \frac{f_j \, (\theta_j \rho_j \cdot h)}
                   {\lambda - \theta_j^2}, \qquad \|h\| \le 1 ,

with :math:`f_j` the first and :math:`\rho_j` the last block of the j-th Ritz vectors.
If d eigenvalues lay above :math:`\mu^2` where d - 1 Ritz values do, their d vectors
:math:`V_1^T x` would lie within :math:`\sqrt d \max_\lambda \|M(\lambda)\|` of a
space of d - 1 dimensions, where M is the sum without these Ritz values. But the start
is random: the least singular value of d of its rows is below :math:`\delta_d` with a
small probability only, which is known. So :math:`\sigma_i \le \mu` as soon as that
maximum is below :math:`\delta_d`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from scipy import special

# Trial values above a Ritz value: the gaps to both ends of the range double with them.
_TRIALS = 32

# Beyond this multiple of the largest Ritz value no bound is looked for.
_FARTHEST = 100.0

# Digits of the Ritz vectors that are rounding.
_ROUNDING = 4


def upper_bounds(
    values, residuals, first, start, count: int, /, *, chance: float = 1e-3
):
    r"""Bounds that singular values do not exceed, of all ranks up to ``count``.

    Values are counted with their multiplicities. A bound is found from the number of
    values above a gap that is known already (at first none), if fewer than b Ritz
    values lie between; else it is that of the rank before.

    Args:
        values: (num, m) Ritz values in descending order.
        residuals: (num, b, m) their residuals in the next block, :math:`\rho_j`.
        first: (num, m, b) parts of their right vectors in the first block, which was
            made orthonormal from :math:`J^T \Omega` with Gaussian :math:`\Omega`.
        start: (num,) norm of :math:`J^T \Omega`.
        count: how many bounds, at most m.
        chance: the probability that any bound is too small.

    Returns:
        ``(num, count)``, never below the values. Cost: :math:`O(m b^2)` operations for
        each. Survives jit.

    References:
        Hochstenbach (2013), Probabilistic upper bounds for the matrix two-norm, for
        the largest value and one vector. Least singular value of Gaussian matrices:
        Chen and Dongarra (2005), Condition numbers of Gaussian random matrices.
    """
    block = residuals.shape[1]
    unit = values[:, :1]
    unit = jnp.where(unit > 0, unit, 1)
    theta, rho, start = values / unit, residuals / unit[:, None], start / unit[:, 0]
    bound = functools.partial(
        _bound,
        theta,
        rho,
        first,
        start,
        jnp.asarray(_least(block, count, chance), values.dtype),
    )

    def advance(bounds, rank):
        # The last gap: as many singular values as Ritz values are above it.
        above = jnp.arange(count)[None]
        gap = (above > 0) & (above < rank) & (bounds < jnp.roll(theta, 1, 1)[:, :count])
        known = jnp.max(jnp.where(gap, above, 0), axis=1)
        before = jnp.where(
            rank > 0, bounds[:, jnp.maximum(rank - 1, 0)], _FARTHEST * theta[:, 0]
        )
        whole = jnp.where(rank > 0, bounds[:, 0], before)
        high = jnp.take_along_axis(bounds, known[:, None], 1)[:, 0]
        new = jnp.minimum(before, bound(rank, jnp.zeros_like(known), whole))
        new = jnp.where(known > 0, jnp.minimum(new, bound(rank, known, high)), new)
        new = jnp.maximum(new, theta[:, rank])
        return bounds.at[:, rank].set(new), None

    bounds = jnp.full_like(theta[:, :count], jnp.inf)
    return jax.lax.scan(advance, bounds, jnp.arange(count))[0] * unit


def _bound(theta, rho, first: int, start, least, rank, known, high):
    """The bound of one rank if ``known`` values are above ``high`` and no more."""
    number = rank + 1 - known
    here = theta[:, rank]
    reach = jnp.maximum(high - here, 0)
    trial = here[:, None] + jnp.asarray(_steps(theta.dtype))[None] * reach[:, None]
    trial = jnp.maximum(trial, here[:, None] + _tiny(theta))
    place = jnp.arange(theta.shape[1])[None]
    kept = (place < known[:, None]) | (place >= rank)
    trials, ritz = trial[:, :, None], theta[:, None]
    apart = (trials - ritz) * (trials + ritz)
    apart = jnp.where(apart == 0, jnp.finfo(theta.dtype).tiny, apart)
    weights = jnp.where(kept[:, None], ritz / apart, 0)
    outer = jnp.einsum("bam,bmc->bmac", rho, first, precision="highest")
    outer = outer.reshape(*outer.shape[:2], -1)
    images = jnp.einsum("bgm,bmk->bgk", weights, outer, precision="highest")
    size = jnp.sqrt(jnp.sum(jnp.square(images), axis=2))
    parts = jnp.sum(jnp.square(rho), axis=1) + jnp.sum(jnp.square(first), axis=2)
    noise = jnp.sum(jnp.square(weights) * parts[:, None], axis=2)
    size += _tiny(theta) * jnp.sqrt(noise)
    size = jax.lax.cummax(size, axis=1, reverse=True)
    needed = trial * least[number - 1][:, None]
    rows = jnp.sqrt(number.astype(theta.dtype))
    excluded = (rows * start)[:, None] * size < needed
    lowest = jnp.min(jnp.where(excluded, trial, jnp.inf), axis=1)
    return jnp.where(jnp.isnan(lowest), jnp.inf, lowest)


def _tiny(theta):
    return _ROUNDING * jnp.finfo(theta.dtype).eps


def _steps(dtype: DTypeLike):
    """Fractions of the way to the other end, denser towards both of them."""
    eps = float(jnp.finfo(dtype).eps)
    near = np.geomspace(eps, 0.5, _TRIALS)
    far = 1 - np.geomspace(1e-3, 0.5, _TRIALS // 4)
    return np.unique(np.concatenate([near, far, [1.0]])).astype(dtype)


@functools.cache
def _least(block, count: int, chance):
    """What the least singular value of d rows exceeds, d = 1 .. count; 0 beyond b."""
    return np.array(
        [
            _quantile(number, block, chance / count) if number <= block else 0.0
            for number in range(1, count + 1)
        ],
        np.float64,
    )


def _quantile(rows, columns, chance):
    """The least singular value of a Gaussian matrix is below it with that chance.

    The density of its square x is at most :math:`c x^{(n - m - 1) / 2}`.
    """
    free = columns - rows + 1
    log_c = (
        (columns - rows - 1) / 2 * math.log(2)
        + special.gammaln((columns + 1) / 2)
        - special.gammaln(rows / 2)
        - special.gammaln(free)
    )
    return math.exp((math.log(chance * free / 2) - log_c) / free)
