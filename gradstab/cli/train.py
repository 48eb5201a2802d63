"""``gradstab train``."""

import contextlib
import dataclasses
import math
import pathlib
import shlex
import sys
import warnings

import numpy as np
from rich.console import Console

from gradstab import _files, _json, clipping, training
from gradstab._checked import one_of
from gradstab.cli.options import Train, as_json, from_json
from gradstab.cli.prepare import Task, prepare
from gradstab.errors import UserValueError
from gradstab.training.results import PRETRAINING, RESULT
from gradstab.watch import History

# What may differ when a run is resumed: how long, and where and how it is shown.
_OF_RESUMING = {"resume", "step", "steps", "epochs", "platform", "progress"}
_WATCHING = ("watch", "watch_every", "watch_level")


def run(options: Train, /) -> int:
    """Train, print the result, keep it; returns the exit status."""
    console = Console()
    _expect_numbers(options)
    if options.resume is not None:
        options = _resumed(options)
    elif options.step is not None:
        raise UserValueError(
            f"--step {options.step} is of --resume: give a run to go on with"
        )
    _expect_one_rate(options)
    task = prepare_training(options)
    num_steps = _num_steps(options, len(task.data.x_train))
    optimizer = optimizer_of(options, task)
    _watch(options)
    _expect_pretrainable(options, task.model)
    folder = _folder(options)
    console.print(f"results: {folder}", soft_wrap=True)
    with _told(folder):
        _show_start(console, options, folder)
        try:
            result = _fit(options, task, optimizer, num_steps, folder)
        except training.NonFiniteLossError as error:
            console.print(
                f"stopped: {error}", style="red", soft_wrap=True, markup=False
            )
            again = f"gradstab replay {shlex.quote(str(folder))}"
            console.print(f"look at that step: {again}", soft_wrap=True, markup=False)
            return 1
        except KeyboardInterrupt:
            print(_where_saved(folder), file=sys.stderr)
            return 130
        except SystemExit as error:
            if error.code != 143:
                raise
            print(_where_saved(folder), file=sys.stderr)
            return 143
        except OSError as error:
            hint = "" if error.errno is None else f". {_where_saved(folder)}"
            raise type(error)(f"{error}{hint}") from error
        summary = _summary(result)
        text = _json.dumps(_json.encoded(summary), indent=1)
        _files.write(folder / RESULT, text + "\n", overwrite=True)
    _show(console, summary)
    if options.clip is not None:
        summed = training.clipping_summary(result.history)
        console.print(summed, soft_wrap=True, markup=False)
    if _watch(options) is not None:
        _show_watched(console, folder)
    return 0


def _fit(options: Train, task, optimizer, num_steps, folder: pathlib.Path):
    settings = {
        "batch_size": options.batch_size,
        "seed": options.seed,
        "checkpoint_every": options.checkpoint_every,
        "keep": options.keep,
        "progress": options.progress,
    }
    begun = options.resume is not None and training.latest(folder) is not None
    if options.pretrain_steps and not begun:
        pretrained = training.pretrain(
            task.model,
            task.data.x_train,
            optimizer=optimizer,
            num_steps=options.pretrain_steps,
            corruption=options.pretrain_corruption,
            directory=folder / PRETRAINING,
            resume=True,
            **settings,
        )
        task = task._replace(model=pretrained.model)
    return training.fit(
        task.model,
        task.data,
        loss=task.loss,
        optimizer=optimizer,
        num_steps=num_steps,
        steps_per_dispatch=options.steps_per_dispatch,
        validate_every=options.validate_every,
        directory=folder,
        resume=True,
        resume_step=options.step,
        init_from=options.init_from,
        tensorboard=options.tensorboard,
        watch=_watch(options),
        config=_kept(options),
        **settings,
    )


def _watch(options: Train):
    """What is watched; one of the options is enough."""
    if not any(getattr(options, name) for name in _WATCHING):
        return None
    level = options.watch_level or "light"
    one_of(level, "--watch-level", ["light", "full"])
    return training.Watch(every=options.watch_every or 1, level=level)


def _kept(options: Train):
    """The options that a run is resumed with."""
    return as_json(dataclasses.replace(options, resume=None, step=None))


def _resumed(options):
    """The options that the run was started with, and where it lies."""
    config = training.read_config(options.resume)
    if config is None:
        raise FileNotFoundError(
            f"{options.resume} has no config.json: give the folder of a run to resume"
        )
    started = from_json(Train, config["config"])
    _expect_same(options, started)
    steps = training.all_steps(options.resume)
    if options.step is not None and options.step not in steps:
        raise UserValueError(
            f"--step {options.step}: {options.resume} has no checkpoint of that step; "
            f"it has those of steps: {', '.join(map(str, steps)) or 'none'}"
        )
    length = {"steps": options.steps, "epochs": options.epochs}
    watching = {name: getattr(options, name) for name in _WATCHING}
    return dataclasses.replace(
        started,
        resume=options.resume,
        step=options.step,
        platform=options.platform,
        progress=options.progress,
        **(length if any(length.values()) else {}),
        **(watching if any(watching.values()) else {}),
    )


def _expect_same(options: Train, started):
    """Raise if an option was given that the run was not started with."""
    words = {word.partition("=")[0] for word in sys.argv[1:] if word[:2] == "--"}
    named = {word[2:].replace("-", "_").removeprefix("no_") for word in words}
    other = []
    for field in dataclasses.fields(Train):
        value, before = getattr(options, field.name), getattr(started, field.name)
        given = value != field.default or field.name in named
        if given and value != before and field.name not in (*_OF_RESUMING, *_WATCHING):
            was = "not given" if before is None else before
            other.append(f"{_flag(field.name)} {value} (it was {was})")
    if other:
        raise UserValueError(
            f"a run is resumed with the options it was started with, but for --steps "
            f"and --epochs. Leave out {', '.join(other)}; or start another run with "
            f"them, from its parameters with --init-from {options.resume}"
        )


def _flag(name: str):
    return f"--{name.replace('_', '-')}"


# Least values; above them if it says so.
_COUNTS = ("steps", "epochs", "batch_size", "steps_per_dispatch", "validate_every",
           "checkpoint_every", "keep", "watch_every")  # fmt: skip
_FROM_ZERO = ("pretrain_steps", "step")
_POSITIVE = ("learning_rate", "clip_threshold")
_NOT_NEGATIVE = ("l1", "l2", "aux_weight")


def _expect_numbers(options: Train):
    """Raise, with the option's name, if a number cannot be meant."""
    for names, expected, right in (
        (_COUNTS, "a whole number from 1", lambda value: value >= 1),
        (_FROM_ZERO, "a whole number from 0", lambda value: value >= 0),
        (_POSITIVE, "a positive number", lambda value: 0 < value < math.inf),
        (_NOT_NEGATIVE, "a number from 0", lambda value: 0 <= value < math.inf),
        (("pretrain_corruption",), "a share from 0 to below 1", lambda v: 0 <= v < 1),
    ):
        for name in names:
            value = getattr(options, name)
            if value is not None and not right(value):
                raise UserValueError(f"{_flag(name)} is {value}; expected {expected}")


def _expect_pretrainable(options: Train, model):
    if options.pretrain_corruption and not options.pretrain_steps:
        raise UserValueError(
            "--pretrain-corruption is of pre-training: --pretrain-steps N"
        )
    if options.pretrain_steps and options.model != "mlp":
        raise UserValueError(
            f"pre-training is of an mlp, layer by layer, and --model is "
            f"{options.model}: leave out --pretrain-steps"
        )
    del model


def _expect_one_rate(options: Train):
    if options.pretrain_steps and options.parametrization not in (None, "standard"):
        raise UserValueError(
            "pre-training has one learning rate for all parameters: leave out "
            "--pretrain-steps or --parametrization"
        )


def _num_steps(options: Train, num_examples: int):
    if options.steps is not None and options.epochs is not None:
        raise UserValueError("give --steps or --epochs, but not both")
    if options.batch_size > num_examples:
        raise UserValueError(
            f"--batch-size is {options.batch_size}; expected at most the "
            f"{num_examples} training examples"
        )
    if options.epochs is not None:
        return options.epochs * (num_examples // options.batch_size)
    return 1000 if options.steps is None else options.steps


def _folder(options: Train):
    """The run's folder, with its settings: a run is resumable from here on."""
    if options.resume is not None:
        return options.resume
    if options.out is None:
        folder = training.new_results_folder("results", "train")
    else:
        folder = options.out
        if not options.overwrite and folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder} exists and is not empty. Go on with the run in it by "
                f"--resume {folder}, delete it by --overwrite, or choose another --out"
            )
        training.open_folder(folder, resume=False, overwrite=options.overwrite)
    content = {"settings": {}, "config": _kept(options)}
    training.write_config(folder, content | training.environment())
    return folder


@contextlib.contextmanager
def _told(folder: pathlib.Path):
    """Print what is said of damaged files of the run as lines of the command."""
    show = warnings.showwarning

    def told(message, category, *where):
        if issubclass(category, training.DamageWarning):
            print(f"gradstab: {message}", file=sys.stderr)
        else:
            show(message, category, *where)

    with warnings.catch_warnings():
        warnings.simplefilter("always", training.DamageWarning)
        warnings.showwarning = told
        yield


def _show_start(console, options: Train, folder: pathlib.Path):
    """Where a resumed run goes on from."""
    if options.resume is not None and options.step is None:
        latest = training.latest(folder)
        if latest is None and training.read_metrics(folder, gaps=True):
            console.print("no checkpoint was written before it ended: from step 0")


def _where_saved(folder: pathlib.Path):
    """What to type to go on after a run was stopped."""
    command = f"gradstab train --resume {shlex.quote(str(folder))}"
    latest = training.latest(folder)
    if latest is not None:
        return f"saved at step {latest}, go on with: {command}"
    stages = pathlib.Path(folder, PRETRAINING)
    for stage in sorted(stages.glob("layer-*"), key=_number, reverse=True):
        step = training.latest(stage)
        if step is not None:
            return (
                f"saved at step {step} of pre-training layer {_number(stage)}, go on "
                f"with: {command}"
            )
    return f"saved at step 0, before the first checkpoint; go on with: {command}"


def _number(stage):
    return int(stage.name.partition("-")[2])


def prepare_training(options: Train, /) -> Task:
    """The data, the model and the loss of a run."""
    aux_weight, optimizer = options.aux_weight, options.optimizer
    return prepare(options, aux_weight=aux_weight, optimizer=optimizer)


def optimizer_of(options: Train, task: Task, /):
    """The optimiser of the options, with its clipping, penalties and rates."""
    return training.build(
        options.optimizer,
        options.learning_rate,
        clip=options.clip,
        threshold=options.clip_threshold,
        l1=options.l1,
        l2=options.l2,
        skip_nonfinite=options.skip_nonfinite,
        rates=task.rates,
    )


def _summary(result):
    """The numbers at the end of a run; the validation's are its last."""
    history = result.history
    return {
        "steps": result.num_steps,
        "clipped": float(clipping.clip_fraction(result.state.opt_state)),
        "validation": {
            name.removeprefix("val_"): float(values[np.isfinite(values)][-1])
            for name, values in history.items()
            if name.startswith("val_") and np.isfinite(values).any()
        },
        "test": {name: float(value) for name, value in result.test.items()},
    }


def _show_watched(console, folder: pathlib.Path):
    """Which layers drive the growth of the gradient's norm, if enough steps say so."""
    history = History.read(folder)
    console.print(f"watched: {len(history)} steps, {history.path}", soft_wrap=True)
    with contextlib.suppress(UserValueError):  # too few steps
        console.print(str(history.attribute()), soft_wrap=True, markup=False)


def _show(console, summary):
    console.print(f"steps: {summary['steps']}, clipped: {summary['clipped']:.2%}")
    for part in ("validation", "test"):
        if summary[part]:
            pairs = (f"{name} {value:.4f}" for name, value in summary[part].items())
            console.print(f"{part}: {', '.join(pairs)}")
