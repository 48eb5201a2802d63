"""Which gradient checker catches wrong rules, and accuses no right ones?

`gradstab.check`, `jax.test_util.check_grads` (float32 and x64, by the dtype of the
case) and the textbook ratio of norms judge the same functions: mutants of 50 classes of
real bugs, each graded by its true size in float64; correct functions that are hard; and
the operations that JAX's own tests cover, as they are and one per cent off. Torch's
gradcheck, slow and fast, judges those that are ported. Expected of `gradstab.check`: no
PASS of a mutant above twice the resolution that it states; recall of 99 % from 1e-3 in
float64, 95 % from 1e-2 in float32, 90 % from 1e-1 in bfloat16; no right function
accused, and fewer than 5 % inconclusive. One half of the mutants is frozen, see
`frozen`.

A mutant costs six seconds of one core or more with all judges, a correct function four,
an operation eight: an hour or two on two cores that do nothing else for everything at
one shape of each mutant in each dtype, a third of it with ``--every 3``, and half an
hour more for each further shape (``--shapes all``). Compilation is most of it;
``--quick-compiler`` saves a part, and then the seconds in the table mean less. Rows are
kept as they come, in an order that mixes the subjects, so `tables` can make its tables
of a run that was cut short.

    python -m experiments.checkers --half both
"""

import dataclasses
import json
import pathlib
import sys

import rich.progress
import tyro

from experiments import _results
from experiments.checkers.compare import Config, Row, run
from experiments.checkers.tables import tables
from gradstab.training import new_results_folder


def main(config: Config) -> None:
    """Judge, print the tables, and keep them with the rows under ``results/``."""
    folder = new_results_folder("results", "checkers")
    kept = folder / "rows.jsonl"
    with rich.progress.Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("judging", total=None)

        def advance(rows: list[Row]):
            bar.advance(task, len(rows))
            with kept.open("a") as file:
                file.writelines(json.dumps(dataclasses.asdict(r)) + "\n" for r in rows)

        rows = run(config, advance)
    text = tables(rows)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)) + "\n")
    (folder / "table.md").write_text(text + "\n")
    print(text)
    print(f"\nresults: {pathlib.Path(folder)}")
    if config.write:
        command = f"python -m experiments.checkers --half {config.half}"
        _results.write("checkers", text, command=command)


if __name__ == "__main__":
    main(tyro.cli(Config))
