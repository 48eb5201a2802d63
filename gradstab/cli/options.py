"""The options of the command line: plain values, as they are kept in config.json."""

import dataclasses
import pathlib
import types
import typing

import tyro

from gradstab._model_options import ModelOptions
from gradstab.errors import UserValueError


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The data."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, adding, copy-memory or temporal-order."""
    data_dir: pathlib.Path | None = None
    """Folder of the MNIST files; GRADSTAB_DATA_DIR by default."""
    time_steps: int | None = None
    """Length of a generated task, or pieces that an image is cut into."""
    num_train: int | None = None
    """Use the first so many training examples only."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where and how to run."""

    seed: int = 0
    """Of the model and of the order of the examples."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    out: pathlib.Path | None = None
    """Results folder; a new numbered one under results/ by default."""
    overwrite: bool = False
    """Replace the results in the folder."""
    progress: bool = True
    """Show a progress bar on a terminal; elsewhere a line every half minute."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""
    quiet: bool = False
    """Print errors and warnings only."""
    verbose: bool = False
    """Print the whole traceback of an error."""


@dataclasses.dataclass(frozen=True)
class SubjectOptions:
    """What is analysed, if not a new model of gradstab's own."""

    output: str | None = None
    """Which array of the target's result is differentiated: a path in it (0, logits,
    0.loc), or module:function that takes the result; the only one by default."""
    batched: bool = True
    """Whether the target takes a batch; else one example."""
    apply_kwargs: tuple[str, ...] | None = None
    """Keyword arguments of the target, such as train=False rate=0.1; none by
    default."""
    checkpoint: pathlib.Path | None = None
    """Folder of a training run: analyse its model, on its data."""
    step: int | None = None
    """Which checkpoint of the run; the last by default."""


@dataclasses.dataclass(frozen=True)
class MeasureOptions:
    """What is measured, and how closely."""

    batch_size: int = 64
    """Examples that are sent through."""
    mode: str = "train"
    """train or eval: batch statistics of the batch, or the running ones; dropout."""
    examples: int | None = None
    """Examples whose Jacobians are decomposed; 16 by default, where affordable."""
    layers: tuple[str, ...] | None = None
    """Layers whose Jacobians are computed: names, or one regular expression that names
    match as a whole; all by default."""
    top_k: int | None = None
    """How many singular values and exponents; all by default, where affordable."""
    max_dense: int = 1024
    """Jacobians whose smaller side is above this are known by products only."""
    max_bytes: int = 2**28
    """Bytes of Jacobians at work at a time."""
    max_seconds: float = 600.0
    """How long the analysis may take by its estimate; what is not asked for is chosen
    accordingly."""
    boundaries: tuple[str, ...] | None = None
    """Regular expressions over parameter paths: where to cut layers; found by
    default."""
    ensemble: int | None = None
    """Analyse so many initialisations together, for means and standard errors; one by
    default."""
    theory: bool = True
    """Set mean-field theory beside the measurement."""
    precision: str | None = None
    """float64, or own for the model's own; float64 where possible by default."""
    spectra_on: str = "auto"
    """device, beside the Jacobians, or host, by LAPACK: where singular values are
    computed; auto is an accelerator, if there is one."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What is written."""

    json: pathlib.Path | None = None
    """Write the report to this file instead of a results folder by default; - is
    standard output."""
    plot: pathlib.Path | None = None
    """Draw the report to this file (.png, .svg, .pdf); not drawn by default."""
    fail_on: tuple[str, ...] | None = None
    """Verdicts for which the exit status is 1, such as exploding broken; none by
    default."""


@dataclasses.dataclass(frozen=True)
class Analyze(
    RunOptions, ReportOptions, MeasureOptions, SubjectOptions, DataOptions, ModelOptions
):
    """Say what the gradients of a network do, layer by layer.

    Without arguments: a 20-layer sigmoid network on real digits, as it is initialised.
    """

    target: tyro.conf.Positional[str | None] = None
    """module:function that returns (apply, params, inputs[, loss]) or (model, inputs[,
    loss]), to analyse that instead of a model of gradstab's own by default."""


@dataclasses.dataclass(frozen=True)
class Train(RunOptions, DataOptions, ModelOptions):
    """Train a network, with checkpoints that a killed run resumes from bitwise."""

    steps: int | None = None
    """Training steps; 1000 by default."""
    epochs: int | None = None
    """Passes over the training data, instead of steps."""
    batch_size: int = 128
    """Examples per step."""
    optimizer: str = "sgd"
    """sgd, momentum, adam or adamw."""
    learning_rate: float = 0.01
    """Constant learning rate."""
    clip: str | None = None
    """value, global-norm, layer-norm, block-rms, adaptive, percentile or zscore."""
    clip_threshold: float | None = None
    """Threshold of the clipping."""
    l1: float = 0.0
    """Weight of an L1 penalty on the weights."""
    l2: float = 0.0
    """Weight of an L2 penalty on the weights."""
    skip_nonfinite: bool = False
    """Leave out steps whose gradient is not finite."""
    aux_weight: float = 0.3
    """Weight of the loss of each auxiliary head."""
    pretrain_steps: int = 0
    """Steps of greedy layer-wise pre-training, for each hidden layer of an mlp."""
    pretrain_corruption: float = 0.0
    """Share of inputs that the autoencoders of the pre-training do not see."""
    steps_per_dispatch: int | None = None
    """Steps that are compiled into one call."""
    validate_every: int | None = None
    """Validate after so many steps; at the end by default."""
    checkpoint_every: int | None = None
    """Save after so many steps; at the end by default."""
    keep: int | None = None
    """How many of the newest checkpoints to keep; all by default."""
    init_from: pathlib.Path | None = None
    """Folder of a run whose last parameters to start from."""
    resume: pathlib.Path | None = None
    """Folder of a run to go on with, with the options it was started with."""
    step: int | None = None
    """Which checkpoint of it to go on from; the last whole one by default."""
    tensorboard: bool = False
    """Write TensorBoard's files too."""
    watch: bool = False
    """Write the statistics of every layer to history.jsonl, and show the norms of its
    gradients, layer by step. The run is bitwise the same."""
    watch_every: int | None = None
    """Watch one step for so many; every step by default."""
    watch_level: str | None = None
    """light, or full for means, zeros and exponents too; light by default."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """Take a step of a training run again, bitwise, and say what was seen in it.

    The step that failed, or any other. Prints the statistics of every layer and, if
    something is not finite, the first layer, the operation and its line. Exit status: 1
    if the step is not, bit for bit, what it was in the run.
    """

    directory: tyro.conf.Positional[pathlib.Path]
    """Folder of a run of gradstab train."""
    step: int | None = None
    """Which step, from 1; the one that failed by default."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    verbose: bool = False
    """Print the whole traceback of an error."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""


@dataclasses.dataclass(frozen=True)
class CompareGradients:
    """Compare the gradients of two checkpoints, or of two configurations of one.

    The same batches go through both, nothing is updated, and each layer is said to be
    bitwise equal, the same within noise, or different, with the noise between batches
    as the yardstick. In Python: gradstab.compare_gradients, of any two functions.
    """

    a: tyro.conf.Positional[pathlib.Path]
    """Folder of a run of gradstab train; its data are what both are given."""
    b: tyro.conf.Positional[pathlib.Path | None] = None
    """Folder of another run whose parameters have the same names and shapes; the same
    run by default."""
    batches: int = 16
    """How many batches: those that A would train on next."""
    batch_size: int | None = None
    """Examples in a batch; as many as A was trained with by default."""
    step_a: int | None = None
    """Which checkpoint of A; the last by default."""
    step_b: int | None = None
    """Which checkpoint of B; the last by default."""
    with_a: tuple[str, ...] | None = None
    """What A is run with instead: dtype=bfloat16 of the computation,
    matmul_precision=highest, devices=4 that share the batch, or an option of its model,
    such as activation=relu; nothing by default."""
    with_b: tuple[str, ...] | None = None
    """What B is run with instead; nothing by default."""
    json: pathlib.Path | None = None
    """Write the comparison to this file; - is standard output; not written by
    default."""
    overwrite: bool = False
    """Replace that file."""
    fail_on: tuple[str, ...] | None = None
    """Exit status 1 if a layer differs (differs) or if that cannot be told (unknown);
    none by default."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    quiet: bool = False
    """Print errors and warnings only."""
    verbose: bool = False
    """Print the whole traceback of an error."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Check derivatives, and say what to mend.

    Exit status: 0 if all pass; 1 if a derivative is wrong; else 3 if a case could not
    be checked, because it raises (the others are checked all the same); else 2, with
    --strict, if an error could have gone unnoticed. 2 is also for misuse.
    """

    target: tyro.conf.Positional[str]
    """module:function that returns {name: (f, args)} or {name: (f, args, options)}, the
    options being those of gradstab.check."""
    only: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Patterns of the names of the cases to check, such as "attention*"; may be given
    several times."""
    rtol: float | None = None
    """The relative error that must not go unnoticed; 1e-6 in float64, 1e-2 in float32
    by default."""
    exhaustive: bool = False
    """Compare the whole Jacobians."""
    max_seconds: float | None = None
    """The time for all cases together, of which each has an equal share of what those
    before it have left; a case that is not done then is inconclusive. No limit by
    default."""
    strict: bool = False
    """Exit status 2 if an error could have gone unnoticed."""
    seed: int = 0
    """Of the random directions."""
    verbose: bool = False
    """Print where in the code a case raised."""
    quiet: bool = False
    """Print errors only."""
    json: pathlib.Path | None = None
    """Write the results to this file, with the traceback of each case that raised; - is
    standard output; not written by default."""
    overwrite: bool = False
    """Replace that file."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Say what there is: versions, devices, memory, precision, data, caches.

    What to send with a question. Exit status 1 if something that is needed is missing.
    """

    data_dir: pathlib.Path | None = None
    """Folder of the MNIST files; GRADSTAB_DATA_DIR by default."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    verbose: bool = False
    """Print the whole traceback of an error."""


def model_settings(options, /) -> dict:
    """The options of the model that were given, but its kind."""
    fields = dataclasses.fields(ModelOptions)
    values = {field.name: getattr(options, field.name) for field in fields[1:]}
    return {name: value for name, value in values.items() if value is not None}


def given(options, kinds, /) -> list[str]:
    """The options of some groups that differ from their defaults, as they are typed."""
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    return [
        ("--no-" if field.default is True else "--") + field.name.replace("_", "-")
        for field in fields
        if getattr(options, field.name) != field.default
    ]


def as_json(options, /) -> dict:
    """All options as JSON values."""
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in dataclasses.asdict(options).items()
    }


def from_json(kind, values, /):
    """Options from JSON values; names that this version does not have are refused.

    Raises:
        ValueError: for a name that is no option, or a value of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    strangers = sorted(set(values) - set(fields))
    if strangers:
        raise UserValueError(
            f"config.json has options that this version does not know: "
            f"{', '.join(strangers)}"
        )
    options = kind(**{name: _typed(fields[name], v) for name, v in values.items()})
    for name, expected in typing.get_type_hints(kind).items():
        value = getattr(options, name)
        if not fits(value, expected):
            text = getattr(expected, "__name__", str(expected))
            raise UserValueError(
                f"config.json is damaged: its option {name} is {value!r}, expected "
                f"{text}"
            )
    return options


def fits(value, kind, /) -> bool:
    """Whether a value is of the type that an option is annotated with."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, each) for each in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(v, arguments[0]) for v in value)
    if kind in (int, float):
        return type(value) in ((int,) if kind is int else (int, float))
    return isinstance(value, kind)


def _typed(field, value):
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and "Path" in str(field.type):
        return pathlib.Path(value)
    return value
