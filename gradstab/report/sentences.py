"""What a growth says, in a sentence with its numbers."""

import math

from gradstab.records import NORMAL_95, Growth


def sentence(growth: Growth, unit: str, signal: str, way: str, sign: int, /) -> str:
    """What the growth of a signal says.

    Args:
        growth: of the signal, along layers or time steps.
        unit: 'layer' or 'time step'.
        signal: its name, such as 'the gradient'.
        way: such as 'on its way back'.
        sign: 1 for a signal that runs with the layers' numbers, -1 for the other.
    """
    if math.isnan(growth.change):
        return f"{signal}: too few comparable {unit}s to tell a change"
    measured = f"a factor {_power(growth.change, sign):.3g} {_span(growth, unit)}"
    if growth.law == "unknown":
        return f"{signal}: {measured}; {_unknown(growth, unit, sign)}"
    after = f" besides a transient of {growth.settling:.2g} {unit}s" * bool(
        growth.settling
    )
    if growth.law == "constant":
        return (
            f"{signal} keeps its size{after}: constant {_bound(growth, unit)}; "
            f"measured: {measured}"
        )
    if growth.law != "exponential":
        return (
            f"{signal} follows the law '{growth.law}' along the {unit}s "
            f"({_rate(growth, unit)}), {measured}"
        )
    verb = "grows" if sign * growth.rate > 0 else "shrinks"
    shallow = growth.depth_scale > growth.depth
    but = f", e-fold in {growth.depth_scale:.3g} {unit}s" * shallow
    return (
        f"{signal} {verb} by a factor {math.exp(sign * growth.rate):.4g} per {unit} "
        f"{way} ({_rate(growth, unit)}){after}{but}, {measured}"
    )


def _unknown(growth: Growth, unit: str, sign: int) -> str:
    if math.isnan(growth.rate):
        return f"too few {unit}s to tell a law"
    low, high = (
        math.exp(sign * growth.rate + side * NORMAL_95 * growth.error)
        for side in (-1, 1)
    )
    laws = ", ".join(growth.compatible)
    return (
        f"the law is unknown ({laws} are compatible; "
        f"a drift by {low:.3g} to {high:.3g} per {unit})"
    )


def _bound(growth: Growth, unit: str) -> str:
    whole = growth.bound ** (growth.depth - 1)
    return (
        f"within ±{math.log(growth.bound):.2g} per {unit}, "
        f"at most a factor {whole:.3g} over all"
    )


def _power(change: float, sign: int) -> float:
    if sign > 0:
        return change
    return 1 / change if change else math.inf


def _rate(growth: Growth, unit: str) -> str:
    per = {"exponential": unit, "power": f"unit of ln({unit})"}
    unit = per.get(growth.law, f"sqrt({unit})")
    return f"rate {growth.rate:+.4g} ± {growth.error:.2g} per {unit}"


def _span(growth: Growth, unit: str) -> str:
    if growth.layers:
        return f"over {growth.layers[0]} .. {growth.layers[-1]}"
    return f"over all {unit}s"
