"""``gradstab analyze``."""

import contextlib
import pathlib
import re
import tempfile

import jax

from gradstab._checked import one_of, seed, whole_number
from gradstab.analysis import analyze, initializations
from gradstab.cli.options import (
    Analyze,
    DataOptions,
    MeasureOptions,
    ModelOptions,
    SubjectOptions,
    Train,
    from_json,
    given,
)
from gradstab.cli.output import (
    STANDARD_OUTPUT,
    console,
    folder_of,
    prepared,
    prepared_figure,
)
from gradstab.cli.prepare import build_model, load_target, on_targets, prepare
from gradstab.cli.targets import keywords, selector
from gradstab.errors import UserValueError
from gradstab.report import VERDICTS
from gradstab.training import read_config, restore


def run(options: Analyze, /) -> int:
    """Analyse, write, print; returns the exit status.

    Everything that can be refused is looked at before the work, and the report is saved
    before it is shown: what was computed is not lost on its way to the screen.
    """
    _check(options)
    to_stdout = options.json == STANDARD_OUTPUT
    screen = console(quiet=options.quiet, stderr=to_stdout)
    plot = prepared_figure(options.plot, overwrite=options.overwrite)
    path = prepared(_path(options), overwrite=options.overwrite)
    try:
        report = _analysed(options)
    except BaseException:
        _remove_if_empty(path, options)
        raise
    with contextlib.ExitStack() as last:
        last.callback(report.show, screen)  # also if the file cannot be written
        if to_stdout:
            _print_json(report)
        elif path is not None:
            report.save(path, overwrite=options.overwrite)
        if plot is not None:
            report.plot().savefig(plot)
    for name, written in (("plot", plot), ("report", None if to_stdout else path)):
        if written is not None:
            screen.print(f"{name}: {written}", soft_wrap=True, markup=False)
    return int(report.verdict in (options.fail_on or ()))


def _print_json(report):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "report.json")
        report.save(path)
        print(path.read_text(encoding="utf-8"), end="")


def _analysed(options: Analyze):
    arguments, loss, output = _subject(options)
    return analyze(
        *arguments,
        loss=loss,
        output=output,
        apply_kwargs=keywords(options.apply_kwargs or ()),
        batched=options.batched,
        boundaries=options.boundaries,
        ensemble=options.ensemble is not None,
        examples=options.examples,
        layers=_layers(options.layers),
        top_k=options.top_k,
        max_dense=options.max_dense,
        max_bytes=options.max_bytes,
        max_seconds=options.max_seconds,
        theory=options.theory,
        precision=options.precision,
        spectra_on=options.spectra_on,
        seed=options.seed,
        progress=options.progress and not options.quiet,
    )


def _layers(given):
    """Names; one that is no plain name is a regular expression."""
    if given and len(given) == 1 and re.search(r"[^\w./]|\.\*", given[0]):
        return given[0]
    return given


def _check(options: Analyze):
    one_of(options.mode, "--mode", ("train", "eval"))
    seed(options.seed, "--seed")
    whole_number(options.batch_size, "--batch-size", least=1)
    if options.ensemble is not None:
        whole_number(options.ensemble, "--ensemble", least=1)
    for verdict in options.fail_on or ():
        one_of(verdict, "--fail-on", VERDICTS)
    if options.target and options.checkpoint:
        raise UserValueError("give a target or --checkpoint, but not both")
    of_target = given(options, [SubjectOptions])
    of_target = [name for name in of_target if name not in ("--checkpoint", "--step")]
    if of_target and not options.target:
        raise UserValueError(f"{', '.join(of_target)}: of a target, and none is given")
    if options.step is not None and not options.checkpoint:
        raise UserValueError("--step is of a --checkpoint, and none is given")
    if options.json is not None and options.out is not None:
        raise UserValueError("give --json or --out, but not both")
    ignored = given(options, [ModelOptions, DataOptions])
    if options.target:
        own = given(options, [MeasureOptions])
        ignored += [n for n in own if n in ("--batch-size", "--mode", "--ensemble")]
    if ignored and options.target:
        raise UserValueError(
            f"{', '.join(ignored)}: of gradstab's own models; {options.target} brings "
            "its model and its inputs"
        )
    if ignored and options.checkpoint:
        raise UserValueError(
            f"{', '.join(ignored)}: of a new model; that of --checkpoint and its data "
            "are as the run was started"
        )
    if options.ensemble is not None and options.checkpoint:
        raise UserValueError("--ensemble is of a network as it is initialised")


def _remove_if_empty(path, options: Analyze):
    """A numbered folder in which nothing was written goes again."""
    if options.json is None and options.out is None:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _subject(options: Analyze):
    """The arguments of `analyze`, the loss, and which output is differentiated."""
    if options.target:
        output = None if options.output is None else selector(options.output)
        return *load_target(options.target), output
    task, folder = _task(options)
    model = task.model
    if folder is not None:
        model = restore(folder, model, step=options.step)
    model.train() if options.mode == "train" else model.eval()
    if options.batch_size > len(task.data.x_train):
        raise UserValueError(
            f"--batch-size {options.batch_size} is above the "
            f"{len(task.data.x_train)} training examples"
        )
    x = task.data.x_train[: options.batch_size]
    y = task.data.y_train[: options.batch_size]
    # A model with auxiliary heads returns (logits, those of the heads).
    output = _first if isinstance(model(x), tuple) else None
    if options.ensemble is not None:
        model = _initializations(options, task.data)
    return (model, x), on_targets(task.loss, y), output


def _initializations(options, data):
    def make(key):
        model = build_model(options, data, key)
        model.train() if options.mode == "train" else model.eval()
        return model

    return initializations(make, jax.random.key(options.seed), options.ensemble)


def _task(options: Analyze):
    if options.checkpoint is None:
        return prepare(options), None
    config = read_config(options.checkpoint)
    if config is None:
        raise FileNotFoundError(
            f"{options.checkpoint} has no config.json: give the folder of a run of "
            "gradstab train"
        )
    trained = from_json(Train, config["config"])
    return prepare(trained, aux_weight=trained.aux_weight), options.checkpoint


def _first(output):
    return output[0]


def _path(options):
    if options.json is not None:
        return options.json
    return folder_of(options.out, "analyze") / "report.json"
