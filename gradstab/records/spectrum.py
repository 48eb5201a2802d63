"""Numbers with their errors, and the singular values of Jacobians."""

import numpy as np

from gradstab.records._record import record, short, static


def root_mean_square(values, axis=None, /):
    """The root mean square, in float64, also where squares leave its range.

    >>> float(root_mean_square([3e-200, 3e-200])), float(root_mean_square([0.0]))
    (3e-200, 0.0)
    """
    values = np.abs(np.asarray(values, np.float64))
    largest = np.max(values, axis=axis, keepdims=True, initial=0.0)
    unit = np.where(np.isfinite(largest) & (largest > 0), largest, 1.0)
    mean = np.mean(np.square(values / unit), axis=axis)
    return np.sqrt(mean) * np.squeeze(unit, axis=axis)


@record
class Estimate:
    """A number per example, and how far it may be off.

    Attributes:
        value: (examples,) the number, or an unbiased estimate of it.
        error: (examples,) the standard error if it comes from random probes, the
            greatest error there can be if it does not.
        low: (examples,) lower end of the 95 % interval; it is not symmetric about the
            value if that comes from random probes.
        high: (examples,) upper end.
    """

    value: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def within(cls, value: object, bound, /) -> "Estimate":
        """A number that is off by no more than the bound."""
        value, bound = np.asarray(value), np.asarray(bound)
        return cls(value, bound, value - bound, value + bound)

    def times(self, factor, /) -> "Estimate":
        """The estimate of a positive multiple of the number."""
        ends = (self.value, self.error, self.low, self.high)
        return Estimate(*(np.asarray(end * factor) for end in ends))

    @property
    def root(self) -> "Estimate":
        """The estimate of the square root of a number that is not negative."""
        value = np.sqrt(self.value)
        low, high = (np.sqrt(np.maximum(end, 0)) for end in (self.low, self.high))
        # |sqrt a - sqrt b| = |a - b| / (sqrt a + sqrt b), at most sqrt |a - b|.
        ends = np.maximum(value + low, np.sqrt(self.error))
        error = np.divide(self.error, ends, out=np.zeros_like(ends), where=ends > 0)
        return Estimate(value, error, low, high)

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(np.mean(self.value))

    @property
    def root_mean_square(self) -> float:
        """The root mean square over the examples, whose squares may be out of range."""
        return float(root_mean_square(self.value))


@record
class Spectrum:
    """Singular values of a Jacobian, per example, or of the joint one of a batch.

    Attributes:
        values: (examples, k) in descending order; (1, k) if the examples are coupled.
            All of them, or the largest.
        errors: (examples, k) a singular value lies within this distance of the value:
            rounding, and the residual where values were found by products.
        frobenius_square: the sum of the squares of all singular values; 0 or infinity
            where that is out of the range of float64, unlike `frobenius_norm`.
        shape: (outputs, inputs) of the Jacobian, in real numbers: a complex entry is
            two of them, and a singular value of a complex matrix is there twice.
        coupled: whether the layer mixes examples, so that the Jacobian is of the whole
            batch.
        relative_square: the sum of the squares over the square of the largest value,
            which is within range where the sum is not.
        method: how the values were computed: 'svd', 'gram' (eigenvalues of the Gram
            matrix in float64) or 'golub-kahan' (with random probes for the sum).
    """

    values: np.ndarray
    errors: np.ndarray
    frobenius_square: Estimate
    shape: tuple[int, int] = static()
    coupled: bool = static(default=False)
    method: str = static(default="svd")
    relative_square: Estimate | None = None

    def __repr__(self) -> str:
        coupled = ", of all examples together" * self.coupled
        return (
            f"<Spectrum of {self.shape[0]} x {self.shape[1]} by {self.method}: "
            f"(examples, values) {short(self.values)}{coupled}>"
        )

    @property
    def largest(self) -> Estimate:
        """The largest singular value: the greatest gain of any direction."""
        return Estimate.within(self.values[:, 0], self.errors[:, 0])

    @property
    def mean_square(self) -> Estimate:
        r"""The squared gain of a random direction, :math:`\|J\|_F^2 / n_{in}`."""
        return self.frobenius_square.times(1 / self.shape[1])

    @property
    def frobenius_norm(self) -> Estimate:
        r"""The root of the sum of the squares of all singular values, :math:`\|J\|_F`.

        In range wherever the largest singular value is.
        """
        if self.relative_square is None:
            return self.frobenius_square.root
        largest = self.values[:, 0]
        return self.relative_square.root.times(np.where(largest == 0, 1, largest))

    @property
    def root_mean_square(self) -> Estimate:
        r"""The gain of a random direction, :math:`\|J\|_F / \sqrt{n_{in}}`."""
        return self.frobenius_norm.times(self.shape[1] ** -0.5)

    @property
    def stable_rank(self) -> Estimate:
        r"""The stable rank :math:`\|J\|_F^2 / \sigma_1^2`; 0 for a zero Jacobian.

        Its interval holds the error of the largest value as well.
        """
        largest, bound = self.values[:, 0], self.errors[:, 0]
        safe = np.where(largest == 0, 1, largest)
        square = self.relative_square
        if square is None:
            square = self.frobenius_square.times(1 / np.square(safe))
        bound = bound / safe
        near = np.where(bound < 1, 1 - bound, 1)
        high = np.where(bound < 1, square.high / np.square(near), np.inf)
        high = np.where(np.isnan(largest), np.nan, high)
        low = square.low / np.square(1 + bound)
        return Estimate(square.value, square.error, low, high)
