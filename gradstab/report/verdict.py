"""The verdict: from the laws of growth to one word, with the numbers behind it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gradstab.records import NORMAL_95, Growth, Layer, Range, Recurrence
from gradstab.report.ranges import ranges, ranges_along_time
from gradstab.report.sentences import sentence

# From the worst to the best: what is unknown may be bad.
VERDICTS = ("broken", "exploding", "vanishing", "unknown", "critical", "stable")

# A law with a bend changes a norm by less than a factor 100 in networks in which it is
# not told from an exponential: a root of the depth, or exp(0.7 sqrt(depth)).
_BEYOND_BENT = math.log(100.0)

# Measurement and theory agree within so many standard errors of it, or this factor.
_ERRORS, _LIKE = 2.5, 1.25


class Expected(NamedTuple):
    """What mean-field theory expects of a signal over the layers of its growth.

    Attributes:
        log_change: scalar, natural logarithm of the factor from the first layer to the
            last.
        error: scalar, its standard deviation over networks of the same widths.
        growth: the growth of the expected norms, which do not scatter; None if unknown.
    """

    log_change: float
    error: float
    growth: Growth | None = None


def judge(
    layers: Sequence[Layer],
    growth,
    recurrences: Sequence[Recurrence],
    /,
    *,
    dtypes: Sequence[str] = (),
    precision: str = "float32",
    expected: tuple[Expected | None, Expected | None] = (None, None),
) -> tuple[str, tuple[str, ...]]:
    r"""One word for the whole network.

    The law decides, and how deep the network is. With an exponential law a signal
    changes e-fold every :math:`1 / |r|` layers: the depth scale of norms, twice that of
    squared norms. A network deeper than that is vanishing or exploding: its gradient
    from the loss back, its signal from the input on. (Schoenholz et al. train networks
    of up to six depth scales of the squared norm, :math:`3 / |r|` layers.) One that is
    less deep cannot be told from a critical network by what reaches its end: it is
    critical, as is one whose signal follows a power or an exponential of the root. One
    whose signals keep their size, after a transient if there is one, is stable.

    If the law is unknown the word is that of all laws that are compatible, where they
    have one in common. Else measurement and theory are taken together, as few layers
    have few steps: if theory expects the factor that was measured over the network, the
    word is that of the law of the expected norms, or of the expected factor. Else it is
    unknown.

    A signal that does not keep its size and leaves the range of the model's dtype
    inside the network is vanishing or exploding whatever its law.

    Recurrent layers are judged along time by the same rules, except that a state that
    settles from its start at zero follows a power for a while: it is stable. The worst
    word is the verdict; what is unknown is worse than critical.

    Args:
        layers: records of the layers, in depth order.
        growth: forward and backward growth.
        recurrences: records of the recurrent layers.
        dtypes: names of the dtypes in which the model itself computes, which need not
            be those of its analysis.
        precision: the dtype of the analysis.
        expected: the `Expected` forward and backward change, None where theory has
            nothing to say.

    Returns:
        The verdict and the reasons for it, the deciding ones first.

    References:
        Schoenholz et al. (2017), Deep information propagation, section 4; Yang and
        Schoenholz (2017), Mean field residual networks: on the edge of chaos.
    """
    findings = _broken(layers)
    findings += _judge_pair(growth.forward, growth.backward, "layer", "", expected)
    if layers:
        found = ranges(layers, growth, dtypes=dtypes, precision=precision)
        findings += _out_of_range(found, growth, "")
    for recurrence in recurrences:
        where = f"{recurrence.name}, along time: "
        pair = recurrence.forward, recurrence.backward
        backward, forward = _judge_pair(*pair, "time step", where, (None, None))
        mild = recurrence.forward.law in ("power", "exp-sqrt")
        findings += [backward, ("stable", forward[1]) if mild else forward]
        found = ranges_along_time(recurrence, dtypes=dtypes)
        findings += _out_of_range(found, recurrence, f"{where}step ")
    findings.sort(key=lambda finding: VERDICTS.index(finding[0]))
    return findings[0][0], tuple(said for _, said in findings)


def _broken(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    found = []
    for layer in layers:
        if not math.isfinite(layer.forward_rms):
            found.append(("broken", f"{layer.name}: its output is not finite"))
            break
    for layer in reversed(layers):
        if math.isnan(layer.gradient_rms) or math.isinf(layer.gradient_rms):
            found.append(("broken", f"{layer.name}: its gradient is not finite"))
            break
    silent = _silent(layers)
    if silent:
        some = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
        them = "one layer" if len(silent) == 1 else f"{len(silent)} layers"
        found.append(("broken", f"no gradient reaches {them}: {some}"))
    return found


def _silent(layers: Sequence[Layer]) -> list[str]:
    """Layers that get no gradient at all.

    No path leads from them to the loss. Or, though what comes next is not tiny, none
    arrives at their output, or none gets from there to their parameters.
    """
    names, following = [], 1.0
    for layer in reversed(layers):
        # Without a loss the gradient of the parameters is unknown: NaN.
        untaught = layer.num_params > 0 and layer.param_gradient_norm == 0
        lost = (layer.gradient_rms == 0 or untaught) and following > 1e-30
        if layer.disconnected or lost:
            names.append(layer.name)
        if layer.gradient_rms > 0:
            following = layer.gradient_rms
    return names[::-1]


def _out_of_range(found: Sequence[Range], growth, where: str) -> list[tuple[str, str]]:
    """Signals that leave a dtype's range inside the network.

    One that starts out of range, or keeps its size at the edge of it, needs another
    scale of the loss and not another network.
    """
    pair = {"forward": growth.forward, "backward": growth.backward}
    moving = [d for d, g in pair.items() if g.law != "constant" or g.settling]
    nouns = {"forward": "the signal", "backward": "the gradient"}
    sides = {
        "underflow": ("vanishing", "is lost, as half of its entries round to zero in"),
        "overflow": ("exploding", "rises above the largest number of"),
    }
    return [
        (
            sides[r.end][0],
            f"{where}{r.layer}: {nouns[r.direction]} {sides[r.end][1]} {r.dtype}",
        )
        for r in found
        if r.layer and r.depth > 1 and r.direction in moving
    ]


def _judge_pair(
    forward: Growth,
    backward: Growth,
    unit: str,
    where: str,
    expected: tuple[Expected | None, Expected | None],
) -> list[tuple[str, str]]:
    back = "the gradient", "on its way back", -1
    on = "the signal", "on its way forward", 1
    return [
        _judge(backward, unit, where, back, expected[1]),
        _judge(forward, unit, where, on, expected[0]),
    ]


def _judge(
    growth: Growth,
    unit: str,
    where: str,
    names: tuple[str, str, int],
    expected: Expected | None,
) -> tuple[str, str]:
    word, sign = _word(growth, names[-1]), names[-1]
    said = where + sentence(growth, unit, *names)
    if word == "unknown" and expected and _agrees(growth, expected):
        word = _expected_word(expected, growth.depth, sign)
        said += (
            f", and theory says {math.exp(sign * expected.log_change):.3g} "
            f"± {100 * expected.error:.2g} %"
        )
    return word, said


def _word(growth: Growth, sign: int) -> str:
    """The word that all laws have in common that are compatible."""
    words = {
        _word_of_law(law, growth, sign) for law in growth.compatible or (growth.law,)
    }
    return words.pop() if len(words) == 1 else "unknown"


def _word_of_law(law: str, growth: Growth, sign: int) -> str:
    if law == "constant":
        return "stable"
    if law not in ("exponential", "power", "exp-sqrt"):
        return "unknown"
    moves = "exploding" if sign * growth.rate > 0 else "vanishing"
    if growth.law == "exponential":
        return moves if growth.depth_scale <= growth.depth else "critical"
    if growth.law != "unknown":
        return "critical"
    # The rate is the mean drift.
    if law != "exponential":
        return moves if abs(math.log(growth.change)) > _BEYOND_BENT else "critical"
    error = NORMAL_95 * growth.error
    scales = [growth.depth * (abs(growth.rate) + side * error) for side in (-1, 1)]
    if scales[0] >= 1:
        return moves
    return "critical" if scales[1] < 1 else "unknown"


def _agrees(growth: Growth, expected: Expected) -> bool:
    """Whether the measured change is the one that theory expects."""
    if not growth.change > 0:
        return False
    off = abs(math.log(growth.change) - expected.log_change)
    return off <= max(_ERRORS * expected.error, math.log(_LIKE))


def _expected_word(expected: Expected, depth: int, sign: int) -> str:
    """By the law of the expected norms, or by their change if they are few."""
    if expected.growth is not None:
        word = _word(expected.growth, sign)
        if word != "unknown":
            return word
    log_change = expected.log_change
    if abs(log_change) <= math.log(_LIKE):
        return "stable"
    if abs(log_change) / (depth - 1) * depth < 1:
        return "critical"
    return "exploding" if sign * log_change > 0 else "vanishing"
