"""Why a rule is wrong: hypotheses, each tried against numbers before it is said.

A hypothesis says how the wrong derivative comes from the true one: a factor, a
transposition, a part of the cotangent that is not used. It is applied, and the error
must vanish to the bar and to a fiftieth of what it was. If none fits, nothing is said.
"""

import numpy as np

from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.hints.complex_numbers import conjugate_cause
from gradstab.gradcheck.places.hints.cotangents import cotangent_cause
from gradstab.gradcheck.places.hints.evidence import evidence, is_flat
from gradstab.gradcheck.places.hints.factors import factor_cause
from gradstab.gradcheck.places.hints.gradients import (
    exchange_cause,
    missing_term_cause,
    region_cause,
    transpose_cause,
    undefined_cause,
)
from gradstab.gradcheck.places.hints.parts import partial_factor_cause, rows_cause
from gradstab.gradcheck.places.hints.precision import precision_cause

# The simple ones first: what a factor explains is no matter of single rows.
_CAUSES = (
    conjugate_cause,
    factor_cause,
    transpose_cause,
    region_cause,
    cotangent_cause,
    missing_term_cause,
    exchange_cause,
    precision_cause,
)

# These say which part is wrong, where it is not known why.
_PARTS = (rows_cause, partial_factor_cause)


def cause(seen: Comparison, rng: np.random.Generator, /) -> str:
    """The likely cause of a wrong rule, in words; empty if none fits.

    Recognised are: no gradient at all; a constant factor or a wrong sign, named by the
    sizes of axes; the transposed matrix or Jacobian; a conjugate; a cotangent that is
    ignored, also of one output alone, used in its first row only, for all rows, or
    without its last block; entries that are dropped; missing terms that are constant or
    proportional to the output or the argument along an axis; gradients of two arguments
    exchanged; rounding to bfloat16 or float16; numbers that are not finite while all
    others are right; and a rule that is not zero where f is flat.

    Args:
        seen: the rule beside its function.
        rng: of the directions.

    Returns:
        Words that follow a colon, such as ``a constant factor of 1/2``.
    """
    known = evidence(seen, rng)
    if not np.isfinite(known.truth).all() or not np.isfinite(known.bar):
        return ""
    if not np.isfinite(known.error):
        return undefined_cause(known)
    if known.error <= known.bar:
        return ""
    if is_flat(known):
        return "f is flat there: if the rule is meant to say more, see expect="
    hints = (find(known) for find in _CAUSES)
    return next((hint for hint in hints if hint), "")


def part(seen: Comparison, rng: np.random.Generator, /) -> str:
    """Which part of the entries is wrong, in words; empty if none stands out.

    Recognised are: the first or the last row of an axis alone, all but the first one,
    and a factor in some entries while the others are right. Arguments as of `cause`.
    """
    known = evidence(seen, rng)
    if not np.isfinite(known.error) or not np.isfinite(known.truth).all():
        return ""
    if not known.bar < known.error:
        return ""
    words = (find(known) for find in _PARTS)
    return next((word for word in words if word), "")
