"""From a model and a batch to a report."""

import contextlib
import dataclasses
import math
import platform
import sys
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from gradstab import _tree
from gradstab.network import find_layers, propagate
from gradstab.network.adapters import as_target
from gradstab.records import Layer
from gradstab.report import GrowthPair, Report, judge
from gradstab.spectra import (
    coupled_layers,
    fit_growth,
    layer_recurrences,
    layer_spectrum,
)


def analyze(
    model,
    /,
    *args,
    loss=None,
    output=None,
    apply_kwargs=None,
    batched=True,
    examples=16,
    max_dense=1024,
    precision=None,
    seed=0,
    progress=True,
) -> Report:
    """Say what the gradients of a model do, layer by layer, and why.

    Layers are found by tracing; the model is not edited. Each layer's forward and
    backward signals are measured on the whole batch, the singular values of its
    Jacobian one by one for the first examples. Where a layer mixes examples (batch
    normalisation in training mode), its Jacobian is that of the whole batch.

    Args:
        model: an `nnx.Module`; a pair (linen module, variables); a callable pytree; or
            a function ``apply(params, *inputs) -> output``.
        *args: the inputs, examples on the leading axis; for a function its parameters
            first.
        loss: ``loss(output) -> scalar``, on the whole output as the model returns it.
            Without it each example gets one random unit cotangent, and there are no
            gradients of parameters.
        output: selects the differentiated array if the model returns several.
        apply_kwargs: keyword arguments of the model.
        batched: False if the model takes one example.
        examples: for how many examples Jacobians are computed.
        max_dense: Jacobians whose smaller side is above this are left out.
        precision: 'float64', or 'own' for the dtypes of the model. By default float64
            where the hardware has it, every floating parameter has at least 32 bits
            and the model can be traced so; the report says which.
        seed: of the random cotangents.
        progress: show a progress bar on standard error, if that is a terminal.

    Returns:
        The report, all its arrays in NumPy.

    Raises:
        TypeError: if the model is of no known kind, or inputs are missing.
        ValueError: if no differentiable path leads from the inputs to the output, or
            the output has several floating arrays and ``output`` is not given.

    Cost: two compiled programs per kind of layer, one gradient of the model, and for
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
    began = time.monotonic()
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")
    target = as_target(model, args, apply_kwargs=apply_kwargs, batched=batched)
    network, target, wide = _trace(target, output, loss, precision)
    with _arithmetic(wide):
        key = jax.random.key(seed)
        flow = propagate(network, *target[1:], loss=loss, key=key)
        layers, recurrences = [], []
        with _progress(progress, len(network.layers)) as advance:
            sizes = _sizes(network, target.params)
            limits = {"examples": examples, "max_dense": max_dense}
            coupled = coupled_layers(network, flow)
            for place, row, mixed in zip(
                network.layers, _rows(flow.signals), coupled, strict=True
            ):
                spectrum, note = layer_spectrum(
                    network, flow, place, coupled=mixed, **limits
                )
                layers.append(_layer(place, row, spectrum, mixed, note, sizes))
                recurrences += layer_recurrences(network, flow, place, **limits)
                advance(place.name)
        value = float(flow.loss)
    growth = _growth(layers)
    verdict, reasons = judge(layers, growth, recurrences)
    made = _made(_dtypes(network, target.params), seed, target, examples)
    return Report(
        layers=tuple(layers),
        growth=growth,
        recurrences=tuple(recurrences),
        verdict=verdict,
        reasons=reasons,
        loss=value,
        made={**made, "seconds": round(time.monotonic() - began, 3)},
    )


def _trace(target, output, loss, precision):
    """The network, the target in the precision used, and whether that is float64."""
    if precision not in (None, "float64", "own"):
        raise ValueError(f"precision must be 'float64', 'own' or None: {precision!r}")
    narrow = any(
        jnp.finfo(jnp.result_type(leaf)).bits < 32
        for leaf in _tree.floating_leaves(target.params)
    )
    wide = precision == "float64" or (
        precision is None and not narrow and jax.default_backend() != "tpu"
    )
    if wide:
        with _arithmetic(True):
            raised = target._replace(**_arrays(target, _to_float64))
            try:
                return _find(raised, output, loss), raised, True
            except (TypeError, jax.dtypes.TypePromotionError):
                # A model that fixes its dtypes inside cannot be widened from outside.
                if precision == "float64":
                    raise
    target = target._replace(**_arrays(target, jnp.asarray))
    with _arithmetic(False):
        return _find(target, output, loss), target, False


def _find(target, output, loss):
    network = find_layers(
        target.apply, target.params, target.inputs, state=target.state, output=output
    )
    if loss is not None:
        # A loss can fix dtypes as well: better known now than in the middle.
        jax.eval_shape(loss, network.program.output_shapes)
    return network


def _arrays(target, convert):
    # To look at a model is no use of its keys.
    fields = {name: getattr(target, name) for name in ("params", "state", "inputs")}
    return jax.tree.map(convert, _tree.fresh_keys(fields))


def _to_float64(leaf):
    return jnp.asarray(leaf, jnp.float64 if _tree.is_floating(leaf) else None)


@contextlib.contextmanager
def _arithmetic(wide):
    # The user's own arithmetic may be in float64 as well: that is left as it is.
    in_float64 = jax.enable_x64(True) if wide else contextlib.nullcontext()
    with in_float64, jax.default_matmul_precision("highest"):
        yield


@contextlib.contextmanager
def _progress(wanted, total):
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (wanted and console.is_terminal),
    ) as bar:
        task = bar.add_task("layers", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


def _rows(signals):
    """The signals of one layer after the other."""
    names = [field.name for field in dataclasses.fields(signals)]
    columns = {n: np.asarray(getattr(signals, n)) for n in names if n != "names"}
    for number in range(len(signals.names)):
        yield {name: column[number] for name, column in columns.items()}


def _sizes(network, params):
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    return dict(zip(network.program.param_names, shapes, strict=True))


def _layer(place, row, spectrum, coupled, note, sizes):
    norms = row.pop("gradient_norms")
    own = [
        sizes[name][1:] if name in place.sliced_params else sizes[name]
        for name in place.params
    ]
    return Layer(
        **{name: float(value) for name, value in row.items()},
        gradient_norm=norms,
        jacobian=spectrum,
        name=place.name,
        in_shape=place.in_shapes[0][1:] if len(place.in_shapes) == 1 else None,
        out_shape=place.out_shape[1:],
        params=place.params,
        num_params=sum(map(math.prod, own)),
        coupled=coupled,
        note=note,
    )


def _growth(layers):
    trunk = _trunk(layers)
    names = [layer.name for layer in trunk]
    return GrowthPair(
        forward=fit_growth([layer.forward_rms for layer in trunk], names),
        backward=fit_growth(np.stack([layer.gradient_norm for layer in trunk]), names),
    )


def _trunk(layers):
    """The longest run of layers with one output shape.

    A stem or a head of another shape would bend the law of the layers between. In a
    network that narrows from layer to layer no run is long; then all layers are taken,
    if they have one kind of shape: fan-in scaling keeps norms comparable over widths.
    """
    runs, start = [], 0
    for end in range(1, len(layers) + 1):
        if end == len(layers) or layers[end].out_shape != layers[start].out_shape:
            runs.append(layers[start:end])
            start = end
    longest = max(runs, key=len)
    same_rank = len({len(layer.out_shape) for layer in layers}) == 1
    return layers if len(longest) < 3 and same_rank else longest


def _made(dtypes, seed, target, examples):
    device = jax.devices()[0]
    return {
        **{name: metadata.version(name) for name in ("gradstab", "jax", "flax")},
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "precision": " and ".join(dtypes),
        "matmul_precision": "highest",
        "seed": seed,
        "batch": tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(target.inputs)),
        "jacobian_examples": examples,
        "command": " ".join(sys.argv),
    }


def _dtypes(network, params):
    """The dtypes of the parameters and of the data that pass between layers."""
    found = {str(jnp.result_type(leaf)) for leaf in _tree.floating_leaves(params)}
    return sorted(found | set(network.dtypes))
