"""Rules of complex numbers that conjugate, turn or lose a part of them.

A complex leaf is a pair of real numbers on a last axis of two, and so is an output.
"""

import numpy as np

from gradstab.gradcheck.places.entry import is_pair
from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.subject.arguments import AS_PAIR

_EXPECTED = "the conjugate of what is expected"

# What a rule makes of (gradients, cotangents), or is given of (tangents, and makes).
_LOST = {
    "reverse": ("the imaginary part is lost", "that of the cotangent is lost"),
    "forward": ("that of the tangent is lost", "the imaginary part is lost"),
}


def conjugate_cause(known: Evidence, /) -> str:
    """The conjugate is returned, or used; 1j times it; or its real part alone."""
    if not np.isfinite(known.rule).all():
        return ""
    outputs = _signs(known)
    ours, theirs = is_pair(known.seen), outputs.min() < 0
    if not (ours or theirs):
        return ""
    w, moved = known.seen.cotangents, known.slopes.moved
    signs = np.tile([1.0, -1.0], moved.shape[1] // 2) if ours else None
    conjugated = known.slopes.value * outputs @ w.T
    # Of the rule, along the conjugates of the directions.
    turned = None if signs is None else known.seen.rule(moved * signs)
    given = "cotangent" if known.seen.mode == "reverse" else "tangent"
    of_given = f"the conjugate of the {given} is used"
    words = [_EXPECTED, of_given] if given == "cotangent" else [of_given, _EXPECTED]
    if turned is not None and known.fits(turned):
        return words[0]
    if theirs and known.fits(known.rule, conjugated):
        return words[1]
    if turned is not None and theirs and known.fits(turned, conjugated):
        return f"{_EXPECTED}: conj(f') for f'"
    return _part_or_turn(known, outputs, ours, theirs)


def _part_or_turn(known: Evidence, outputs, ours, theirs) -> str:
    w, moved = known.seen.cotangents, known.slopes.moved
    lost = _LOST[known.seen.mode]
    if theirs and known.fits(known.rule, known.slopes.value * (outputs > 0) @ w.T):
        return lost[1]
    if not ours:
        return ""
    pairs = moved.reshape(len(moved), -1, 2)
    real = (pairs * [1.0, 0.0]).reshape(moved.shape)
    imaginary = np.any(known.seen.rule(moved - real))
    if not imaginary:
        error, bar = known.seen.gaps(real)
        return lost[0] if np.all(error <= bar) else ""
    # 1j (x + iy) = -y + ix, of the tangent as of a gradient.
    turned = np.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(moved.shape)
    table = known.seen.rule(turned)
    for sign, word in ((1, "-1j"), (-1, "1j")):
        if known.fits(sign * table):
            return f"a constant factor of {word}"
    return ""


def _signs(known: Evidence):
    """``(outputs,)``: minus one for imaginary parts."""
    problem = known.seen.problem
    return np.concatenate(
        [
            np.tile([1.0, -1.0], y.size // 2)
            if name.endswith(AS_PAIR)
            else np.ones(y.size)
            for name, y in zip(problem.output_names, problem.outputs, strict=True)
        ]
    )
