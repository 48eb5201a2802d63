"""Runs that are stopped at random moments, resumed, and compared with one that is not.

    python tests/training/survival.py --moments 20

Every run is a process forked before JAX starts: all that is imported is there at once.
A moment is a time for a signal, the largest size of a file for a full disk. The run
pre-trains, drops out and normalises batches. Half an hour on two cores.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time

import jax
import sklearn.datasets  # noqa: F401  imported for the forked processes

import gradstab as gs
from gradstab import training
from gradstab.cli import main
from gradstab.cli import train as _train  # noqa: F401  likewise
from gradstab.training import checkpoint_files

OPTIONS = (
    *("--depth", "3", "--width", "8", "--norm", "batch", "--dropout", "0.1"),
    *("--pretrain-steps", "40", "--pretrain-corruption", "0.2", "--seed", "3"),
    *("--optimizer", "adam", "--learning-rate", "0.001", "--batch-size", "32"),
    *("--steps", "120", "--steps-per-dispatch", "5", "--checkpoint-every", "10"),
    *("--keep", "3", "--num-train", "256", "--no-progress"),
    "--watch",
)
# A run that compiles little, for many moments.
SMALL = (
    *("--depth", "1", "--width", "8", "--activation", "relu", "--seed", "3"),
    *("--batch-size", "32", "--steps", "2000", "--steps-per-dispatch", "5"),
    *("--checkpoint-every", "200", "--keep", "3", "--num-train", "256"),
    *("--no-progress", "--watch"),
)
ENDS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk", "damaged checkpoint")


class Process:
    """A command of gradstab in a process of its own."""

    def __init__(self, folder, *arguments, largest_file=None):
        self.started = time.perf_counter()
        self._said = b""
        sys.stdout.flush()
        # Not a file: on a full disk that could not be written either.
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                status = self._run(folder, arguments, largest_file)
            finally:
                os._exit(status)
        os.close(writing)
        os.set_blocking(self._reading, False)

    def _run(self, folder, arguments, largest_file):
        try:
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True)
            os.chdir(folder)
            if largest_file is not None:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
            return main(arguments)
        except BaseException as error:
            os.write(2, f"UNCAUGHT {error!r}\n".encode())
            return 99

    def wait(self, most=600.0):
        """The exit status and what was printed."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        while not ended:
            self._listen()
            if time.perf_counter() - self.started > most:
                os.kill(self.pid, signal.SIGKILL)
                self._said += b"UNCAUGHT hung"
            time.sleep(0.01)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        self._listen()
        os.close(self._reading)
        self.seconds = time.perf_counter() - self.started
        return os.waitstatus_to_exitcode(status), self._said.decode(errors="replace")

    def _listen(self):
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._reading, 1 << 16):
                self._said += more

    def end(self, number, after):
        """Send a signal so many seconds after the start."""
        time.sleep(max(0.0, self.started + after - time.perf_counter()))
        os.kill(self.pid, number)


def apart(function, *arguments):
    """What a function returns, in a process of its own.

    A process in which JAX runs must not be forked, and runs are.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(writing, "wb") as file:
            pickle.dump(function(*arguments), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = pickle.load(file)
    os.waitpid(pid, 0)
    return found


def contents(run):
    """Every array of the last checkpoint, and the metrics without their times."""
    return apart(_contents, run)


def _contents(run):
    step, found = checkpoint_files.read(run, None, "params", "rest")
    arrays = {f"{n}/{k}": v for n, item in found.items() for k, v in item.items()}
    rows = training.read_metrics(run)
    rows = [{k: v for k, v in r.items() if k != "time"} for r in rows]
    history = gs.History.read(run)
    watched = [history.steps.tolist(), *(history[n].tolist() for n in _WATCHED)]
    return step, arrays, (rows, watched)


_WATCHED = ("value", "gradient_norm", "backward_rms", "update_norm", "pre_norm")


def differences(run, whole):
    """What is not bitwise the same."""
    step, arrays, (rows, watched) = contents(run)
    other_step, others, (other_rows, more) = contents(whole)
    wrong = [] if step == other_step and arrays.keys() == others.keys() else ["step"]
    wrong += [n for n in arrays if arrays[n].tobytes() != others[n].tobytes()]
    wrong += ["metrics"] if rows != other_rows else []
    return wrong + (["history"] if str(watched) != str(more) else [])


def lost(run, whole):
    """What the history lacks right after a run was ended, before it is resumed.

    Every step up to the last one that is there has to be, as the run that was not ended
    has it, and at least those that the newest checkpoint has. Whether it ends between
    the first and the last step comes with it.
    """
    if not (run / "history.jsonl").exists():
        return (["history"] if training.latest(run) else []), False
    history, other = gs.History.read(run), gs.History.read(whole)
    num, wrong = len(history), []
    if history.steps.tolist() != other.steps[:num].tolist():
        wrong.append("steps")
    if num < (training.latest(run) or 0):
        wrong.append("steps of a checkpoint")
    for name in _WATCHED:
        if history[name].tobytes() != other[name][:num].tobytes():
            wrong.append(name)
    return wrong, 0 < num < len(other)


def stop(folder, end, seconds, sizes, rng, options):
    """Start a run in a folder and end it at a random moment."""
    command = ("train", *options, "--out", "run")
    if end == "full disk":
        return Process(folder, *command, largest_file=rng.choice(sizes)).wait()
    process = Process(folder, *command)
    number = signal.SIGKILL if end == "damaged checkpoint" else signal.Signals[end]
    least = 0.4 * seconds if end == "damaged checkpoint" else 0.02 * seconds
    process.end(number, rng.uniform(least, seconds))
    status = process.wait()
    if end == "damaged checkpoint":
        damage_newest(folder / "run", rng)
    return status


def damage_newest(run, rng):
    """Cut or change a file of the newest checkpoint, of pre-training if need be."""
    stages = sorted(run.glob("pretraining/*"), reverse=True)
    place = next((p for p in (run, *stages) if training.latest(p)), None)
    if place is None:
        return
    newest = checkpoint_files.folder_of(place) / str(training.latest(place))
    path = rng.choice(sorted(p for p in newest.rglob("*") if p.stat().st_size))
    if path.is_dir():
        path = next(p for p in path.rglob("*") if p.is_file())
    content = bytearray(path.read_bytes())
    if rng.random() < 0.5 and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)


def judged(folder, end, stopped, whole):
    """Resume the run, and say how it ended."""
    status, said = stopped
    problems = []
    if "Traceback" in said or "UNCAUGHT" in said:
        problems.append(f"not ours: {said[-300:]}")
    if end in ("SIGTERM", "SIGINT"):
        expected = {"SIGTERM": (143, -signal.SIGTERM), "SIGINT": (130, 130)}[end]
        if status not in (0, *expected):
            problems.append(f"status {status}: {said[-200:]}")
        if (
            status == expected[0]
            and "go on with: gradstab train --resume run" not in said
        ):
            problems.append(f"not told: {said[-200:]}")
    left = [p for p in folder.rglob("*.tmp")]
    if end == "full disk":
        left += folder.rglob("*.writing*")
        if status != 0 and said.count("gradstab: ") != 1:
            problems.append(f"not told in one line: {said[-300:]}")
        if left:
            problems.append(f"left: {left}")
    status, said = Process(folder, "train", "--resume", "run", "--no-progress").wait()
    lines = [line for line in said.splitlines() if line.startswith("gradstab: ")]
    if "Traceback" in said or "UNCAUGHT" in said:
        problems.append(f"not ours: {said[-300:]}")
    if status == 2 and len(lines) == 1:
        return problems, f"refused ({lines[0].rpartition(':')[2][:40].strip()})"
    if status:
        return [*problems, f"status {status}: {said[-300:]}"], "failed"
    wrong = differences(folder / "run", whole)
    if wrong:
        problems.append(f"differs: {wrong[:3]}")
    told = "going on from" in said or "from step 0" in said
    return problems, "bitwise, and said from where" if told else "bitwise"


def survive(moments, ends=ENDS, seed=0, out=print, options=OPTIONS):
    """Stop and resume so many runs by each of the ends; what went wrong.

    Of those that were killed, it is counted how many had begun and not ended.

    Args:
        moments: of each end.
        ends: of `ENDS`.
        seed: of the moments.
        out: called with a line for every run.
        options: of the runs, see `gradstab train`.
    """
    rng, root = random.Random(seed), pathlib.Path(tempfile.mkdtemp())
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "compiled")
    jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    counts, problems, cuts = {}, [], 0
    try:
        for _ in range(2):  # the first fills the compiler's cache
            (root / "whole").mkdir(exist_ok=True)
            process = Process(
                root / "whole", "train", *options, "--out", "run", "--overwrite"
            )
            status, said = process.wait()
            assert status == 0, said
        whole, seconds = root / "whole" / "run", process.seconds
        sizes = [p.stat().st_size for p in whole.rglob("*") if p.is_file()]
        sizes = {round(size * f) for size in sizes for f in (0.3, 0.7, 0.95)}
        # Below that not even the settings are written, and nothing is begun.
        least = (whole / "config.json").stat().st_size
        sizes = sorted(size for size in sizes if size > least)
        for end in ends:
            counts[end] = collections.Counter()
            for moment in range(moments):
                folder = root / f"{end}-{moment}"
                folder.mkdir()
                stopped = stop(folder, end, seconds, sizes, rng, options)
                if not (folder / "run").exists():
                    out(f"{end} {moment}: ended before it began {stopped}")
                    counts[end]["ended before it began"] += 1
                    continue
                missing, cut = [], False
                if end == "SIGKILL":
                    missing, cut = apart(lost, folder / "run", whole)
                cuts += cut
                wrong, how = judged(folder, end, stopped, whole)
                wrong += [f"lost: {name}" for name in missing]
                counts[end][how] += 1
                problems += [f"{end} {moment}: {each}" for each in wrong]
                out(f"{end} {moment}: {how} {wrong or ''}")
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return {end: dict(count) for end, count in counts.items()}, problems, cuts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--ends", nargs="*", default=ENDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    found, wrong, cut = survive(
        given.moments,
        given.ends,
        given.seed,
        options=SMALL if given.small else OPTIONS,
    )
    print(json.dumps({"counts": found, "problems": wrong, "cut": cut}, indent=1))
    sys.exit(bool(wrong))
