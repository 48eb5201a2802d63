r"""Exact laws of networks of any width: not limits, so the sharpest tests."""

from typing import NamedTuple

import numpy as np
from scipy import special

from gradstab.errors import UserValueError


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


def relu_log_law(
    n_in: int, n_out: int | None = None, /, *, sigma_w: float = 2**0.5
) -> LogLaw:
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
        raise UserValueError(f"widths are {n_in} and {n_out}; both are at least 1.")
    k = np.arange(1, n_out + 1)
    # Binomial probabilities but for a factor; their largest term is one.
    logs = -special.gammaln(k + 1) - special.gammaln(n_out - k + 1)
    probability = np.exp(logs - np.max(logs))
    alive = float(-np.expm1(-n_out * np.log(2)))
    probability = probability / probability.sum()
    means = np.log(2 * sigma_w**2 / n_in) + special.digamma(k / 2)
    mean = float(probability @ means)
    spread = special.polygamma(1, k / 2) + (means - mean) ** 2
    return LogLaw(mean, float(probability @ spread), alive)


def sample_relu_log_law(
    seed: int, n: int, depth: int, num: int, /, *, sigma_w: float = 2**0.5
) -> np.ndarray:
    r"""Draws of the law of :math:`\ln(\|h_L\|^2 / \|h_0\|^2)` over ``depth`` layers.

    The layers of `relu_log_law` are independent, so a draw is the sum of the logarithms
    of ``depth`` draws of :math:`(\sigma_w^2 / n) \chi^2_k`, k ~ Binomial(n, 1/2): no
    network is made.

    Args:
        seed: of the draws, or a `numpy.random.Generator`.
        n: width of every layer.
        depth: number of layers.
        num: number of draws; those with a dead layer are left out of the result.
        sigma_w: weights are N(0, sigma_w^2 / n).

    Examples:
        >>> draws = sample_relu_log_law(0, 30, 20, 10_000)
        >>> round(float(draws.mean() / 20), 2)
        -0.09
    """
    rng = np.random.default_rng(seed)
    k = rng.binomial(n, 0.5, (num, depth))
    k = k[np.all(k > 0, axis=1)]
    return np.sum(np.log(sigma_w**2 / n * rng.chisquare(k)), axis=1)


class JacobianMoments(NamedTuple):
    r"""Means over the weights of a Jacobian J of width n.

    Attributes:
        fourth: :math:`E\,\mathrm{tr}(J J^T)^2 / n`, the mean fourth power of its
            singular values.
        square: :math:`E (\mathrm{tr}\,J J^T / n)^2`, the square of their mean square.
    """

    fourth: float
    square: float


def jacobian_moments(
    n: int, depth: int, /, *, open_gates: float = 0.5
) -> JacobianMoments:
    r"""Fourth moments of the Jacobian of a network that keeps its mean square at one.

    Layers are :math:`D W`, weights N(0, 1 / (p n)) and p the probability that a gate of
    D is open: 1/2 for relu with its weights of variance 2 / n, 1 for linear layers.
    With s for the fourth moment and t for the square, a layer makes

    .. math::
        s' = s \Big(1 + \frac{2/p - 1}{n}\Big) + \frac{t}{p}, \quad
        t' = t \Big(1 + \frac{1/p - 1}{n}\Big) + \frac{2 s}{p n^2} .

    As n grows, s tends to 1 + L / p: Gaussian weights are no isometry at any depth.

    Args:
        n: width of every layer, the input included.
        depth: number L of layers.
        open_gates: the probability p that a unit is active.

    Returns:
        The two moments; :math:`E\,\mathrm{tr}\,J J^T / n` is one at any depth.

    Raises:
        ValueError: if there is no layer or no unit, or p is not in (0, 1].

    References:
        Wick's theorem for the Gaussian weights of one layer. The limit is that of
        Pennington, Schoenholz and Ganguli (2017), equation 20.

    Examples:
        >>> round(jacobian_moments(200, 8, open_gates=1.0).fourth, 4)
        9.1864
        >>> round(jacobian_moments(200, 8).fourth, 3)
        18.313
    """
    if n < 1 or depth < 1 or not 0 < open_gates <= 1:
        raise UserValueError(
            f"width is {n}, depth {depth} and open_gates {open_gates}; the first two "
            "are at least 1, and a share of open gates is above 0 and at most 1."
        )
    p, s, t = open_gates, 1.0, 1.0
    for _ in range(depth):
        s, t = (
            s * (1 + (2 / p - 1) / n) + t / p,
            t * (1 + (1 / p - 1) / n) + 2 * s / (p * n**2),
        )
    return JacobianMoments(s, t)
