"""Constant factors, and what numbers they may be."""

import itertools
import math

import numpy as np

from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.subject.vectors import root_mean_square

NO_GRADIENT = "no gradient at all: is the argument detached?"

# Numbers that people forget or write twice.
_SIMPLE = tuple(range(1, 9))

# What is so near to one of their ratios is said as a deviation from it: four digits do
# not show it.
_NEAR = 5e-4


def factor_cause(known: Evidence, /) -> str:
    """The rule is the truth times one number, zero and minus one among them."""
    if root_mean_square(known.rule) == 0:
        return NO_GRADIENT
    if root_mean_square(known.truth) <= known.bar:
        return ""
    factor = float(np.sum(known.rule * known.truth) / np.sum(known.truth**2))
    if factor == 0 or not known.fits(known.rule / factor):
        return ""
    # Of the mean over the table; the bar is that of one number in it.
    doubt = 2 * known.bar / root_mean_square(known.truth)
    if abs(factor + 1) <= doubt:
        return "the sign is wrong"
    sign = "-" if factor < 0 else ""
    size = abs(factor)
    number, inverse = _named(size, doubt), _sizes_of(known, 1 / size, doubt)
    if inverse:
        n, where = inverse
        return (
            f"a constant factor of {sign}1/{n}, and {n} is {where}: a mean for a sum?"
        )
    if multiple := _sizes_of(known, size, doubt):
        n, where = multiple
        return f"a constant factor of {sign}{n}, and {n} is {where}: a sum for a mean?"
    root = _root(known, size, doubt)
    return f"a constant factor of {sign}{root or number}"


def named_factor(factor: float, doubt: float, /) -> str:
    """A factor in words.

    >>> named_factor(-0.5, 1e-9), named_factor(1.05, 1e-9), named_factor(2.000001, 1e-9)
    ('-1/2', '1.05', '2 times (1 + 5.0e-07)')
    """
    return "-" * (factor < 0) + _named(abs(factor), doubt)


def _named(size, doubt) -> str:
    """A ratio of small numbers if it is one, or nearly one; else a decimal."""
    if doubt < 1e-2:
        for top, below in itertools.product(_SIMPLE, _SIMPLE):
            off = size * below / top - 1
            if math.gcd(top, below) > 1 or abs(off) > max(doubt, _NEAR):
                continue
            ratio = str(top) if below == 1 else f"{top}/{below}"
            if abs(off) <= doubt:
                return ratio
            little = f"1 {'-' if off < 0 else '+'} {abs(off):.1e}"
            return little if ratio == "1" else f"{ratio} times ({little})"
    return f"{size:.4g}"


def _sizes_of(known: Evidence, number, doubt):
    """A size in the program that is this number, and which one it is."""
    for n, where in _sizes(known):
        # Neighbouring numbers must be told apart.
        if n > 1 and abs(number / n - 1) <= doubt < 0.25 / n:
            return n, where
    return None


def _root(known: Evidence, size, doubt) -> str:
    for power, name in ((size**2, "sqrt({})"), (size**-2, "1/sqrt({})")):
        if round(power**0.5) ** 2 != round(power) and (
            found := _sizes_of(known, power, 2 * doubt)
        ):
            n, where = found
            return f"{name.format(n)}, and {n} is {where}"
    return ""


def _sizes(known: Evidence):
    """Every size that a mean may have been taken over, the likely ones first."""
    seen = known.seen
    outputs = [
        (y.shape, "the output" if name == "output" else name)
        for y, name in zip(seen.problem.outputs, seen.problem.output_names, strict=True)
    ]
    own = (seen.shape, seen.problem.names[seen.leaf])
    others = zip((x.shape for x in seen.point), seen.problem.names, strict=True)
    named = [*outputs, own, *others]
    for shape, name in named:
        yield from ((n, f"the size of axis {k} of {name}") for k, n in enumerate(shape))
    for shape, name in named:
        yield math.prod(shape), f"the number of entries of {name}"
        for k in range(2, len(shape)):
            axes = ", ".join(map(str, range(k)))
            yield math.prod(shape[:k]), f"the size of axes {axes} of {name}"
