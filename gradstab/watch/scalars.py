"""Single numbers of every step: how odd it is, how often it clips, how noisy it is."""

from typing import Any, NamedTuple

import numpy as np

from gradstab import _checked
from gradstab.errors import UserValueError

# What a step is compared with: so many before it, and at least so many.
WINDOW, _LEAST = 100, 8
# Groups of neighbouring steps that are left out in turn.
_NUM_GROUPS = 20


def z_score(values, /, *, window: int = WINDOW) -> np.ndarray:
    r"""How many standard deviations a step is above the steps before it.

    It is :math:`(x_t - \bar x) / s` with mean and standard deviation of the ``window``
    steps before, those that are finite. Beyond six it is worth a look: of independent
    Gaussian numbers one in a billion is.

    Args:
        values: of every step, ``(steps,)``.
        window: how many steps before.

    Returns:
        ``(steps,)``; NaN where fewer than eight finite ones are before it, and of what
        is not finite. Infinite where those before it are all alike.

    >>> z_score([1.0, 2.0] * 4 + [4.5])[-1].round(3)
    np.float64(5.612)
    """
    _checked.whole_number(window, "window", least=_LEAST)
    values = np.asarray(values, np.float64)
    result = np.full(len(values), np.nan)
    for i in range(_LEAST, len(values)):
        before = values[max(i - window, 0) : i]
        before = before[np.isfinite(before)]
        if len(before) < _LEAST or not np.isfinite(values[i]):
            continue
        beyond, spread = values[i] - before.mean(), before.std(ddof=1)
        with np.errstate(divide="ignore"):
            result[i] = np.divide(beyond, spread) if beyond else 0.0
    return result


def clip_fraction(norms, max_norm, /, *, window: int = WINDOW) -> np.ndarray:
    """The share of the last steps whose gradient is longer than a threshold.

    Near one the clip is always on, and the threshold sets the length of every step;
    near zero it never acts. Norms that are not finite do not count.

    Args:
        norms: of the gradient before it is clipped, ``(steps,)``.
        max_norm: the threshold, or one of every step.
        window: of how many steps, the step itself among them.

    Returns:
        ``(steps,)``; NaN before a first finite norm.

    >>> clip_fraction([1.0, 3.0, 3.0, 1.0], 2.0).round(2).tolist()
    [0.0, 0.5, 0.67, 0.5]
    """
    _checked.whole_number(window, "window", least=1)
    norms = np.asarray(norms, np.float64)
    limits = np.broadcast_to(np.asarray(max_norm, np.float64), norms.shape)
    if not np.all(limits > 0):
        raise UserValueError(f"max_norm must be above zero, got {max_norm!r}")
    known = np.isfinite(norms)
    sums = [np.cumsum(flags) for flags in (known & (norms > limits), known)]
    counts = [s - np.concatenate([np.zeros(window, int), s])[: len(s)] for s in sums]
    with np.errstate(invalid="ignore"):
        return np.divide(*counts)


class GradientNoise(NamedTuple):
    """What the norms of parts of a batch say of a step, unbiased.

    Attributes:
        gradient_signal: squared norm of the gradient of all data; of one step it may be
            below zero.
        gradient_noise: the trace of the covariance of the gradient of an example.
    """

    gradient_signal: Any
    gradient_noise: Any


def gradient_noise(norm, part_norms, /, *, batch_size: int) -> GradientNoise:
    r"""Signal and noise of a gradient, of its norm and those of parts of its batch.

    With :math:`G_B` of the whole batch and :math:`G_b` of parts of :math:`b` examples,

    .. math::
        |G|^2 = \frac{B |G_B|^2 - b \overline{|G_b|^2}}{B - b}, \quad
        \operatorname{tr} \Sigma =
        \frac{\overline{|G_b|^2} - |G_B|^2}{1 / b - 1 / B}.

    It is arithmetic, and works inside of `jax.jit` too. Give both to `History.append`:
    ``history.append(step, stats, **gradient_noise(...)._asdict())``.

    Args:
        norm: of the mean gradient of the batch, ``(...)``.
        part_norms: of the mean gradients of parts that are equally large, ``(...,
            parts)``: of examples (from a `jax.vmap` of the gradient), of micro-batches,
            or of replicas.
        batch_size: examples in the batch.

    Raises:
        ValueError: there are fewer than two parts, or they are not equally large.

    References:
        McCandlish, Kaplan, Amodei and OpenAI Dota Team (2018), An empirical model of
        large-batch training, equations A.1 and A.2.
    """
    shape = np.shape(part_norms)
    parts = shape[-1] if shape else 0
    _checked.whole_number(batch_size, "batch_size", least=1)
    if parts < 2 or batch_size % parts:
        raise UserValueError(
            f"a batch of {batch_size} examples has no {parts} parts that are equally "
            "large: give the norms of two and more, one for each"
        )
    small = batch_size // parts
    if isinstance(part_norms, list | tuple):
        part_norms = np.asarray(part_norms)
    mean = (part_norms * part_norms).sum(axis=-1) / parts
    whole = norm * norm
    signal = (batch_size * whole - small * mean) / (batch_size - small)
    noise = (mean - whole) / (1 / small - 1 / batch_size)
    return GradientNoise(signal, noise)


class NoiseScale(NamedTuple):
    """The gradient noise scale of a stretch of training.

    Attributes:
        value: the noise over the signal, in examples: a batch of this size has a
            gradient whose noise is as long as its signal. Larger batches gain little.
        error: its standard error.
        low: of the interval that holds it with 95 %.
        high: of the same; infinite where the signal may be zero.
    """

    value: float
    error: float
    low: float
    high: float


def noise_scale(signal, noise, /) -> NoiseScale:
    r"""The simple noise scale :math:`\operatorname{tr} \Sigma / |G|^2` of steps.

    The ratio of the means over the steps, because the mean of ratios is biased; its
    error by leaving out groups of neighbouring steps (a jackknife), which holds for
    steps that are alike as long as a group is longer than they are alike. The limits
    are those of Fieller (1954) for a ratio of two means.

    Args:
        signal: of every step, from `gradient_noise`, ``(steps,)``.
        noise: likewise.

    Raises:
        ValueError: there are fewer than eight steps where both are finite.
    """
    pairs = np.stack([np.asarray(x, np.float64) for x in (signal, noise)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    num = pairs.shape[1]
    if num < _LEAST:
        raise UserValueError(f"a noise scale needs {_LEAST} steps, got {num}")
    groups = np.array_split(pairs, min(_NUM_GROUPS, num), axis=1)
    total = pairs.sum(axis=1)
    left = np.stack([(total - g.sum(axis=1)) / (num - g.shape[1]) for g in groups])
    mean, count = pairs.mean(axis=1), len(groups)
    # What is left without a group varies as the mean does, and so does its ratio.
    beside = left - left.mean(axis=0)
    covariance = beside.T @ beside * (count - 1) / count
    with np.errstate(divide="ignore", invalid="ignore"):
        value, ratios = mean[1] / mean[0], left[:, 1] / left[:, 0]
    spread = np.sum((ratios - ratios.mean()) ** 2) * (count - 1) / count
    low, high = _fieller(mean, covariance, count - 1)
    return NoiseScale(float(value), float(np.sqrt(spread)), low, high)


def _fieller(mean, covariance, free):
    """Where the second mean may be so many times the first, with 95 %."""
    from scipy import special

    t = special.stdtrit(free, 0.975) ** 2
    a = mean[0] ** 2 - t * covariance[0, 0]
    b = mean[0] * mean[1] - t * covariance[0, 1]
    c = mean[1] ** 2 - t * covariance[1, 1]
    root = b**2 - a * c
    if a <= 0 or root < 0:
        # The signal may be zero: from the least ratio on, if that is known.
        least = (b - np.sqrt(root)) / a if a < 0 and root >= 0 and c > 0 else 0.0
        return float(max(least, 0.0)), np.inf
    return float((b - np.sqrt(root)) / a), float((b + np.sqrt(root)) / a)
