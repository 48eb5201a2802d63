"""``gradstab train``."""

import dataclasses
import json

import numpy as np
from rich.console import Console

from gradstab import clipping, training
from gradstab.cli.options import Train, as_json, from_json
from gradstab.cli.prepare import prepare


def run(options, /) -> int:
    """Train, print the result, keep it; returns the exit status."""
    console = Console()
    if options.resume is not None:
        options = _resumed(options)
    task = prepare(options, aux_weight=options.aux_weight)
    num_steps = _num_steps(options, len(task.data.x_train))
    folder = _folder(options)
    console.print(f"results: {folder}", soft_wrap=True)
    model = _pretrained(task, options, folder)
    try:
        result = training.fit(
            model,
            task.data,
            loss=task.loss,
            optimizer=_optimizer(options),
            num_steps=num_steps,
            batch_size=options.batch_size,
            seed=options.seed,
            steps_per_dispatch=options.steps_per_dispatch,
            validate_every=options.validate_every,
            checkpoint_every=options.checkpoint_every,
            keep=options.keep,
            directory=folder,
            resume=options.resume is not None,
            overwrite=options.overwrite or options.out is None,
            init_from=options.init_from,
            progress=options.progress,
            tensorboard=options.tensorboard,
            config=as_json(dataclasses.replace(options, resume=None)),
        )
    except training.NonFiniteLossError as error:
        console.print(f"stopped: {error}", style="red", soft_wrap=True)
        return 1
    summary = _summary(result)
    (folder / "result.json").write_text(json.dumps(summary, indent=1) + "\n")
    _show(console, summary)
    return 0


def _resumed(options):
    """The options that the run was started with, and where it lies."""
    config = training.read_config(options.resume)
    if config is None:
        raise FileNotFoundError(
            f"{options.resume} has no config.json: give the folder of a run to resume"
        )
    started = from_json(Train, config["config"])
    length = {"steps": options.steps, "epochs": options.epochs}
    return dataclasses.replace(
        started,
        resume=options.resume,
        platform=options.platform,
        progress=options.progress,
        **(length if any(length.values()) else {}),
    )


def _num_steps(options, num_examples):
    if options.steps is not None and options.epochs is not None:
        raise ValueError("give --steps or --epochs, but not both")
    if options.epochs is not None:
        return options.epochs * (num_examples // options.batch_size)
    return 1000 if options.steps is None else options.steps


def _folder(options):
    if options.resume is not None:
        return options.resume
    if options.out is not None:
        return options.out
    return training.new_results_folder("results", "train")


def _pretrained(task, options, folder):
    begun = options.resume is not None and training.latest(folder) is not None
    if not options.pretrain_steps or begun:
        return task.model
    return training.pretrain(
        task.model,
        task.data.x_train,
        optimizer=_optimizer(options),
        num_steps=options.pretrain_steps,
        batch_size=options.batch_size,
        corruption=options.pretrain_corruption,
        seed=options.seed,
        progress=options.progress,
    ).model


def _optimizer(options):
    return training.build(
        options.optimizer,
        options.learning_rate,
        clip=options.clip,
        threshold=options.clip_threshold,
        l1=options.l1,
        l2=options.l2,
        skip_nonfinite=options.skip_nonfinite,
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


def _show(console, summary):
    console.print(f"steps: {summary['steps']}, clipped: {summary['clipped']:.2%}")
    for part in ("validation", "test"):
        if summary[part]:
            pairs = (f"{name} {value:.4f}" for name, value in summary[part].items())
            console.print(f"{part}: {', '.join(pairs)}")
