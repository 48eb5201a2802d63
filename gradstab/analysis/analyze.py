"""From a model and a batch to a report."""

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab._checked import number, one_of, truth
from gradstab._checked import seed as checked_seed
from gradstab.analysis.beside import beside_ensemble
from gradstab.analysis.budget import Asked, make_plan, say, too_large_for_float64
from gradstab.analysis.cost import Cost
from gradstab.analysis.ensemble import ensemble_signals, summarize
from gradstab.analysis.initialization import ensemble_size, member
from gradstab.analysis.layers import measure_layers, with_cosines
from gradstab.analysis.missing import with_reasons
from gradstab.analysis.progress import progress_bar
from gradstab.analysis.selection import Limits, checked_limits, select_layers
from gradstab.analysis.subject import (
    Subject,
    arithmetic,
    find_subject,
    takes_one_example,
    time_for_examples,
)
from gradstab.analysis.trunk import Trunk, expected_growth, find_trunk, trunk_growth
from gradstab.errors import UserTypeError, UserValueError
from gradstab.network import propagate
from gradstab.network.adapters import as_target
from gradstab.network.runs import NetworkRun
from gradstab.network.trained import trained_only
from gradstab.program.keys import keys_of
from gradstab.records import Prediction, Recurrence, Signals
from gradstab.report import (
    Ensemble,
    GrowthPair,
    Report,
    judge,
    ranges,
    ranges_along_time,
)
from gradstab.spectra import find_examples, product_exponents
from gradstab.theory import predict

_OURS = int.from_bytes(b"grad", "big")


def analyze(
    model: Any,
    /,
    *args: Any,
    loss: Callable[..., Any] | None = None,
    output: Any = None,
    apply_kwargs: Mapping[str, Any] | None = None,
    batched: bool = True,
    boundaries: Sequence[str] | None = None,
    ensemble: bool = False,
    examples: int | None = None,
    layers: Any = None,
    top_k: int | None = None,
    max_dense: int = 1024,
    max_bytes: float = 2**28,
    max_seconds: float = 600.0,
    theory: bool = True,
    precision: str | None = None,
    spectra_on: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Say what the gradients of a model do, layer by layer, and why.

    Layers are found by tracing; the model is not edited. Each layer's forward and
    backward signals are measured on the whole batch, the singular values of its
    Jacobian one by one for the first examples. Where a layer mixes examples (batch
    normalisation in training mode), its Jacobian is that of the whole batch. Beside the
    measurement stands what mean-field theory predicts for weights of the same variance.
    Complex numbers count as two real ones; of them theory says nothing.

    Args:
        model: an `nnx.Module`; a pair (linen module, variables); a callable pytree; or
            a function ``apply(params, *inputs) -> output``. Of what it holds,
            floating arrays count as parameters, but for running statistics (see
            `gradstab.network.trained`).
        *args: the inputs, examples on the leading axis; for a function its parameters
            first.
        loss: ``loss(output) -> scalar``, on the whole output as the model returns it.
            Without it each example gets one random unit cotangent, and there are no
            gradients of parameters.
        output: selects the differentiated array if the model returns several.
        apply_kwargs: keyword arguments of the model.
        batched: False if the model takes one example.
        boundaries: regular expressions over parameter paths and names given by
            `jax.ad_checkpoint.checkpoint_name`: where to cut a model whose layers skips
            or streams tie together. By default such places are found; an empty tuple
            leaves those layers whole. See `gradstab.network.find_layers`.
        ensemble: whether parameters and state have a leading axis over initialisations,
            as `gradstab.initializations` makes them. Signals and growth are then those
            of all of them, and theory is compared with these; Jacobians are those of
            the first.
        examples: for how many examples Jacobians are computed. By default 16, or fewer
            where the analysis would take more than ``max_seconds`` or half of the
            memory at hand; what is given is done, and its cost said beforehand.
        layers: the layers whose Jacobians are computed: a regular expression that their
            names match as a whole, or a sequence of names and positions; all of them by
            default.
        top_k: how many singular values and exponents. By default all values of
            Jacobians that are written out; fewer where that would take too long.
        max_dense: Jacobians whose smaller side is above this are not written out: the
            largest values are found by products with vectors, with error bounds.
        max_bytes: of Jacobians at work at a time, about; the work is split to fit.
        max_seconds: how long the analysis may take by its estimate. What is not given
            (``examples``, ``top_k``, ``layers``, ``precision``) is chosen accordingly;
            standard error and the report's notes say what was left out.
        theory: whether to set mean-field theory beside the measurement; see
            `gradstab.theory.predict`.
        precision: 'float64', or 'own' for the dtypes of the model. By default float64
            where the hardware has it, every floating parameter has at least 32 bits,
            the model can be traced so and its signals take less than 4 GiB; the report
            says which.
        spectra_on: where singular values and exponents are computed: 'device', beside
            the Jacobians, which never leave it; 'host', by LAPACK; or 'auto', on an
            accelerator if there is one and they are not small.
        seed: of the random cotangents and probes.
        progress: show a progress bar on standard error, if that is a terminal, or in a
            notebook. It begins with an estimate of time and memory.

    Returns:
        The report, all its arrays in NumPy.

    Raises:
        TypeError: if the model is of no known kind, or inputs are missing.
        ValueError: if no differentiable path leads from the inputs to the output, or
            the output has several floating arrays and ``output`` is not given.
        KeyError: if ``layers`` has a name that there is not.
        MemoryError: if the signals do not fit into the memory at hand.

    Cost: some compiled programs per kind of layer, one gradient of the model, and for
    each layer as many Jacobian products as its smaller side, and one singular value
    decomposition per example.

    Examples:
        >>> import jax.numpy as jnp
        >>> def apply(params, x):
        ...     for w in params:
        ...         x = x @ w
        ...     return x
        >>> report = analyze(apply, [0.5 * jnp.eye(4)] * 20, jnp.ones((3, 4)))
        >>> report.verdict, round(report.growth.forward.factor, 6)
        ('vanishing', 0.5)
    """
    _check(loss, output, apply_kwargs, boundaries, max_seconds, seed, precision)
    for name, value in {
        "batched": batched,
        "ensemble": ensemble,
        "theory": theory,
        "progress": progress,
    }.items():
        truth(value, name)
    checked_limits(
        16 if examples is None else examples, top_k, max_dense, max_bytes, spectra_on
    )
    asked = Asked(
        examples,
        top_k,
        layers,
        precision,
        theory,
        max_dense,
        max_bytes,
        max_seconds,
        spectra_on,
    )
    options = {"output": output, "loss": loss, "boundaries": boundaries}
    call = {"apply_kwargs": apply_kwargs, "batched": batched}
    with progress_bar(progress) as bar:
        return _analyze(model, args, call, asked, bar, seed, ensemble, **options)


def _check(
    loss: Callable[..., Any] | None,
    output: Callable[..., Any] | None,
    apply_kwargs: Mapping[str, Any] | None,
    boundaries: Iterable[str] | None,
    max_seconds: float,
    seed: int,
    precision: str | None,
) -> None:
    """Refuses at once what cannot be called, or measured with."""
    for name, value, form in (
        ("loss", loss, "loss(output) -> scalar"),
        ("output", output, "output(result) -> the array that is differentiated"),
    ):
        if value is not None and not callable(value):
            raise UserTypeError(f"{name} must be a function {form}, got {value!r}")
    if apply_kwargs is not None and not isinstance(apply_kwargs, Mapping):
        raise UserTypeError(f"apply_kwargs must be a dict, got {apply_kwargs!r}")
    if not isinstance(boundaries, (str, Iterable, type(None))):
        raise UserTypeError(
            f"boundaries must be regular expressions, got {boundaries!r}"
        )
    number(max_seconds, "max_seconds", above=0)
    checked_seed(seed)
    one_of(precision, "precision", ("float64", "own", None))


def _analyze(
    model: Any, args: tuple, call, asked: Asked, bar, seed: int, ensemble, **options
) -> Report:
    loss = options["loss"]
    began = time.monotonic()
    target = as_target(model, args, **call)
    target, not_trained = trained_only(target, model)
    every = (target.params, target.state)
    if ensemble:
        ensemble_size(*every)
        first, state = member(every, 0)
        target = target._replace(params=first, state=state)
    try:
        subject = find_subject(target, precision=asked.precision, **options)
    except (TypeError, ValueError) as error:
        if call["batched"] and takes_one_example(target):
            raise UserValueError(
                "the model does not run for the whole batch, but for each of its "
                f"examples: give batched=False ({error})"
            ) from error
        raise
    narrowed = ()
    if too_large_for_float64(subject, asked, loss is not None):
        subject = find_subject(target, precision="own", **options)
        narrowed = ("in the precision of the model: its signals in float64 are large",)
    network = subject.network
    plan = make_plan(
        subject, select_layers(network.names, asked.layers), asked, loss is not None
    )
    limits, wanted, cost = plan.limits, plan.wanted, plan.cost
    along = time_for_examples(network)
    fewer = ""
    if asked.examples is not None and limits.examples > network.num_examples:
        fewer = f"examples={limits.examples}: the batch has {network.num_examples}"
    limits = limits._replace(examples=min(limits.examples, network.num_examples))
    said = (*narrowed, *filter(None, [along, fewer]), *plan.notes)
    say(said)
    bar.begin(len(wanted), str(cost))
    with arithmetic(subject.wide):
        # No weights were drawn with these keys: those come from small seeds as well.
        keys = keys_of(seed, 4, apart=_OURS)
        run = propagate(network, *subject.arrays, loss=loss, key=keys[0], whole=False)
        trunk = find_trunk(network)
        summary = _one(run, trunk)
        if ensemble:
            summary = _over_all(subject, every, loss, trunk, keys[1])
        if any(wanted):
            run = find_examples(run, subject.single())
        measured = measure_layers(
            subject,
            run,
            summary.signals,
            wanted,
            limits,
            key=keys[2],
            advance=bar.advance,
        )
        if loss is not None and any(wanted):
            measured = with_cosines(measured, run, limits)
        layers = with_reasons(measured.layers, network, loss=loss is not None)
        measured = measured._replace(layers=layers)
        exponents, note = None, "only some layers were asked for"
        if asked.layers is None:
            note = "not without the Jacobians of all layers"
        if all(wanted):
            product = product_exponents(
                run,
                examples=limits.examples,
                top_k=limits.top_k,
                max_bytes=limits.max_bytes,
                spectra_on=limits.spectra_on,
                jacobians=measured.jacobians,
            )
            exponents, note = product.exponents, product.note
        prediction = None
        if plan.redraws is not None:
            prediction = predict(run, redraws=plan.redraws, key=keys[3])
    narrowest = min(subject.dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
    verdict, reasons = judge(
        measured.layers,
        summary.growth,
        measured.recurrences,
        dtypes=subject.own_dtypes,
        precision=narrowest,
        expected=expected_growth(prediction, trunk),
    )
    seconds = time.monotonic() - began
    return Report(
        layers=measured.layers,
        growth=summary.growth,
        recurrences=tuple(map(_with_ranges, measured.recurrences)),
        verdict=verdict,
        reasons=reasons,
        loss=summary.loss,
        made=_made(subject, seed, limits, cost) | {"seconds": round(seconds, 3)},
        theory=_comparable(prediction, summary.ensemble),
        ranges=ranges(measured.layers, summary.growth, precision=narrowest),
        ensemble=summary.ensemble,
        exponents=None if exponents is None else exponents.values,
        exponent_errors=None if exponents is None else exponents.errors,
        notes=(
            *not_trained,
            *network.notes,
            *trunk.notes,
            *_notes(subject, summary, note, prediction),
            *said,
        ),
    )


def _with_ranges(recurrence: Recurrence) -> Recurrence:
    return dataclasses.replace(recurrence, ranges=ranges_along_time(recurrence))


class _Summary(NamedTuple):
    """The signals of one initialisation, or of all of an ensemble."""

    signals: Signals
    growth: GrowthPair
    loss: float
    ensemble: Ensemble | None


def _one(run: NetworkRun, trunk: Trunk) -> _Summary:
    growth = trunk_growth(run.signals, trunk)
    return _Summary(run.signals, growth, float(run.loss), None)


def _over_all(
    subject: Subject,
    every: Any,
    loss: Callable[..., Any] | None,
    trunk: Trunk,
    key: jax.Array,
) -> _Summary:
    network, inputs = subject.network, subject.target.inputs
    params, state = subject.cast(every)
    draws = ensemble_signals(network, params, state, inputs, loss=loss, key=key)
    signals, ensemble, growth = summarize(draws, trunk)
    return _Summary(signals, growth, float(jnp.mean(draws.loss)), ensemble)


def _comparable(prediction: Prediction | None, ensemble: Ensemble | None):
    """The theory, if it has something to say, beside what was measured."""
    if prediction is None or not np.isfinite(prediction.chi).any():
        return None
    return prediction if ensemble is None else beside_ensemble(prediction, ensemble)


def _notes(
    subject: Subject, summary: _Summary, exponents: str, prediction: Prediction | None
) -> tuple[str, ...]:
    notes = [f"growth exponents: {exponents}"] if exponents else []
    if prediction is not None and not np.isfinite(prediction.chi).any():
        notes += dict.fromkeys(filter(None, prediction.notes))
    if subject.narrow:
        notes.append(
            f"computed in {' and '.join(subject.dtypes)}: the model cannot be traced "
            f"in float64 ({subject.narrow})"
        )
    if summary.ensemble is not None:
        notes.append(
            f"signals and growth over {summary.ensemble.num_seeds} initialisations; "
            "Jacobians of the first"
        )
    return tuple(notes)


def _made(subject: Subject, seed: int, limits: Limits, cost: Cost) -> dict[str, Any]:
    device = jax.devices()[0]
    inputs = jax.tree.leaves(subject.target.inputs)
    return {
        **{name: metadata.version(name) for name in ("gradstab", "jax", "flax")},
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "precision": " and ".join(subject.dtypes),
        "own_precision": " and ".join(subject.own_dtypes),
        "matmul_precision": "highest",
        "seed": seed,
        "batch": tuple(map(jnp.shape, inputs)),
        "jacobian_examples": limits.examples,
        "spectra_on": limits.spectra_on,
        "estimate": str(cost),
        "command": " ".join(sys.argv),
    }
