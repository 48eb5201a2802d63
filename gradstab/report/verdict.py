"""The verdict: from the laws of growth to one word, with the numbers behind it."""

import math

from gradstab.report.ranges import ranges, ranges_along_time

# From the worst to the best.
VERDICTS = ("broken", "exploding", "vanishing", "critical", "stable", "unknown")


def judge(layers, growth, recurrences, /, *, dtypes=()) -> tuple[str, tuple[str, ...]]:
    r"""One word for the whole network.

    The law decides, and how deep the network is. With an exponential law a signal
    changes e-fold every :math:`1 / |r|` layers: the depth scale of norms, twice that of
    squared norms. A network deeper than that is vanishing or exploding: its gradient
    from the loss back, its signal from the input on. (Schoenholz et al. train networks
    of up to six depth scales of the squared norm, :math:`3 / |r|` layers.) One that is
    less deep cannot be told from a critical network by what reaches its end: it is
    critical, as is one whose signal follows a power or an exponential of the root. One
    whose signals keep their size, after a transient if there is one, is stable.

    A signal that does not keep its size and leaves the range of the model's dtype
    inside the network is vanishing or exploding whatever its law.

    Recurrent layers are judged along time by the same rules, except that a state that
    settles from its start at zero follows a power for a while: it is stable. The worst
    word is the verdict.

    Args:
        layers: records of the layers, in depth order.
        growth: forward and backward growth.
        recurrences: records of the recurrent layers.
        dtypes: names of the dtypes in which the model itself computes, which need not
            be those of its analysis.

    Returns:
        The verdict and the reasons for it, the deciding ones first.

    References:
        Schoenholz et al. (2017), Deep information propagation, section 4; Yang and
        Schoenholz (2017), Mean field residual networks: on the edge of chaos.
    """
    findings = _broken(layers)
    findings += _judge_pair(growth.forward, growth.backward, "layer", "")
    if layers:
        findings += _out_of_range(ranges(layers, growth, dtypes=dtypes), growth, "")
    for recurrence in recurrences:
        where = f"{recurrence.name}, along time: "
        pair = recurrence.forward, recurrence.backward
        backward, forward = _judge_pair(*pair, "time step", where)
        mild = recurrence.forward.law in ("power", "exp-sqrt")
        findings += [backward, ("stable", forward[1]) if mild else forward]
        found = ranges_along_time(recurrence, dtypes=dtypes)
        findings += _out_of_range(found, recurrence, f"{where}step ")
    findings.sort(key=lambda finding: VERDICTS.index(finding[0]))
    known = [finding for finding in findings if finding[0] != "unknown"]
    verdict = known[0][0] if known else "unknown"
    return verdict, tuple(sentence for _, sentence in findings)


def _broken(layers):
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
        found.append(("broken", f"no gradient reaches {len(silent)} layers: {some}"))
    return found


def _silent(layers):
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


def _out_of_range(found, growth, where):
    """Signals that leave a dtype's range inside the network.

    One that starts out of range, or keeps its size at the edge of it, needs another
    scale of the loss and not another network.
    """
    pair = {"forward": growth.forward, "backward": growth.backward}
    moving = [d for d, g in pair.items() if g.law != "constant" or g.settling]
    nouns = {"forward": "the signal", "backward": "the gradient"}
    sides = {
        "underflow": ("vanishing", "falls below the smallest normal number"),
        "overflow": ("exploding", "rises above the largest number"),
    }
    return [
        (
            sides[r.end][0],
            f"{where}{r.layer}: {nouns[r.direction]} {sides[r.end][1]} of {r.dtype}",
        )
        for r in found
        if r.layer and r.depth > 1 and r.direction in moving
    ]


def _judge_pair(forward, backward, unit, where):
    back = "the gradient", "on its way back", -1
    on = "the signal", "on its way forward", 1
    return [
        (_word(backward, -1), where + _sentence(backward, unit, *back)),
        (_word(forward, 1), where + _sentence(forward, unit, *on)),
    ]


def _word(growth, sign):
    if growth.law == "exponential" and growth.depth_scale <= growth.depth:
        return "exploding" if sign * growth.rate > 0 else "vanishing"
    return {"constant": "stable", "unknown": "unknown"}.get(growth.law, "critical")


def _sentence(growth, unit, signal, way, sign):
    if growth.law == "unknown":
        return f"{signal}: too few comparable {unit}s to tell a law"
    span = f"over {_span(growth, unit)}"
    after = f" besides a transient of {growth.settling:.2g} {unit}s" * bool(
        growth.settling
    )
    if growth.law == "constant":
        return f"{signal} keeps its size {span}{after}"
    change = _power(growth.change, sign if growth.law == "exponential" else 1)
    if growth.law != "exponential":
        return (
            f"{signal} follows the law '{growth.law}' along the {unit}s "
            f"({_rate(growth, unit)}), a factor {change:.3g} {span}"
        )
    verb = "grows" if sign * growth.rate > 0 else "shrinks"
    shallow = growth.depth_scale > growth.depth
    but = f", e-fold in {growth.depth_scale:.3g} {unit}s" * shallow
    return (
        f"{signal} {verb} by a factor {math.exp(sign * growth.rate):.4g} per {unit} "
        f"{way} ({_rate(growth, unit)}){after}{but}, a factor {change:.3g} {span}"
    )


def _power(change, sign):
    if sign > 0:
        return change
    return 1 / change if change else math.inf


def _rate(growth, unit):
    per = {"exponential": unit, "power": f"unit of ln({unit})"}
    unit = per.get(growth.law, f"sqrt({unit})")
    return f"rate {growth.rate:+.4g} ± {growth.error:.2g} per {unit}"


def _span(growth, unit):
    if growth.layers:
        return f"{growth.layers[0]} .. {growth.layers[-1]}"
    return f"all {unit}s"
