"""Which published numbers about gradient propagation does gradstab find again?

Every experiment with a row here runs with a seed that nobody has seen before, and each
of its claims is compared with the number that was published: a row holds if all its
claims do. Rows marked T train networks; ``--quick`` leaves them out. Expected: at least
24 of 26 rows hold with any seed. The table stands in RESULTS.md; ``--write`` puts
it there, if all of them end. Claims are kept under ``results/`` as they come.

    python -m experiments.scoreboard
"""

import dataclasses
import importlib
import json
import re
import sys
import time
import traceback

import numpy as np
import tyro

from experiments import _results
from experiments._claims import Claim, table
from experiments._run import progress
from gradstab.training import new_results_folder

# Experiments with a row, and the flags that leave out what they measure besides.
QUICK: dict[str, dict] = {
    "finite_width": {},
    "glorot": {},
    "batch_norm": {"beside": False},
    "critical_line": {},
    "default_initializers": {"activations": ("tanh",)},
    "dynamical_isometry": {},
    "mean_field_rates": {"networks": 0},
    "gradient_checking": {"cases": ()},
    "residual": {},
    "pre_post_norm": {},
    "shattering": {},
    "forget_gates": {},
    "norm_clipping": {},
    "born_dead": {},
    "delta_orthogonal": {},
    "linear_recurrence": {},
    "attention_rank": {},
    "oversmoothing": {},
    "rezero": {},
}
TRAINING: dict[str, dict] = {"mnist_recipes": {}, "trainability": {}}


@dataclasses.dataclass(frozen=True)
class Config:
    """What runs, with which seed; none: a fresh one, which is printed."""

    quick: bool = False
    seed: int | None = None
    only: tuple[str, ...] = ()
    write: bool = False


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one experiment found: its claims that have a row, or why there are none."""

    name: str
    claims: tuple[Claim, ...]
    seconds: float
    failure: str = ""


def run(config, keep=lambda measured: None):
    """The measurements of all experiments that have a row.

    An experiment that raises an error does not end the others: its rows do not hold.

    Args:
        config: what runs.
        keep: called with each `Measured` when it is there.
    """
    names = config.only or tuple(QUICK if config.quick else QUICK | TRAINING)
    found = []
    for name in progress(names, "experiments"):
        found.append(_measure(name, config.seed))
        keep(found[-1])
    return found


def _measure(name, seed):
    module, start = importlib.import_module(f"experiments.{name}"), time.monotonic()
    flags = (QUICK | TRAINING).get(name, {})
    settings = dataclasses.replace(module.Config(), seed=seed, **flags)
    try:
        claims = module.claims(settings, module.run(settings))
    except Exception as error:  # of one of many, to be seen in the table
        failure, claims = f"{type(error).__name__}: {error}", ()
        traceback.print_exc()
    else:
        failure, claims = "", tuple(c for c in claims if c.row)
    return Measured(name, claims, time.monotonic() - start, failure)


def summary(found, config):
    """The table, how many rows held, how long it took and the command to repeat it."""
    claims = [claim for measured in found for claim in measured.claims]
    claims.sort(key=lambda c: int(re.sub(r"\D", "", c.row)))
    rows = {c.row: True for c in claims}
    for c in claims:
        rows[c.row] &= c.held
    command = f"python -m experiments.scoreboard{' --quick' * config.quick}"
    command += f" --only {' '.join(config.only)}" if config.only else ""
    lines = [
        f"{sum(rows.values())} of {len(rows)} rows hold "
        f"(`{command} --seed {config.seed}`, {_seconds(found)}).",
        *(f"{m.name} did not end: {m.failure}" for m in found if m.failure),
    ]
    return "\n\n".join([table(claims), *lines])


def _seconds(found):
    quick = sum(m.seconds for m in found if m.name in QUICK)
    trained = sum(m.seconds for m in found if m.name in TRAINING)
    parts = {f"{quick:.0f} s": quick, f"{trained:.0f} s of training": trained}
    return " and ".join(text for text, seconds in parts.items() if seconds)


def main(config):
    """Run, print, keep what there is, and write the table into RESULTS.md if asked."""
    if config.seed is None:
        fresh = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
        config = dataclasses.replace(config, seed=fresh)
    folder = new_results_folder("results", "scoreboard")

    def keep(measured):
        with (folder / "claims.jsonl").open("a") as file:
            file.write(json.dumps(dataclasses.asdict(measured)) + "\n")
        held = sum(c.held for c in measured.claims)
        said = measured.failure or f"{held} of {len(measured.claims)} claims held"
        print(f"{measured.name}: {said}, {measured.seconds:.0f} s", file=sys.stderr)

    found = run(config, keep)
    text = summary(found, config)
    (folder / "table.md").write_text(text + "\n")
    print(text)
    print(f"results: {folder}")
    if config.write and not any(m.failure for m in found):
        _results.write("scoreboard", text)
    elif config.write:
        print("not written: an experiment did not end", file=sys.stderr)
    sys.exit(any(m.failure or not all(c.held for c in m.claims) for m in found))


if __name__ == "__main__":
    main(tyro.cli(Config))
