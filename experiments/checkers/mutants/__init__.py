"""Wrong rules by subject, and what of section 3's classes is not among them.

A single function of immutable arrays cannot show a cotangent that is overwritten in
place (class 29).
"""

from experiments.checkers.mutants import (
    choices,
    factors,
    indices,
    matrices,
    reductions,
    rounding,
    solvers,
    special,
    transformed,
    windows,
)

MUTANTS = (
    *factors.MUTANTS,
    *reductions.MUTANTS,
    *matrices.MUTANTS,
    *solvers.MUTANTS,
    *indices.MUTANTS,
    *windows.MUTANTS,
    *choices.MUTANTS,
    *rounding.MUTANTS,
    *special.MUTANTS,
    *transformed.MUTANTS,
)
