r"""Which numbers of a training warn before its loss diverges, and for how long?

Runs that go well set for every indicator the threshold at which 5 % of them ring;
others measure how often it rings for nothing; then it is held against five ways to come
to grief (`experiments/_collapses.py`): a learning rate too high, an initial scale too
large, a poisoned batch, attention in float16, a head that grows. Nothing else is set,
and every indicator is shown. A lead is the number of steps from the first alarm after
the fault began to the divergence: the first step at which the loss on clean examples is
not finite, above its best so far by ln 10 and tenfold, or, for more than half of the
next twenty, above it by ln 2 and by half.

Poisoned batches and large scales are tried on the network without normalisation, on
which SGD diverges; attention in float16 beside twins in float32 of the same seeds.
Expected: gains, singular values and updates lead where the global norm and the loss
lag. As measured (RESULTS.md), it depends on the fault: updates lead for rates that are
too high, gains and singular values for the head; a poisoned batch is told when it is
there, one step before, by the norm and the loss as well; of attention in float16
nothing tells, as its twins ring as often; alignment tells of almost nothing. Three
minutes.

    python -m experiments.early_warnings
"""

import dataclasses
import math

import jax
import numpy as np
from scipy import special

from experiments._claims import claim
from experiments._collapses import (
    FAULTS,
    HEALTHY,
    KINDS,
    RATES,
    Plan,
    Setting,
    draw_plan,
    onset,
    train,
)
from experiments._run import experiment, progress
from gradstab.watch.indicators import (
    ALARMS,
    ANY_JUMP,
    INDICATORS,
    NORM_RISE,
    Form,
    Indicator,
    Scale,
    Scorer,
    largest,
)

_, SCALED, POISONED, ATTENTION, _ = FAULTS
TWIN = "its float32 twin"
PLANTED, IN_USE = "planted here", "gradstab/watch/indicators.py"
# On the slow clock.
SPECTRAL = tuple(
    Indicator(name, lambda get, column=column: get(column), form, scale)
    for name, column, scale in (
        ("largest singular value of a layer", "largest", Scale.LOG),
        ("alignment of neighbours", "alignment", Scale.LOG_ODDS),
    )
    for form in (Form.LEVEL, Form.RISE)
)
ALL = (*INDICATORS, *SPECTRAL)
# Of the next steps, more than half, the loss stays above: no spike that passes.
_LASTING = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags."""

    healthy: int = 20
    """Healthy runs of each kind and optimiser; half of them set thresholds."""
    faulty: int = 4
    """Runs with each fault, of each kind of network and optimiser."""
    false_alarms: float = 0.05
    """Share of the runs that set a threshold which may exceed it."""
    steps: int = 400
    clock: int = 20
    """Every how many steps singular values are measured."""
    width: int = 16
    seed: int = 0


def run(config):
    """Scores of all runs, and when they diverged."""
    parts = []
    programs = [(kind, False) for kind in KINDS] + [("transformer", True)]
    for kind, low_precision in progress(programs, "programs"):
        parts.append(_measure(config, kind, low_precision))
    return {
        name: np.concatenate([part[name] for part in parts], axis=axis)
        for name, axis in {"fault": 0, "begin": 0, "clean": 0, "scores": 1}.items()
    }


def _measure(config, kind, low_precision):
    """The runs of one program."""
    faults, plans = zip(*_plans(config, kind, low_precision), strict=True)
    plan = Plan(*(np.array(a) for a in zip(*plans, strict=True)))
    setting = Setting(kind, low_precision, config.width, config.steps, config.clock)
    with jax.numpy_dtype_promotion("standard"):  # Adam counts its steps
        found = train(setting, plan)
    return {
        "fault": np.array(faults),
        "begin": onset(plan),
        "clean": found["clean"],
        "scores": np.stack([_scores(config, one, found) for one in ALL]),
    }


def _plans(config, kind, low_precision):
    """What runs there are; those of attention are drawn alike in both precisions."""
    rng = np.random.default_rng([config.seed, len(KINDS)])
    if kind == "transformer":
        name = ATTENTION if low_precision else TWIN
        for optimizer in RATES:
            for _ in range(config.faulty * len(KINDS)):
                yield name, draw_plan(rng, ATTENTION, optimizer, config.steps)
    if low_precision:
        return
    rng = np.random.default_rng([config.seed, KINDS.index(kind)])
    counts: dict[str, int] = {fault: config.faulty for fault in FAULTS}
    counts[HEALTHY] = config.healthy
    # Of 28 poisoned and 28 badly scaled runs of the other kinds none diverged.
    fragile = config.faulty * len(KINDS) * (kind == "mlp")
    counts |= {ATTENTION: 0, POISONED: fragile, SCALED: fragile}
    for optimizer in RATES:
        for fault, count in counts.items():
            for _ in range(count):
                yield fault, draw_plan(rng, fault, optimizer, config.steps)


def _scores(config, indicator, found):
    """The scores of an indicator, ``(runs, steps)``."""
    stats = found["stats"]
    runs, steps = stats.value.shape

    def get(name):
        array = found[name] if name in found else getattr(stats, name)
        return np.asarray(array, np.float64).reshape(runs * steps, *array.shape[2:])

    values = indicator.values(get).reshape(runs, steps, -1)
    every = config.clock if indicator in SPECTRAL else 1
    scorer, scores = Scorer(indicator, every=every), np.full((runs, steps), np.nan)
    for step in range(0, steps, every):
        scores[:, step] = largest(scorer.look(values[:, step]))
    return scores


# What is made of them


def divergence(clean, /) -> int:
    """The step at which a loss diverges; the number of steps if it does not."""
    known = np.where(np.isfinite(clean), clean, np.inf)
    best = np.minimum.accumulate(known)
    above = known > np.maximum(best + np.log(2), 1.5 * best)
    lost = known > np.maximum(best + np.log(10), 10 * best)
    lost |= ~np.isfinite(clean)
    for step in np.flatnonzero(above | lost):
        if lost[step] or above[step : step + _LASTING].mean() > 0.5:
            return int(step)
    return len(clean)


def threshold(maxima, share, /) -> float:
    """The score that this share of runs exceeds at most, of the largest of each."""
    ordered = np.sort(np.nan_to_num(maxima, nan=-np.inf))[::-1]
    return float(ordered[int(share * len(ordered))])


def interval(count, total, /) -> tuple[float, float]:
    """Of a share, the 95 % limits of Clopper and Pearson (1934)."""
    low = special.betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = special.betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an indicator does at its threshold.

    Attributes:
        name: of the indicator.
        threshold: of its score.
        false: in how many healthy runs that did not set it it rang.
        healthy: how many these were.
        leads: of each fault, of all runs that diverged, the steps between the first
            alarm and the divergence; 0 without a warning.
        twins: in how many runs with attention in float32, with seeds and rates of those
            in float16, it rang: there it tells of the rates.
    """

    name: str
    threshold: float
    false: int
    healthy: int
    leads: dict[str, np.ndarray]
    twins: int


def measure(config, arrays) -> list[Measured]:
    """All indicators at equal rates of false alarms."""
    setting = np.flatnonzero(arrays["fault"] == HEALTHY)[::2]
    results = []
    for indicator, scores in zip(ALL, arrays["scores"], strict=True):
        maxima = np.fmax.reduce(scores[setting], axis=1, initial=-np.inf)
        limit = threshold(maxima, config.false_alarms)
        results.append(_measured(arrays, _name(indicator), limit, scores > limit))
    return results


def measure_in_use(arrays) -> list[Measured]:
    """The alarms that a watched run raises, as they are, and what they were before."""
    rows, together = [], np.zeros(arrays["scores"].shape[1:], bool)
    for alarm in ALARMS:
        rings = _scores_of(arrays, alarm.indicator) > alarm.threshold
        together |= rings
        rows.append(_measured(arrays, _name(alarm.indicator), alarm.threshold, rings))
    rows.append(_measured(arrays, "any of these", math.nan, together))
    for text, indicator, limit in (
        ("global norm, ten times its median", NORM_RISE, math.log(10)),
        ("any size, `Statistics.spike`", ANY_JUMP, 1.0),
    ):
        rings = _scores_of(arrays, indicator) > limit
        rows.append(_measured(arrays, text, limit, rings))
    return rows


def _scores_of(arrays, indicator):
    return arrays["scores"][ALL.index(indicator)]


def _measured(arrays, name, limit, rings):
    others = np.flatnonzero(arrays["fault"] == HEALTHY)[1::2]
    diverged = np.array([divergence(one) for one in arrays["clean"]])
    false = int(rings[others].any(axis=1).sum())
    leads = _leads(arrays, diverged, rings)
    twins = int(rings[arrays["fault"] == TWIN].any(axis=1).sum())
    return Measured(name, limit, false, len(others), leads, twins)


def _leads(arrays, diverged, rings):
    """Of all faults; what rings before the fault is there warns of nothing."""
    steps = np.arange(rings.shape[1])
    rings = rings & (steps >= arrays["begin"][:, None])
    first = np.where(rings.any(axis=1), rings.argmax(axis=1), len(steps))
    lead = np.where(diverged < len(steps), np.maximum(diverged - first, 0), -1)
    return {f: lead[(arrays["fault"] == f) & (lead >= 0)] for f in FAULTS}


def report(config, arrays) -> str:
    """Two tables in Markdown: all at equal false alarms, and those in use."""
    found, in_use = measure(config, arrays), measure_in_use(arrays)
    lagging = [one for one in found if one.name in LAGGING]
    limits = [_limit(one, x.threshold) for one, x in zip(ALL, found, strict=True)]
    names = [one.name for one in in_use]
    used = [_limit(a.indicator, a.threshold) for a in ALARMS]
    used += ["-"] * (len(names) - len(used))
    equal = _table(arrays, found, limits, lagging)
    return f"{equal}\n\n{_table(arrays, in_use, used, lagging)}"


def _table(arrays, found, limits, lagging):
    counts = {f: int((arrays["fault"] == f).sum()) for f in FAULTS}
    some = found[0].leads
    heads = [f"{f} ({len(some[f])} of {counts[f]} diverge)" for f in FAULTS]
    rivals = [f"against {one.name}" for one in lagging]
    twins = f"rings in {(arrays['fault'] == TWIN).sum()} twins in float32"
    heads.insert(FAULTS.index(ATTENTION) + 1, twins)
    names = ["indicator", "threshold", "false alarms (95 %)", *heads, *rivals]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for one, limit in zip(found, limits, strict=True):
        low, high = interval(one.false, one.healthy)
        leads = [_cell(one.leads[f]) for f in FAULTS]
        leads.insert(FAULTS.index(ATTENTION) + 1, str(one.twins))
        cells = [
            one.name,
            limit,
            f"{one.false} of {one.healthy} ({100 * low:.0f} to {100 * high:.0f} %)",
            *leads,
            *("" if one is other else _against(one, other) for other in lagging),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _name(indicator):
    return f"{indicator.name}, {_FORMS[indicator.form]}"


_FORMS = {
    Form.LEVEL: "level",
    Form.RISE: "rise",
    Form.Z_SCORE: "z-score",
    Form.CUSUM: "CUSUM",
    Form.JUMP: "jump",
}
LAGGING = "global norm, z-score", "loss, CUSUM"


def _limit(indicator, limit):
    """The threshold in the units of what is judged."""
    if indicator.scale is Scale.LINEAR or indicator.form is Form.JUMP:
        return f"{limit:.3g}"
    odds = "odds " if indicator.scale is Scale.LOG_ODDS else ""
    mark = "" if indicator.form is Form.LEVEL else "times "
    return f"{odds}{mark}{np.exp(limit):.3g}"


def _cell(leads):
    if not len(leads):
        return "-"
    return f"{np.median(leads):.0f} ({(leads > 0).sum()} of {len(leads)})"


def _against(one, other):
    """In how many runs it warns earlier, as late, and later; twins ring as well."""
    others = [f for f in FAULTS if f != ATTENTION]
    pairs = [np.sign(one.leads[f] - other.leads[f]) for f in others]
    signs = np.concatenate(pairs)
    return " / ".join(str(int((signs == s).sum())) for s in (1, 0, -1))


def claims(config, arrays):
    """What makes it a measurement, and that the alarms in use are what it found."""
    found = {one.name: one for one in measure(config, arrays)}
    diverged = np.array([divergence(one) for one in arrays["clean"]]) < config.steps
    compared = [
        claim(
            "healthy runs that diverge",
            int(diverged[arrays["fault"] == HEALTHY].sum()),
            0,
            within=0,
            source=PLANTED,
        ),
        *(
            claim(
                f"{fault}: share of runs that diverge",
                diverged[arrays["fault"] == fault].mean(),
                0.5,
                between=(0.15, 1),
                source=PLANTED,
            )
            for fault in FAULTS
        ),
        claim(
            "twins in float32 of the attention in float16: share that diverge",
            diverged[arrays["fault"] == TWIN].mean(),
            0,
            between=(0, 0.2),
            source=PLANTED,
        ),
    ]
    for alarm in ALARMS:
        one = found[_name(alarm.indicator)]
        compared += [
            claim(
                f"{one.name}: threshold",
                math.exp(one.threshold),
                math.exp(alarm.threshold),
                relative=0.1,
                source=IN_USE,
            ),
            claim(
                f"{one.name}: share of healthy runs in which it rings",
                one.false / one.healthy,
                alarm.false / alarm.healthy,
                between=interval(alarm.false, alarm.healthy),
                source=IN_USE,
            ),
        ]
    return compared


def plot(config, arrays):
    """The leads of all indicators, one panel for each fault."""
    from matplotlib.figure import Figure

    found = measure(config, arrays)
    figure = Figure(figsize=(14, 6), layout="constrained")
    axes = figure.subplots(1, len(FAULTS), sharey=True)
    for panel, fault in zip(axes, FAULTS, strict=True):
        leads = [one.leads[fault] for one in found]
        panel.boxplot([x if len(x) else [0] for x in leads], orientation="horizontal")
        panel.set_title(fault, fontsize="medium")
        panel.set(xlabel="steps before the divergence", xscale="symlog")
        panel.set_yticks(range(1, len(found) + 1), [one.name for one in found])
    axes[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot, report)
