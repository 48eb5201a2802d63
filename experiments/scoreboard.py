"""Which published numbers about gradient propagation does gradstab find again?

Every experiment with a row here runs with a seed that nobody has seen before, and each
of its claims is compared with the number that was published: a row holds if all its
claims do. Rows marked T train networks; ``--quick`` leaves them out. Expected: at least
20 of 22 rows hold with any seed. The table stands in the README; ``--write`` puts it
there.

    python -m experiments.scoreboard
"""

import dataclasses
import importlib
import pathlib
import re
import sys
import time

import numpy as np
import tyro

from experiments._claims import table
from experiments._run import progress

QUICK = (
    "finite_width",
    "glorot",
    "batch_norm",
    "critical_line",
    "default_initializers",
    "dynamical_isometry",
    "mean_field_rates",
    "gradient_checking",
    "residual",
    "pre_post_norm",
    "shattering",
    "forget_gates",
    "norm_clipping",
    "born_dead",
    "delta_orthogonal",
)
TRAINING = ("mnist_recipes", "trainability")
README = pathlib.Path(__file__).parent.parent / "README.md"
MARKS = "<!-- scoreboard -->", "<!-- end of the scoreboard -->"


@dataclasses.dataclass(frozen=True)
class Config:
    """What runs, with which seed; none: a fresh one, which is printed."""

    quick: bool = False
    seed: int | None = None
    only: tuple[str, ...] = ()
    write: bool = False


def run(config):
    """The claims of all experiments that have a row, in the order of the rows."""
    names = config.only or (QUICK if config.quick else QUICK + TRAINING)
    claims = []
    for name in progress(names, "experiments"):
        module, start = importlib.import_module(f"experiments.{name}"), time.monotonic()
        settings = dataclasses.replace(module.Config(), seed=config.seed)
        claims += [c for c in module.claims(settings, module.run(settings)) if c.row]
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return sorted(claims, key=lambda c: int(re.sub(r"\D", "", c.row)))


def summary(claims, config):
    """The table, how many rows held, and the command that repeats it."""
    rows = {c.row: True for c in claims}
    for c in claims:
        rows[c.row] &= c.held
    command = f"python -m experiments.scoreboard{' --quick' * config.quick}"
    command += f" --only {' '.join(config.only)}" if config.only else ""
    return (
        f"{table(claims)}\n\n{sum(rows.values())} of {len(rows)} rows hold "
        f"(`{command} --seed {config.seed}`)."
    )


def write(text, /):
    """Put the table between its marks in the README."""
    start, end = MARKS
    before, rest = README.read_text().split(start)
    after = rest.split(end)[1]
    README.write_text(f"{before}{start}\n{text}\n{end}{after}")


def main(config):
    """Run, print, and write the README's table if asked."""
    if config.seed is None:
        fresh = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
        config = dataclasses.replace(config, seed=fresh)
    text = summary(run(config), config)
    print(text)
    if config.write:
        write(text)


if __name__ == "__main__":
    main(tyro.cli(Config))
