"""Does the law of growth know its own resolution?

Synthetic networks whose law is known: the logarithm of a norm follows a constant, an
exponential, a power or an exponential of the root, and scatters by steps that add up (a
random walk) or by levels that do not. Changes over the network are drawn log-uniformly
from 0.2 to 10 in natural logarithms, either way. For every depth, noise and kind of
noise:

* *named wrongly*: laws of growth that are named and are not the true one. At most 2 %.
* *constant*: of true laws whose change is above the bound that is stated, those that
  are called constant. At most 5 %.
* *cover*: 95 % intervals (rate ± 1.96 errors) that hold the true rate, of the laws that
  are named rightly, and of the drift of true exponentials whose law is unknown. From 93
  to 97 %, within the sampling error of as many cases as there are.

Measured, with seed 0, 14,400 networks: at most 0.2 % named wrongly and 2 % of constants
above their bound in any row; intervals cover 91.9 to 99.1 % of steps, with sampling
errors of 1.4 %, and 94.2 to 100 % of levels. With few layers steps and levels cannot be
told apart, so no interval covers 95 % of both: of levels it is 99.6 to 100 % with six
layers and 97.2 to 98.8 % with eight. Ten minutes on a core.

    python -m experiments.growth_calibration
"""

import dataclasses
import math

import numpy as np

from experiments._run import print_table, progress
from gradstab.records import NORMAL_95
from gradstab.spectra import fit_growth

LAWS = {
    "exponential": lambda layer: layer,
    "power": np.log,
    "exp-sqrt": np.sqrt,
    "constant": np.zeros_like,
}
KINDS = ("steps", "levels")


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``cases`` is for each law."""

    depths: tuple[int, ...] = (6, 8, 12, 24, 64, 300)
    noises: tuple[float, ...] = (0.003, 0.03, 0.3)
    """Deviations of the noise of a step about the law."""
    cases: int = 100
    """How many networks for each law, depth and noise."""
    seed: int = 0


@dataclasses.dataclass
class Tally:
    """Counts of one row of the table."""

    cases: int = 0
    wrong: int = 0
    changes: int = 0
    overlooked: int = 0
    named: int = 0
    covered: int = 0
    unknown: int = 0

    def add(self, law, rate, found):
        """One network, and what was found of it."""
        self.cases += 1
        self.wrong += found.law not in (law, "constant", "unknown")
        if law == "exponential" and found.law == "constant":
            self.overlooked += abs(rate) > math.log(found.bound)
        self.changes += law == "exponential"
        self.unknown += found.law == "unknown"
        drift = found.law == "unknown" and law in ("exponential", "constant")
        if drift or (found.law == law and law != "constant"):
            self.named += 1
            self.covered += abs(found.rate - rate) <= NORMAL_95 * found.error


def run(config):
    """The table."""
    lines = [
        "| depth | noise | of | named wrongly | constant above its bound | cover | "
        "unknown |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        (depth, noise, kind)
        for depth in config.depths
        for kind in KINDS
        for noise in config.noises
    ]
    for number, row in enumerate(progress(rows, "rows")):
        found = tally(config, *row, seed=[config.seed, number])
        lines.append("| " + " | ".join([*map(str, row), *_shown(found)]) + " |")
    return "\n".join(lines)


def tally(config, depth, noise, kind, *, seed):
    """The counts over all laws at one depth, noise and kind of noise."""
    rng, counts = np.random.default_rng(seed), Tally()
    layer = np.arange(1.0, depth + 1)
    for law, curve in LAWS.items():
        span = float(curve(layer[-1:])[0] - curve(layer[:1])[0])
        for _ in range(config.cases):
            change = rng.choice([-1, 1]) * math.exp(rng.uniform(*np.log([0.2, 10])))
            rate = change / span if span else 0.0
            scatter = rng.normal(0, noise, depth)
            scatter = np.cumsum(scatter) if kind == "steps" else scatter
            found = fit_growth(np.exp(rate * curve(layer) + scatter))
            counts.add(law, rate, found)
    return counts


def _shown(found):
    return (
        _percent(found.wrong, found.cases),
        _percent(found.overlooked, found.changes),
        f"{_percent(found.covered, found.named)} of {found.named}",
        _percent(found.unknown, found.cases),
    )


def _percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


if __name__ == "__main__":
    print_table(Config, run)
