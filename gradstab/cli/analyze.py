"""``gradstab analyze``."""

import jax
from rich.console import Console

from gradstab.analysis import analyze, initializations
from gradstab.cli.options import Train, from_json
from gradstab.cli.prepare import build_model, load_target, on_targets, prepare
from gradstab.cli.targets import keywords, selector
from gradstab.training import new_results_folder, read_config, restore


def run(options, /) -> int:
    """Analyse, print, write; returns the exit status."""
    _check(options)
    arguments, loss, output = _subject(options)
    report = analyze(
        *arguments,
        loss=loss,
        output=output,
        apply_kwargs=keywords(options.apply_kwargs or ()),
        batched=options.batched,
        boundaries=options.boundaries,
        ensemble=options.ensemble is not None,
        examples=options.examples,
        layers=options.layers,
        top_k=options.top_k,
        max_dense=options.max_dense,
        max_bytes=options.max_bytes,
        theory=options.theory,
        precision=options.precision,
        seed=options.seed,
        progress=options.progress,
    )
    console = Console()
    report.show(console)
    if options.plot is not None:
        report.plot().savefig(options.plot)
        console.print(f"plot: {options.plot}", soft_wrap=True)
    path = _path(options)
    report.save(path, overwrite=options.overwrite)
    console.print(f"report: {path}", soft_wrap=True)
    return 0


def _check(options):
    if options.mode not in ("train", "eval"):
        raise ValueError(f"--mode is train or eval, not {options.mode!r}")
    if options.target and options.checkpoint:
        raise ValueError("give a target or --checkpoint, but not both")
    of_target = options.output, options.apply_kwargs, options.batched or None
    if not options.target and of_target != (None, None, True):
        raise ValueError("--output, --apply-kwargs and --no-batched are of a target")
    if options.ensemble is not None and (options.target or options.checkpoint):
        raise ValueError("--ensemble is of a network as it is initialised")
    for path in (options.json, options.plot):
        if path is not None and path.exists() and not options.overwrite:
            raise FileExistsError(f"{path} exists; choose another name or --overwrite")


def _subject(options):
    """The arguments of `analyze`, the loss, and which output is differentiated."""
    if options.target:
        output = None if options.output is None else selector(options.output)
        return *load_target(options.target), output
    task, folder = _task(options)
    model = task.model
    if folder is not None:
        model = restore(folder, model, step=options.step)
    model.train() if options.mode == "train" else model.eval()
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


def _task(options):
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
    if options.out is None:
        return new_results_folder("results", "analyze") / "report.json"
    return options.out / "report.json"
