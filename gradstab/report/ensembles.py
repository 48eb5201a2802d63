"""The records of an ensemble: numbers of every initialisation."""

import numpy as np

from gradstab.records import record, static


@record
class OverSeeds:
    """A number of every initialisation, and its distribution over them.

    Norms that are products over many layers are lognormal in good approximation, so
    their statistics are of the natural logarithm (``logarithmic``): over 400 relu
    (tanh) networks of 32 layers of 64 units, gradient norms at the first layer have a
    skewness of 2.4 (3.0), their logarithms one of -0.1 (-0.2). The mean squared
    singular value of a single layer, with 0.4 (0.7), is averaged as it is: theory
    predicts that mean.

    Attributes:
        values: (seeds, ...) as measured.
        logarithmic: whether the statistics are of the logarithm of the values.
    """

    values: np.ndarray
    logarithmic: bool = static(default=False)

    @property
    def count(self) -> np.ndarray:
        """How many initialisations count: a logarithm needs a positive finite value."""
        return np.sum(self._usable, axis=0)

    @property
    def mean(self) -> np.ndarray:
        """The mean; NaN if no initialisation counts."""
        total = np.sum(np.where(self._usable, self._levels, 0), axis=0)
        return _quotient(total, self.count)

    @property
    def variance(self) -> np.ndarray:
        """The variance between initialisations, unbiased; NaN for fewer than two."""
        apart = np.where(self._usable, self._levels - self.mean, 0)
        return _quotient(np.sum(np.square(apart), axis=0), self.count - 1)

    @property
    def error(self) -> np.ndarray:
        """The standard error of the mean."""
        return np.sqrt(_quotient(self.variance, self.count))

    @property
    def typical(self) -> np.ndarray:
        """The mean in the unit of the values: a geometric one if logarithmic."""
        return np.exp(self.mean) if self.logarithmic else self.mean

    @property
    def log_root_mean_square(self) -> np.ndarray:
        r"""The logarithm of the root mean square over all initialisations that count.

        For a logarithmic number :math:`\mu + \sigma^2`, as if it was lognormal: what
        mean-field theory predicts, without the noise of the few largest draws.
        """
        if self.logarithmic:
            return self.mean + self.variance
        return np.log(np.square(self.mean) + self.variance) / 2

    @property
    def _usable(self) -> np.ndarray:
        values = np.asarray(self.values)
        return np.isfinite(values) & ((values > 0) | (not self.logarithmic))

    @property
    def _levels(self) -> np.ndarray:
        values = np.where(self._usable, self.values, 1)
        return np.log(values) if self.logarithmic else values


@record
class Ensemble:
    """The signals of many initialisations of one network.

    Attributes:
        forward_rms: (seeds, layers) see `Signals`; logarithmic.
        gradient_norm: (seeds, layers) geometric mean over the examples of
            `Signals.gradient_norms`; logarithmic.
        param_gradient_norm: (seeds, layers) see `Signals`; logarithmic.
        mean_square: (seeds, layers) mean squared singular value of the layer's
            Jacobian, estimated by one probe per example; NaN for integer inputs.
        forward_rate: (seeds,) rate of the forward signal, in the law of
            ``report.growth.forward``; per layer if that is constant.
        backward_rate: (seeds,) likewise of the gradient norm.
        names: the layers.
    """

    forward_rms: OverSeeds
    gradient_norm: OverSeeds
    param_gradient_norm: OverSeeds
    mean_square: OverSeeds
    forward_rate: OverSeeds
    backward_rate: OverSeeds
    names: tuple[str, ...] = static()

    @property
    def num_seeds(self) -> int:
        """How many initialisations."""
        return len(self.forward_rms.values)


def _quotient(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
