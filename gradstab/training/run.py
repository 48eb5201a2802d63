"""Train a model."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from gradstab import _checked
from gradstab._files import alone_in
from gradstab.errors import UserTypeError, UserValueError
from gradstab.training import checkpoints as ckpt
from gradstab.training import results
from gradstab.training.batches import batches_from, splits
from gradstab.training.damage import warn
from gradstab.training.evaluation import make_evaluation
from gradstab.training.interruption import deferred_signals
from gradstab.training.loop import Loop
from gradstab.training.losses import cross_entropy
from gradstab.training.metrics_log import MetricsLog
from gradstab.training.nonfinite import NonFiniteLossError
from gradstab.training.schedule import expect_count, make_schedule
from gradstab.training.step import (
    State,
    as_model,
    graphdefs,
    initial_state,
    make_steps,
)
from gradstab.training.view import view
from gradstab.training.watching import Watch, Watcher, as_watch, parted

# Settings that a resumed run must share with what it goes on with.
_SAME = ("steps_per_dispatch", "batch_size", "num_examples", "seed", "model", "loss")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        model: the trained model, in evaluation mode.
        state: its parameters, other arrays, optimiser state and step.
        history: one array ``(steps,)`` per name: ``step`` (from 1), ``loss``, the
            metrics and ``update_norm`` of every step, what `gradstab.clipping.recorded`
            saw, ``time`` in seconds, and ``val_loss`` etc., which are NaN at steps
            without a validation.
        test: loss and metrics on the test set; empty without one.
        num_steps: steps taken.
        directory: the run's folder, or None.
    """

    model: nnx.Module
    state: State
    history: dict[str, np.ndarray]
    test: dict[str, float]
    num_steps: int
    directory: pathlib.Path | None


def fit(
    model: Any,
    data,
    /,
    *,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    batch_size: int | None = None,
    loss: Callable = cross_entropy,
    metrics: dict[str, Callable] | None = None,
    seed: int = 0,
    steps_per_dispatch: int | None = None,
    validate_every: int | None = None,
    directory: str | pathlib.Path | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = 3,
    resume: bool = False,
    resume_step: int | None = None,
    overwrite: bool = False,
    init_from=None,
    progress: bool = True,
    tensorboard: bool = False,
    watch: Watch | int | bool | None = None,
    config: dict | None = None,
) -> Run:
    r"""Train a model; survive being killed; stop at the first step that is not finite.

    One step is :math:`\theta \leftarrow \theta + u(\nabla_\theta L(f_\theta(x), y))`
    with the optimiser's update :math:`u`. Several steps make one dispatch: a compiled
    loop over batches that are gathered on the device, whose metrics are read while the
    next one runs. Validation, checkpoints and the response to Ctrl-C and SIGTERM come
    between dispatches; a second signal ends the process at once.

    The result depends on ``model``, ``data``, ``seed`` and the settings of the step
    alone: a run that was killed at any moment and is resumed with the same arguments
    ends with bitwise the same state.

    Args:
        model: an `flax.nnx.Module`, called as ``model(x)``. It is not changed.
        data: a `gradstab.data.Dataset`, or any record with ``x_train`` and ``y_train``
            (and ``x_val``, ``x_test``, ...); a pair of arrays; or an iterable of
            batches ``(x, y)``, begun again when it ends. A resumed run draws and drops
            the batches of the steps already taken.
        optimizer: an optax transformation.
        num_steps: steps in all, those before a resumption included.
        batch_size: of arrays; every epoch is a new permutation. An iterable has its
            own.
        loss: ``loss(output, y)``, a scalar; see `cross_entropy`,
            `mean_squared_error`, `with_auxiliary`.
        metrics: functions like the loss, by name, measured at every step; `accuracy` if
            None and the targets are integers.
        seed: of the order of the examples. The model has random keys of its own.
        steps_per_dispatch: more of them cost less per step and react later. If None, as
            in the run to resume; else 50, or fewer where checkpoints, validations,
            watched steps or the end of the run come sooner.
        validate_every: validate at the first end of a dispatch at or after each
            multiple of it, and at the end; None for the end only.
        directory: the run's folder, for ``config.json``, ``metrics.jsonl`` (one line
            per step) and ``checkpoints``; None to write nothing.
        checkpoint_every: save likewise.
        keep: how many of the newest checkpoints to keep; None for all.
        resume: go on from the last checkpoint in the folder that is whole, or from
            the start if it has had none. A `DamageWarning` says what is damaged or
            lost. Checkpoints after that one are renamed, not deleted.
        resume_step: go on from the checkpoint of this step instead.
        overwrite: delete an earlier run in the folder.
        init_from: folder of another run, whose last checkpoint gives the parameters to
            start with; nothing else is taken from it.
        progress: show a progress bar, if the output is a terminal.
        tensorboard: also write TensorBoard's files.
        watch: a `Watch`, or True, or each how many steps to watch: their `Statistics`
            are written to ``history.jsonl`` in the folder, for `gradstab.History`, and
            shown. The run is bitwise the same; steps that are not watched are taken by
            the program of a run without.
        config: more settings to keep in ``config.json``.

    Returns:
        A `Run`.

    Raises:
        NonFiniteLossError: the loss or the update of a step was not finite. The state
            from before that step is saved, and is in the ``run`` of the error.
        FileExistsError: the folder is not empty, and neither ``resume`` nor
            ``overwrite``; or another run is writing into it.
        ValueError: settings that contradict each other or those of the resumed run.
        FileNotFoundError: a run to resume has lost its checkpoints.
        TypeError: a model, data or an optimiser that are none.
        OSError: the folder cannot be written, as when the disk is full. What is there
            stays whole, and the run can be resumed.
        KeyboardInterrupt: after Ctrl-C, once the dispatch has ended and its state is
            saved.
        SystemExit: likewise after SIGTERM, with status 143.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from gradstab.training import mean_squared_error
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> run = fit(model, (x, 3 * x + 1), loss=mean_squared_error,
        ...           optimizer=optax.sgd(0.3), num_steps=100, batch_size=16)
        >>> jax.tree.map(lambda a: round(a.item(), 3), run.state.params)
        {'bias': 1.0, 'kernel': 3.0}
    """
    if not isinstance(model, nnx.Module):
        raise UserTypeError(f"model must be an flax.nnx.Module, got {model!r}")
    _checked.transformation(optimizer, "optimizer")
    watch = as_watch(watch)
    examples = splits(data)
    expect_count("keep", keep)
    if resume_step is not None and not resume:
        raise UserValueError(f"resume_step={resume_step} needs resume=True.")
    folder = _folder(directory, resume, overwrite, checkpoint_every, tensorboard)
    with contextlib.ExitStack() as stack:
        if folder is not None and jax.process_index() == 0:
            stack.enter_context(alone_in(folder))
        before = _settings_before(folder)
        schedule = make_schedule(
            num_steps,
            before.get("steps_per_dispatch")
            if steps_per_dispatch is None
            else steps_per_dispatch,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            watch_every=watch and watch.every,
        )
        settings = dataclasses.asdict(schedule) | {
            "batch_size": batch_size,
            "num_examples": examples.num_train,
            "seed": seed,
            "keep": keep,
            "init_from": None if init_from is None else str(init_from),
            "model": type(model).__qualname__,
            "loss": getattr(loss, "__qualname__", repr(loss)),
        }
        _expect_same_run(folder, before, settings)
        state = _starting_state(model, optimizer, folder, init_from, resume_step)
        start = int(state.step)
        if start > num_steps:
            raise UserValueError(
                f"the run in {folder} has taken {start} steps, more than "
                f"num_steps={num_steps}; num_steps counts all steps of a run."
            )
        batches = batches_from(
            examples.train,
            batch_size=batch_size,
            seed=seed,
            steps_per_dispatch=schedule.steps_per_dispatch,
            first_step=start,
        )
        rows, mark_saved = [], None
        if folder is not None:
            aside = ckpt.set_aside(folder, start)
            if aside:
                warn(f"going on from {start}; kept beside it: {', '.join(aside)}")
            rows = results.recover_metrics(folder, start)
            content = {"settings": settings, "config": config or {}}
            content |= results.environment()
            mark_saved = _saving_marker(folder, content, saved=start > 0)

        in_training, in_evaluation = graphdefs(model)
        evaluation = make_evaluation(in_evaluation, loss=loss, metrics=metrics)
        interruption = stack.enter_context(deferred_signals())
        log = MetricsLog(folder, rows, tensorboard)
        stack.enter_context(contextlib.closing(log))
        make = functools.partial(
            make_steps, in_training, optimizer, loss=loss, metrics=metrics
        )
        watched = watch and make(value_and_grad=watch.value_and_grad)
        shown = stack.enter_context(view(progress, start, num_steps, bool(watch)))
        loop = Loop(
            graphdef=in_training,
            steps=parted(make(), watched, watch),
            batches=batches,
            schedule=schedule,
            loss=loss,
            validation=_on(examples.val, evaluation),
            log=log,
            watcher=Watcher(folder if watch else None, shown.show),
            checkpoints=folder
            and stack.enter_context(ckpt.Checkpoints(folder, keep, mark_saved)),
            advance=shown.advance,
            interruption=interruption,
        )

        def finished(state: Any, test):
            model = as_model(in_evaluation, state)
            return Run(model, state, log.history(), test, int(state.step), folder)

        try:
            state = loop.run(state)
        except NonFiniteLossError as error:
            error.run = finished(error.state, {})
            raise
        stopped = bool(interruption)
        test = {} if stopped else _on(examples.test, evaluation)(state)
        run = finished(state, test)
    # Not before the checkpoint is whole.
    if stopped:
        where = "nowhere: the run has no directory"
        if folder is not None:
            where = f"in {folder}; resume=True goes on from there"
        interruption.raise_if_asked(f"step {run.num_steps} is saved {where}")
    return run


def _folder(
    directory,
    resume: bool,
    overwrite: bool,
    checkpoint_every,
    tensorboard,
):
    if directory is not None:
        return results.open_folder(directory, resume=resume, overwrite=overwrite)
    if resume or overwrite or checkpoint_every or tensorboard:
        raise UserValueError(
            "resume, overwrite, checkpoint_every and tensorboard need directory=, the "
            "folder of the run."
        )
    return None


def _settings_before(folder):
    content = None if folder is None else results.read_config(folder)
    settings = content["settings"] if content else {}
    missing = [name for name in _SAME if name not in settings]
    if settings and missing:
        raise UserValueError(
            f"config.json in {folder} is damaged: its settings have no "
            f"{', '.join(missing)}."
        )
    return settings


def _saving_marker(folder: pathlib.Path, content, *, saved):
    """Write the settings, and after the first checkpoint that there has been one.

    Without that a run that has lost its checkpoints is one that had none yet.
    """
    before = results.read_config(folder) or {}
    marked = saved or before.get(results.SAVED) is True
    results.write_config(folder, content | {results.SAVED: marked})

    def mark():
        nonlocal marked
        if not marked:
            results.write_config(folder, content | {results.SAVED: True})
            marked = True

    return mark


def _expect_same_run(folder, before, settings):
    changed = [name for name in _SAME if before and before[name] != settings[name]]
    if changed:
        listed = ", ".join(
            f"{name}={before[name]!r} (now {settings[name]!r})" for name in changed
        )
        raise UserValueError(
            f"the run in {folder} was made with {listed}. A run is resumed with the "
            "settings it had; to go on with others start a new one with init_from=."
        )


def _starting_state(model: Any, optimizer, folder, init_from, step):
    state = initial_state(model, optimizer)
    if init_from is not None:
        state = ckpt.restore_params(init_from, state)
    if folder is None or (ckpt.latest(folder) is None and step is None):
        if folder is not None:
            _expect_none_lost(folder)
        return state
    return ckpt.restore_state(folder, state, step=step)


def _expect_none_lost(folder: pathlib.Path):
    """Raise if a run without checkpoints has had some."""
    content = results.read_config(folder) or {}
    lines = results.read_metrics(folder, gaps=True)
    lost = bool(lines) and not (folder / results.CHECKPOINTS).is_dir()
    if lost or content.get(results.SAVED) is True:
        raise FileNotFoundError(
            f"{folder} has lost its checkpoints, though {len(lines)} steps were taken. "
            f"Put the folder {results.CHECKPOINTS!r} back into it, or begin the run "
            "again in another folder, or in this one with overwrite."
        )


def _on(pair, evaluation):
    """The evaluation on one part of the data, as a function of the state."""
    if pair is None:
        return lambda state: {}
    x, y = jax.device_put(pair)
    return lambda state: evaluation(state.params, state.model_state, x, y)
