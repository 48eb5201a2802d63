"""What a rule and its function say at one entry, as a user of JAX would write it.

The checker moves complex numbers as pairs of real ones. What it says of them is in
JAX's convention: the gradient of a real output in x + iy is df/dx - i df/dy, the JVP
along 1 or along 1j is the complex tangent.
"""

import dataclasses

import numpy as np

from gradstab.gradcheck.differences.ladders import Ladder
from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.naming import index_of, output_name, output_of
from gradstab.gradcheck.subject.arguments import AS_PAIR

# Bends that fall like this power of the step, or faster, are those of a smooth
# function; those that grow like the other come of a slope that is infinite.
_SMOOTH, _STEEP = 0.5, -0.2

_STEEP_KINK = "a kink, with infinite slopes"

# So many units of rounding are no bend.
_ROUNDED = 64.0


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One entry of a Jacobian.

    Attributes:
        value: what the rule says; complex if its leaf (in forward mode its output) is.
        expected: what the differences say; NaN where f has no derivative, or they do
            not resolve it.
        bar: how far that may be off; infinite if they do not.
        output: the name of the entry of the output; see `output_name`.
        along: ``1`` or ``1j``, the tangent of a complex entry in forward mode.
        instead: in words, what f has there in the place of a derivative.
    """

    value: complex
    expected: complex
    bar: float
    output: str
    along: str = ""
    instead: str = ""

    @property
    def agree(self) -> bool:
        """Whether nothing is wrong here."""
        return bool(abs(self.value - self.expected) <= self.bar)


def numbers(
    seen: Comparison, entry: int, output: int, ladder: Ladder | None = None, /
) -> Numbers:
    """The numbers of one entry and one output, or of the pairs they belong to.

    Args:
        seen: the rule beside its function.
        entry: of the leaf.
        output: counted through all outputs.
        ladder: of the entry, if there is one.

    Cost:
        16 evaluations of f for every part of the entry without a ladder, and a few of
        the rule.
    """
    of_pair, to_pair = is_pair(seen), _is_pair_output(seen, output)
    reverse = seen.mode == "reverse"
    entries, outputs = [entry], [output]
    if of_pair and reverse:
        entries = [entry - entry % 2, entry - entry % 2 + 1]
    if to_pair and not reverse:
        first = output - output_of(seen.problem, output)[1] % 2
        outputs = [first, first + 1]
    ladders = [
        seen.ladder_of(e) if e != entry or ladder is None else ladder for e in entries
    ]
    rows = [_one_hot(seen.num_outputs, o) for o in outputs]
    if reverse:
        values = seen.pull(rows[0])[0, entries]
    else:
        values = seen.push(_one_hot(seen.x.size, entry))[0, outputs]
    estimates = [ladder.best(row) for ladder in ladders for row in rows]
    unit = -1j if reverse else 1j
    value, expected = (
        _number(parts, unit) for parts in (values, [e.value[0] for e in estimates])
    )
    instead = (
        ""
        if np.isfinite(value)
        else _instead(ladders[entries.index(entry)], output, seen.scale)
    )
    resolved = all(ladder.resolves(row) for ladder in ladders for row in rows)
    bar = float(np.hypot.reduce([e.bar for e in estimates])) if resolved else np.inf
    return Numbers(
        value=value,
        expected=expected if resolved and not instead else np.nan,
        bar=bar,
        output=output_name(seen.problem, output, whole=not reverse),
        along=("1j" if entry % 2 else "1") if of_pair and not reverse else "",
        instead=instead,
    )


def is_pair(seen: Comparison, /) -> bool:
    """Whether the leaf stands for complex numbers."""
    return seen.problem.names[seen.leaf].endswith(AS_PAIR)


def place_of(seen: Comparison, entry: int, /) -> tuple[str, tuple[int, ...], int]:
    """The name of the leaf, the index of the entry in it, and how many it has."""
    name, shape = seen.problem.names[seen.leaf], seen.shape
    if not is_pair(seen):
        return name, index_of(entry, shape), seen.x.size
    index = index_of(entry // 2, shape[:-1])
    return name.removesuffix(AS_PAIR), index, seen.x.size // 2


def _is_pair_output(seen: Comparison, output) -> bool:
    number, _ = output_of(seen.problem, output)
    return seen.problem.output_names[number].endswith(AS_PAIR)


def _number(parts, unit):
    real, *imaginary = map(float, parts)
    return real + unit * imaginary[0] if imaginary else real


def _one_hot(size: int, place):
    row = np.zeros((1, size))
    row[0, place] = 1.0
    return row


@np.errstate(invalid="ignore", over="ignore")
def _instead(ladder: Ladder, output, scale) -> str:
    """What f has in the place of a derivative along one direction; empty if it has one.

    The bend, half the gap between the slopes ahead and behind, falls like the step if f
    is smooth, stays at a kink, and grows where a slope is infinite.
    """
    slopes, bends = ladder.quotients[:, output], np.abs(ladder.bends[:, output])
    # Of f, and of the argument, which moves it by as much as the larger of both.
    moved = ladder.eps * scale * np.maximum(bends, np.abs(slopes))
    rounding = _ROUNDED * (ladder.rounding[output] + moved) / ladder.steps
    if not (np.isfinite(slopes).all() and np.isfinite(bends).all()):
        return ""
    for sizes, steep in ((bends, True), (np.abs(slopes), True), (bends, False)):
        clear = sizes > rounding
        if np.count_nonzero(clear) < 3:
            continue
        power, _ = np.polyfit(np.log(ladder.steps[clear]), np.log(sizes[clear]), 1)
        if steep and power < _STEEP:
            return _STEEP_KINK if sizes is bends else "an infinite slope"
        if not steep and power < _SMOOTH:
            level = int(np.flatnonzero(clear)[-1])
            slope, bend = ladder.quotients[level, output], ladder.bends[level, output]
            return f"a kink, with slopes {slope - bend:.3g} and {slope + bend:.3g}"
    return ""
