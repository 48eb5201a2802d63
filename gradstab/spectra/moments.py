r"""Moments of the squared singular values of a Jacobian, from random probes.

For m orthonormal vectors :math:`q_i`, uniform among all such, in a space of dimension
n, :math:`\frac{n}{m} \sum_i \|J q_i\|^2` estimates :math:`\|J\|_F^2` without bias, with

.. math:: \text{relative variance} = \frac{2 n}{n + 2}
          \left(\frac{1}{r} - \frac{1}{n}\right) \frac{n - m}{m (n - 1)},
          \qquad r = \frac{(\sum_i \sigma_i^2)^2}{\sum_i \sigma_i^4} .

That is the variance of independent Gaussian probes but for two factors: an isometry is
measured without error, and so is anything once m = n. The effective rank r follows from
the inner products of the images :math:`J q_i`: m (m - 1) / 2 products tell more than
the scatter of m norms, and for rank one they tell r = 1 exactly.

The error is skewed where a few singular values stand out. For one that stands out from
equal ones, the fraction of its square that falls into the random subspace is
beta(m / 2, (n - m) / 2), so the interval is known. Products of three images tell how
many such values would give the same skewness (negative: values that are missing), and
the interval is theirs.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from scipy import special

from gradstab import _tree
from gradstab.errors import UserValueError
from gradstab.records import Estimate, record, static
from gradstab.spectra.batched import qr
from gradstab.spectra.golub_kahan import roundoff, two_way, work_dtype
from gradstab.spectra.linear_map import LinearMap

# Probes pushed through at once: they fill the matrix products of a narrow layer, and
# bound the intermediate results of a wide one.
_CHUNK = 16

# If fewer directions than this were left out, they are probed too: it costs next to
# nothing and is exact, while the interval covers in only 86 to 90 % of trials if one is
# left out (at 65 inputs and 64 probes), but as it should from eight on.
_FEW = 8


@record
class Moments:
    """What random probes tell about Jacobians; intervals are found when asked for.

    Attributes:
        square: (num,) estimate of the squared Frobenius norm over ``unit**2``.
        excess: (num,) estimate of n / r - 1 with r the effective rank: 0 for
            isometries, n - 1 for rank one.
        skew: (num,) third central moment of the squared singular values over the power
            3/2 of the second, relative to rank one: 1 for rank one, 0 for symmetry, -1
            for an isometry but for one lost direction.
        unit: (num,) a power of two near the norm of the images, so that the squares of
            very small and very large Jacobians stay within range.
        shape: (n_out, n_in).
        num_probes: the probes used; if it is the smaller side, the result is exact.
        roundoff: unit roundoff of the arithmetic.
    """

    square: jax.Array
    excess: jax.Array
    skew: jax.Array
    unit: jax.Array
    shape: tuple[int, int] = static()
    num_probes: int = static()
    roundoff: float = static()

    @property
    def frobenius_square(self) -> Estimate:
        """The squared Frobenius norm, in float64."""
        with np.errstate(over="ignore", under="ignore"):
            return self.over_square(np.ones(np.shape(self.unit)))

    def over_square(self, size) -> Estimate:
        """The squared Frobenius norm over the square of a size ``(num,)``."""
        unit = np.asarray(self.unit, np.float64) / size
        square = np.asarray(self.square, np.float64)
        variance = self._relative_variance()
        low, high = self._factors()
        # Rounding and chance are independent, so they add in squares.
        low = 1 - np.hypot(1 - low, 4 * self.roundoff)
        high = 1 + np.hypot(high - 1, 4 * self.roundoff)
        error = np.hypot(np.sqrt(variance), 4 * self.roundoff)
        ones = np.ones_like(square)
        return Estimate(ones, error, low, high).times(square * unit**2)

    @property
    def mean_square(self) -> Estimate:
        r"""The squared gain of a random direction, :math:`\|J\|_F^2 / n_{in}`."""
        return self.frobenius_square.times(1 / self.shape[1])

    def _factors(self):
        n, m = min(self.shape), self.num_probes
        if m == n:
            return np.ones((2, *np.shape(self.square)))
        strength = np.sqrt(np.clip(np.asarray(self.excess, np.float64) / (n - 1), 0, 1))
        return _beta_factors(strength, np.asarray(self.skew, np.float64), n, m)

    def _relative_variance(self):
        n, m = min(self.shape), self.num_probes
        if m == n:
            return np.zeros(np.shape(self.square))
        excess = np.clip(np.asarray(self.excess, np.float64), 0, n - 1)
        return 2 * excess / (n + 2) * (n - m) / (m * (n - 1))


def moments(num_probes: int = 64) -> Callable[[LinearMap, jax.Array], Moments]:
    r"""Estimates of the squared Frobenius norm from random probes, with intervals.

    The probes are orthonormal. Rademacher probes have less variance if
    :math:`J^T J` is close to diagonal, but their law depends on the basis and can be
    discrete, so no interval covers alike for all Jacobians; that of orthonormal probes
    depends on the singular values alone, and its variance is never above that of
    Gaussian ones. They probe the smaller side of the Jacobian, where fewer are needed.

    The interval is that of a beta distribution with the estimated variance and
    skewness, which is right for rank one. Unlike one from the normal or Student's
    distribution it covers as often when a few singular values dominate.

    Args:
        num_probes: probes per example, at least 3. The whole space is probed if its
            dimension is less than ``num_probes + 8``.

    Returns:
        ``probe(linear_map, key)``, which returns `Moments` and survives jit and vmap.
        Values are NaN where a Jacobian is not finite. Cost: m products, and
        :math:`O(m^2 (n_{in} + n_{out}))` operations and
        :math:`m (n_{in} + n_{out})` entries of memory per example.

    Raises:
        ValueError: if there are fewer than three probes.

    References:
        Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.
        The fit of moments is that of Satterthwaite (1946), An approximate distribution
        of estimates of variance components, with one moment more.

    Examples:
        >>> gains = jnp.array([[3.0, 2.0, 0.0]])
        >>> scaling = LinearMap(lambda v: v * gains, lambda w: w * gains, 1, (3, 3))
        >>> found = moments(num_probes=64)(scaling, jax.random.key(0))
        >>> found.num_probes, found.frobenius_square.value
        (3, array([13.]))
    """
    if num_probes < 3:
        raise UserValueError(
            f"num_probes={num_probes}: the error of an estimate is not visible from "
            "fewer than three probes. With 64 it is 2 % at effective rank 100."
        )

    def probe(linear_map: LinearMap, key: jax.Array, /) -> Moments:
        n_out, n_in = linear_map.shape
        product = two_way(linear_map)[0] if n_in <= n_out else linear_map.rmatvec
        n = min(n_in, n_out)
        m = n if n < num_probes + _FEW else num_probes
        dtype = work_dtype(linear_map)
        probes = _orthonormal(key, linear_map.num, n, m, dtype)
        images = jax.lax.map(product, probes, batch_size=min(_CHUNK, m)).astype(dtype)
        unit = _tree.power_of_two_near(jnp.max(jnp.abs(images), axis=(0, 2)))
        images = images / unit[None, :, None]
        gram = jnp.einsum("ibn,jbn->bij", images, images, precision="highest")
        square, excess, skew = _from_gram(gram, n)
        unit_roundoff = roundoff(linear_map)
        return Moments(square, excess, skew, unit, linear_map.shape, m, unit_roundoff)

    return probe


def _orthonormal(key: jax.Array, num: int, n, m, dtype: DTypeLike):
    """(m, num, n): m orthonormal vectors per example, uniform among all such."""
    if m == n:
        basis = jnp.eye(n, dtype=dtype)[:, None]
        return jnp.broadcast_to(basis, (n, num, n))
    columns = qr(jax.random.normal(key, (num, n, m), dtype))[0]
    return jnp.moveaxis(columns, 2, 0)


def _from_gram(gram, n):
    r"""The squared norm, its excess and its skew from inner products of the images.

    The mean products of pairs :math:`i \ne j` are, with :math:`T = \sum \sigma^2`,
    :math:`S = \sum \sigma^4` and :math:`D = n (n - 1) (n + 2)`,

    .. math:: E[G_{ii} G_{jj}] = ((n + 1) T^2 - 2 S) / D, \qquad
              E[G_{ij}^2] = (n S - T^2) / D ,

    (Collins and Sniady 2006, Integration with respect to the Haar measure), so
    :math:`T^2 = n^2 E[G_{ii} G_{jj}] + 2 n E[G_{ij}^2]` and n / r - 1 follow without
    cancellation. The products :math:`G_{ij} G_{jk} G_{ki}` of three depend on the third
    central moment only, by a factor that rank one gives.
    """
    m = gram.shape[-1]
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    off = jnp.where(jnp.eye(m, dtype=bool)[None], 0, gram)
    square = jnp.sum(diagonal, axis=1)
    norms = (jnp.square(square) - jnp.sum(jnp.square(diagonal), axis=1)) / (m * (m - 1))
    twos = jnp.sum(jnp.square(off), axis=(1, 2)) / (m * (m - 1))
    square_off = jnp.einsum("bij,bjk->bik", off, off, precision="highest")
    threes = jnp.sum(square_off * off, axis=(1, 2)) / (m * (m - 1) * (m - 2))
    total = n * norms + 2 * twos
    excess = float((n - 1) * (n + 2)) * twos / jnp.where(total > 0, total, 1)
    spread = jnp.where(twos > 0, twos, 1) ** 1.5
    skew = (n + 4) / math.sqrt(n * (n + 2)) * threes / spread
    return n / m * square, excess, skew


def _beta_factors(strength, skew, n, m):
    """By what the estimate is to be multiplied for the ends of its 95 % interval."""
    p = m / n
    num_spikes = 1 / np.clip(np.square(skew), 1e-4, 1)
    both = num_spikes * (n / 2 + 1) - 1
    size = np.sign(skew) * strength * np.sqrt(num_spikes)
    ends = [
        1 + size * (p / special.betaincinv(p * both, (1 - p) * both, q) - 1)
        for q in (0.025, 0.975)
    ]
    return np.minimum(*ends), np.maximum(*ends)
