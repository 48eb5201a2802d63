"""Every judge on every case, in processes of their own."""

import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import zlib

import jax
import numpy as np

from experiments.checkers import judges
from experiments.checkers.cases import (
    DTYPES,
    SHAPES,
    Case,
    grade,
    precise,
)
from experiments.checkers.correct import correct
from experiments.checkers.frozen import HALVES
from experiments.checkers.jax_operations import WRONG_IN_JAX, operations
from experiments.checkers.mutants import MUTANTS
from experiments.checkers.rules import with_vjp

# Twins are the mutants' plain functions where they round inside: right ones.
PARTS = ("mutants", "twins", "correct", "operations", "torch")

# Of rows of the correct functions and the operations that turned out not to be right.
FOUND = "wrong in JAX"

CORPUS = "the corpus"  # the judge of cases that cannot be made

_NAMED = {mutant.name: mutant for mutant in MUTANTS}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is judged, and by whom."""

    half: str = "tuned"  # tuned, frozen or both
    parts: tuple[str, ...] = PARTS
    judges: tuple[str, ...] = tuple(judges.JUDGES)
    dtypes: tuple[str, ...] = DTYPES
    shapes: str = "one"  # of each mutant in each dtype, or all
    torch_shapes: tuple[str, ...] = ("odd", "large")
    names: tuple[str, ...] = ()  # only those that contain one of these
    every: int = 1  # n: every n-th of them only
    workers: int = 2
    resume: str = ""  # rows.jsonl of a run that was cut short: not judged again
    quick_compiler: bool = False  # compile fast and not well; seconds mean less then
    write: bool = False  # put the tables into experiments/RESULTS.md


@dataclasses.dataclass(frozen=True)
class Row:
    """One judgement of one case.

    Attributes:
        part: of the corpus, one of `PARTS`, or `FOUND`.
        name: of the case.
        judge: who judged.
        wrong: whether the rule is wrong.
        size: by how much, relative; see `cases.grade`.
        half: ``tuned`` or ``frozen``; empty but for mutants.
        klass: the class of bugs; 0 if there is none.
        dtype: of the case.
        verdict: PASS, FAIL, INCONCLUSIVE or ERROR.
        resolution: as the judge states it, if it does.
        evaluations: of the function and of its rules.
        seconds: with compilation.
        reason: in the judge's words.
    """

    part: str
    name: str
    judge: str
    wrong: bool
    size: float
    half: str
    klass: int
    dtype: str
    verdict: str
    resolution: float
    evaluations: int
    seconds: float
    reason: str


def shapes_of(mutant, dtype: str, shapes: str) -> tuple[str, ...]:
    """All shapes, or one that the name and the dtype decide."""
    if shapes == "all":
        return SHAPES
    first = zlib.crc32(mutant.name.encode())
    return (SHAPES[(first + DTYPES.index(dtype)) % len(SHAPES)],)


def tasks(config) -> list[tuple[str, str]]:
    """What is to be judged, in small portions: a part and a name.

    The order mixes the subjects: a run that is cut short is a fair sample.
    """
    halves = HALVES if config.half == "both" else (config.half,)
    found = []
    if "mutants" in config.parts:
        found += [("mutants", m.name) for m in MUTANTS if m.half in halves]
    if "twins" in config.parts:
        found += [("twins", m.name) for m in MUTANTS if m.half in halves]
    if "correct" in config.parts:
        found += [("correct", name) for name in correct()]
    if "operations" in config.parts:
        found += [("operations", name) for name in operations()]
    if "torch" in config.parts:
        from experiments.checkers.torch_ports import PORTS

        found += [("torch", name) for name in PORTS]
    named = [
        (part, name)
        for part, name in found
        if not config.names or any(text in name for text in config.names)
    ]
    mixed = sorted(named, key=lambda task: zlib.crc32(repr(task).encode()))
    return mixed[:: config.every]


def run(config, advance=lambda rows: None) -> list[Row]:
    """All judgements, from ``config.workers`` processes.

    Args:
        config: what is to be judged.
        advance: called with the rows of every task that is done, and first with those
            of the run that is resumed.
    """
    rows = kept(config.resume) if config.resume else []
    advance(rows)
    context = multiprocessing.get_context("spawn")
    judge = functools.partial(judge_task, config=config)
    with context.Pool(
        config.workers, _start, (config.quick_compiler,), maxtasksperchild=40
    ) as pool:
        for done in pool.imap_unordered(judge, tasks(config)):
            rows += done
            advance(done)
    return rows


def kept(path) -> list[Row]:
    """The rows of a file that a run has written."""
    lines = pathlib.Path(path).read_text().splitlines()
    return [Row(**json.loads(line)) for line in lines]


@functools.cache
def _done(path) -> frozenset:
    """What a run that is resumed has judged."""
    return frozenset((r.part, r.name, r.wrong, r.judge) for r in kept(path))


def _to_ask(config, known) -> tuple[str, ...]:
    """The judges that have not judged this."""
    case = known["part"], known["name"], known["wrong"]
    done = _done(config.resume) if config.resume else frozenset()
    return tuple(judge for judge in config.judges if (*case, judge) not in done)


def _start(quick_compiler):
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", quick_compiler)


def judge_task(task, config) -> list[Row]:
    """The rows of one task."""
    part, what = task
    judge = {
        "mutants": _judge_mutant,
        "twins": _judge_twin,
        "correct": _judge_correct,
        "operations": _judge_operation,
        "torch": _judge_torch,
    }[part]
    try:
        rows = judge(what, config)
    except Exception as error:  # a case that is itself broken must not end the run
        reason = f"{type(error).__name__}: {error}"
        broken = judges.Judgement(judges.ERROR, reason=reason)
        rows = [_row(_known(part, what, wrong=False), CORPUS, broken)]
    jax.clear_caches()
    return rows


def _judge_mutant(name, config):
    mutant = _NAMED[name]
    chosen = [
        Case(mutant, shape, dtype)
        for dtype in config.dtypes
        if dtype in mutant.dtypes
        for shape in shapes_of(mutant, dtype, config.shapes)
    ]
    rows = []
    for case in chosen:
        known = {
            "part": "mutants",
            "name": case.name,
            "wrong": True,
            "size": np.nan,
            "half": mutant.half,
            "klass": mutant.klass,
            "dtype": case.dtype,
        }
        if _to_ask(config, known):
            known["size"] = case.size()
            options = {"dtype": case.dtype, "order": mutant.order}
            rows += _all_judges(config, case.f, case.args, options, known)
    return rows


def _judge_twin(name, config):
    """The plain function of a mutant, as code that rounds to a dtype inside."""
    mutant, rows = _NAMED[name], []
    for dtype in config.dtypes:
        if dtype == "float64" or dtype not in mutant.dtypes:
            continue
        (shape,) = shapes_of(mutant, dtype, "one")
        plain = dataclasses.replace(mutant, f=mutant.truth)
        case = Case(plain, shape, dtype)
        known = _known("twins", case.name, wrong=False, dtype=dtype)
        options = {"dtype": dtype, "order": mutant.order}
        if _runs_without_float64(case):
            rows += _all_judges(config, case.f, case.args, options, known)
    return rows


def _runs_without_float64(case) -> bool:
    """Whether JAX takes the case where there are no 64 bits; some close over them."""
    try:
        with jax.enable_x64(False):
            jax.block_until_ready(jax.jit(case.f)(*case.args))
    except (TypeError, ValueError):
        return False
    return True


def _judge_correct(name, config):
    case = correct()[name]()
    known = _known("correct", name, wrong=False, dtype=case.dtype)
    options = {"dtype": case.dtype, "expect": case.expect}
    args = jax.tree.map(lambda a: _as_float(a, case.dtype), case.args)
    return _all_judges(config, case.f, args, options, known)


def _as_float(a, dtype):
    if not hasattr(a, "dtype"):
        return a
    floating = jax.numpy.issubdtype(a.dtype, jax.numpy.floating)
    return a.astype(dtype) if floating else a


def _judge_operation(name, config):
    cases = [_known("operations", name, wrong=wrong) for wrong in (False, True)]
    if not any(_to_ask(config, known) for known in cases):
        return []
    f, args = operations()[name]
    args = jax.tree.map(lambda a: _as_float(a, "float64"), args)

    def plain(*args):
        return f(*args)

    off = with_vjp(plain, lambda args, w, g: jax.tree.map(lambda a: 1.01 * a, g))
    with precise():
        size = grade(off, plain, args)  # zero if the derivative is
    rows = []
    for rule, wrong in ((plain, False), (off, True)):
        known = _known("operations", name, wrong=wrong, size=size * wrong)
        rows += _all_judges(config, rule, args, {"dtype": "float64"}, known)
    return rows


def _judge_torch(name, config):
    from experiments.checkers.torch_judge import judge_port

    if config.resume and any(
        name in r.name for r in kept(config.resume) if r.part == "torch"
    ):
        return []
    rows = []
    for known, verdicts in judge_port(name, config):
        for judge, judgement in verdicts.items():
            rows.append(_row(known, judge, judgement))
    return rows


def _known(part, name, *, wrong, size=0.0, dtype="float64"):
    if name in WRONG_IN_JAX and not wrong:
        part, wrong, size = FOUND, True, WRONG_IN_JAX[name][0]
    return {
        "part": part,
        "name": name,
        "wrong": wrong,
        "size": size,
        "half": "",
        "klass": 0,
        "dtype": dtype,
    }


def _all_judges(config, f, args, options, known):
    return [
        _row(known, name, judges.judged(name, f, args, **options))
        for name in _to_ask(config, known)
    ]


def _row(known, judge, judgement):
    return Row(judge=judge, **known, **dataclasses.asdict(judgement))
