"""The two figures of the textbooks for a gradient and its central differences."""

import numpy as np
from jax.typing import DTypeLike

from gradstab.records import record, static

# Ng, Deep Learning Specialization (course 2, week 1, gradient checking).
_RATIO_BANDS = (
    (1e-7, "great"),
    (1e-5, "look at the components"),
    (1e-3, "likely wrong"),
    (np.inf, "wrong"),
)

# CS231n, notes on gradient checks.
_ERROR_BANDS = (
    (1e-7, "happy"),
    (1e-4, "okay for most, happy at kinks"),
    (1e-2, "uncomfortable"),
    (np.inf, "probably wrong"),
)

COARSE = (
    "the figures of the textbooks are for float64: in {} even a right gradient does "
    "not reach their bands"
)


@record
class Figures:
    r"""What a textbook says about the whole Jacobian; the verdict does not rest on it.

    With :math:`a` the differences and :math:`e` the rule, over all entries of all
    leaves.

    Attributes:
        ratio: :math:`\|a - e\| / (\|a\| + \|e\|)`; NaN unless in float64.
        worst_error: the largest :math:`|a - e| / \max(|a|, |e|)`; NaN unless in
            float64.
        ratio_band: what Ng says about such a ratio.
        error_band: what CS231n says about such an error.
        left_out: how many entries `worst_error` leaves out, because the differences
            agree with the rule but cannot tell them to 1e-7.
        evaluations: of f, its JVP and its VJP.
        notes: for the reader.

    References:
        Ng, Improving Deep Neural Networks (gradient checking); Karpathy, CS231n notes
        (gradient checks).
    """

    ratio: float
    worst_error: float
    ratio_band: str = static()
    error_band: str = static()
    left_out: int = static()
    evaluations: int = static()
    notes: tuple[str, ...] = static(default=())


def figures(
    sums, worst_error, left_out, /, *, dtype: DTypeLike, evaluations, notes=()
) -> Figures:
    """The record, from sums over all entries.

    Args:
        sums: of the squares of ``a - e``, of ``a`` and of ``e``.
        worst_error: the largest element-wise error.
        left_out: see `Figures`.
        dtype: in which f was evaluated.
        evaluations: see `Figures`.
        notes: see `Figures`.

    >>> figures((1e-20, 1.0, 1.0), 1e-5, 0, dtype=np.dtype(float), evaluations=2).ratio
    5e-11
    """
    if dtype != np.float64:
        note = COARSE.format(dtype)
        return Figures(np.nan, np.nan, "", "", left_out, evaluations, (*notes, note))
    error, differences, rule = np.sqrt(sums)
    both = differences + rule
    ratio = float(error / both) if both else 0.0
    return Figures(
        ratio=ratio,
        worst_error=float(worst_error),
        ratio_band=_band(ratio, _RATIO_BANDS),
        error_band=_band(worst_error, _ERROR_BANDS),
        left_out=left_out,
        evaluations=evaluations,
        notes=notes,
    )


def _band(number, bands) -> str:
    """The word for the first limit that is not exceeded; none for NaN."""
    return next((word for limit, word in bands if number <= limit), "")
