"""Do default reports of large models end in ten minutes and 6 GiB, as was estimated?

Ten models, each in a fresh process: a language model of 24 layers x 512 x 128 tokens x
32 examples with 30,000 words, ResNet-50 at 64 x 64 x 32, two LSTMs of 500 steps, and
smaller ones of each kind. Per model: seconds and resident memory at the peak, of the
process and as estimated, and their ratios. Wanted: ratios of time within 3 and of
memory within 1.5. Seconds of CPU stand beside those of the wall, for busy machines.
Not yet run as a whole.

    python -m experiments.benchmarks.large --names transformer resnet lstm
"""

import dataclasses
import json
import re
import resource
import subprocess
import sys
import time

import gradstab as gs
from experiments._run import print_table
from experiments.benchmarks import large_models

MODELS = {
    "transformer": (large_models.transformer, {}),
    "resnet": (large_models.resnet, {}),
    "lstm": (large_models.lstm, {}),
    "transformer-8": (
        large_models.transformer,
        {"depth": 8, "width": 64, "tokens": 16, "vocabulary": 64},
    ),
    "transformer-2": (
        large_models.transformer,
        {"depth": 2, "width": 256, "tokens": 64, "vocabulary": 512},
    ),
    "resnet-8": (
        large_models.resnet,
        {"stages": (1, 1, 1), "filters": 8, "size": 16, "num_classes": 10},
    ),
    "resnet-20": (
        large_models.resnet,
        {"stages": (3, 3), "filters": 16, "size": 32, "num_classes": 10},
    ),
    "lstm-20": (large_models.lstm, {"depth": 1, "width": 32, "steps": 20}),
    "lstm-100": (large_models.lstm, {"depth": 3, "width": 64, "steps": 100}),
    "transformer-1": (
        large_models.transformer,
        {"depth": 1, "width": 512, "tokens": 32, "vocabulary": 128},
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which models are measured."""

    names: tuple[str, ...] = tuple(MODELS)
    """Models that are analysed."""


def measure(name):
    """A default report; prints what it took and what was estimated, as JSON."""
    make, sizes = MODELS[name]
    model, x, loss = make(**sizes)
    wall, cpu = time.perf_counter(), time.process_time()
    report = gs.analyze(model, x, loss=loss, progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, gib = map(float, re.findall(r"[\d.e+-]+\d", report.made["estimate"]))
    examples = report.made["jacobian_examples"]
    print(json.dumps([wall, cpu, seconds, peak, gib, examples]))


def run(config):
    """What `measure` prints, for every model."""
    rows = {}
    for name in config.names:
        code = f"from experiments.benchmarks import large; large.measure({name!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    return rows


def table(config):
    """A row per model."""
    header = ("model", "wall s", "CPU s", "estimated", "ratio")
    header += ("GiB", "estimated", "ratio", "examples")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, (wall, cpu, seconds, peak, gib, examples) in run(config).items():
        lines.append(
            f"| {name} | {wall:.0f} | {cpu:.0f} | {seconds:.0f} | {wall / seconds:.2f} "
            f"| {peak:.2f} | {gib:.2f} | {peak / gib:.2f} | {examples} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
