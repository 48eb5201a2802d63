"""The verdict: from the laws of growth to one word, with the numbers behind it."""

import math

# From the worst to the best.
VERDICTS = ("broken", "exploding", "vanishing", "critical", "stable", "unknown")


def judge(layers, growth, recurrences, /) -> tuple[str, tuple[str, ...]]:
    """One word for the whole network.

    The backward signal decides: an exponential law is vanishing or exploding, a power
    or an exponential of the root is critical, a constant is stable. A forward signal
    that grows or decays exponentially is exploding or vanishing as well. Recurrent
    layers are judged along time by the same rules; the worst word is the verdict.

    Args:
        layers: records of the layers, in depth order.
        growth: forward and backward growth.
        recurrences: records of the recurrent layers.

    Returns:
        The verdict and the reasons for it, the deciding ones first.
    """
    findings = _broken(layers)
    findings += _judge_pair(growth.forward, growth.backward, "layer", "")
    for recurrence in recurrences:
        where = f"{recurrence.name}, along time: "
        backward, forward = _judge_pair(
            recurrence.forward, recurrence.backward, "time step", where
        )
        # A state that settles from its start at zero follows a power for a while.
        word = "stable" if forward[0] == "critical" else forward[0]
        findings += [backward, (word, forward[1])]
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
    """Layers that get no gradient at all, though what comes next is not tiny.

    Either none arrives at their output, or none gets from there to their parameters:
    they are cut off, and did not just underflow.
    """
    names, following = [], 1.0
    for layer in reversed(layers):
        # Without a loss the gradient of the parameters is unknown: NaN.
        untaught = layer.num_params > 0 and layer.param_gradient_norm == 0
        if (layer.gradient_rms == 0 or untaught) and following > 1e-30:
            names.append(layer.name)
        if layer.gradient_rms > 0:
            following = layer.gradient_rms
    return names[::-1]


def _judge_pair(forward, backward, unit, where):
    return [
        (_backward_word(backward), where + _backward_sentence(backward, unit)),
        (_forward_word(forward), where + _forward_sentence(forward, unit)),
    ]


def _backward_word(growth):
    if growth.law == "exponential":
        return "vanishing" if growth.rate > 0 else "exploding"
    return _mild_word(growth)


def _forward_word(growth):
    if growth.law == "exponential":
        return "exploding" if growth.rate > 0 else "vanishing"
    return _mild_word(growth)


def _mild_word(growth):
    words = {"constant": "stable", "unknown": "unknown"}
    return words.get(growth.law, "critical")


def _backward_sentence(growth, unit):
    if growth.law == "exponential":
        verb = "shrinks" if growth.rate > 0 else "grows"
        factor = math.exp(-growth.rate)
        change = 1 / growth.change if growth.change else math.inf
        return (
            f"the gradient {verb} by a factor {factor:.4g} per {unit} on its way back "
            f"({_rate(growth, unit)}), {_factor(change)} over {_span(growth, unit)}"
        )
    return "the gradient" + _mild_sentence(growth, unit)


def _forward_sentence(growth, unit):
    if growth.law == "exponential":
        verb = "grows" if growth.rate > 0 else "shrinks"
        return (
            f"the signal {verb} by a factor {growth.factor:.4g} per {unit} on its way "
            f"forward ({_rate(growth, unit)}), {_factor(growth.change)} over "
            f"{_span(growth, unit)}"
        )
    return "the signal" + _mild_sentence(growth, unit)


def _mild_sentence(growth, unit):
    if growth.law == "unknown":
        return f": too few comparable {unit}s to tell a law"
    if growth.law == "constant":
        return f" keeps its size over {_span(growth, unit)}"
    return (
        f" follows the law '{growth.law}' along the {unit}s ({_rate(growth, unit)}), "
        f"{_factor(growth.change)} over {_span(growth, unit)}"
    )


def _rate(growth, unit):
    per = {"exponential": unit, "power": f"unit of ln({unit})"}
    unit = per.get(growth.law, f"sqrt({unit})")
    return f"rate {growth.rate:+.4g} ± {growth.error:.2g} per {unit}"


def _factor(change):
    return f"a factor {change:.3g}"


def _span(growth, unit):
    if growth.layers:
        return f"{growth.layers[0]} .. {growth.layers[-1]}"
    return f"all {unit}s"
