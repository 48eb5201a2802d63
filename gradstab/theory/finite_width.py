r"""The exact law of relu networks of any width: not a limit, so the sharpest test."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats


class LogLaw(NamedTuple):
    r"""The law of :math:`\ln(\|h'\|^2 / \|h\|^2)` over one layer, given it is alive.

    Attributes:
        mean: its mean.
        variance: its variance. Layers are independent, so both add up over depth.
        alive: the probability that some unit is active.
    """

    mean: float
    variance: float
    alive: float


def relu_log_law(n_in, n_out=None, /, *, sigma_w=2**0.5) -> LogLaw:
    r"""How a relu layer with Gaussian weights and no bias changes a squared norm.

    Flipping the sign of a unit's weights flips its gate and leaves the size of its
    pre-activation alone, so k of the ``n_out`` gates are open, k ~ Binomial(n_out, 1/2)
    exactly, and the squared norm is multiplied by
    :math:`(\sigma_w^2 / n_{in}) \chi^2_k`. The same law holds for the tangent
    :math:`J u` of any direction u that meets the gates of another input, and layers are
    independent. As the width n grows, with sigma_w^2 = 2, mean and variance tend to
    -5 / (2n) and 5 / n.

    Args:
        n_in: fan-in.
        n_out: number of units; ``n_in`` if not given.
        sigma_w: weights are N(0, sigma_w^2 / n_in).

    Returns:
        Mean and variance of the logarithm, given that k > 0.

    References:
        Hanin (2018), Which neural net architectures give rise to exploding and
        vanishing gradients?; Hanin and Nica (2020), Products of many large random
        matrices and gradients in deep neural networks, for the limit. The law itself
        is the symmetry above.

    Examples:
        >>> law = relu_log_law(100)
        >>> round(law.mean, 6), round(law.variance, 6)
        (-0.025421, 0.05194)
    """
    n_out = n_in if n_out is None else n_out
    if n_in < 1 or n_out < 1:
        raise ValueError(f"widths are {n_in} and {n_out}; both are at least 1.")
    k = np.arange(1, n_out + 1)
    probability = stats.binom.pmf(k, n_out, 0.5)
    alive = float(-np.expm1(-n_out * np.log(2)))
    probability = probability / probability.sum()
    means = np.log(2 * sigma_w**2 / n_in) + special.digamma(k / 2)
    mean = float(probability @ means)
    spread = special.polygamma(1, k / 2) + (means - mean) ** 2
    return LogLaw(mean, float(probability @ spread), alive)
