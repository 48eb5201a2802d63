"""From a model and a batch to a report."""

import dataclasses
import math
import platform
import sys
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.analysis.progress import progress_bar
from gradstab.analysis.subject import arithmetic, find_subject
from gradstab.analysis.trunk import trunk_growth
from gradstab.network import propagate
from gradstab.network.adapters import as_target
from gradstab.records import Layer
from gradstab.report import Report, judge
from gradstab.spectra import coupled_layers, layer_recurrences, layer_spectrum


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
    subject = find_subject(target, output=output, loss=loss, precision=precision)
    network = subject.network
    with arithmetic(subject.wide):
        key = jax.random.key(seed)
        flow = propagate(network, *subject.arrays, loss=loss, key=key)
        layers, recurrences = [], []
        with progress_bar(progress, len(network.layers)) as advance:
            sizes = _sizes(subject)
            limits = {"examples": examples, "max_dense": max_dense}
            coupled = coupled_layers(network, flow)
            for place, row, mixed in zip(
                network.layers, _rows(flow.signals), coupled, strict=True
            ):
                spectrum, note, _ = layer_spectrum(
                    network, flow, place, coupled=mixed, **limits
                )
                layers.append(_layer(place, row, spectrum, mixed, note, sizes))
                recurrences += layer_recurrences(network, flow, place, **limits)
                advance(place.name)
        value = float(flow.loss)
    growth = trunk_growth(layers)
    verdict, reasons = judge(layers, growth, recurrences)
    made = _made(subject, seed, examples)
    return Report(
        layers=tuple(layers),
        growth=growth,
        recurrences=tuple(recurrences),
        verdict=verdict,
        reasons=reasons,
        loss=value,
        made={**made, "seconds": round(time.monotonic() - began, 3)},
    )


def _rows(signals):
    """The signals of one layer after the other."""
    names = [field.name for field in dataclasses.fields(signals)]
    columns = {n: np.asarray(getattr(signals, n)) for n in names if n != "names"}
    for number in range(len(signals.names)):
        yield {name: column[number] for name, column in columns.items()}


def _sizes(subject):
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(subject.target.params)]
    return dict(zip(subject.network.program.param_names, shapes, strict=True))


def _layer(place, row, spectrum, coupled, note, sizes):
    norms, cut = row.pop("gradient_norms"), bool(row.pop("disconnected"))
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
        disconnected=cut,
        note=note,
    )


def _made(subject, seed, examples):
    device = jax.devices()[0]
    return {
        **{name: metadata.version(name) for name in ("gradstab", "jax", "flax")},
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "precision": " and ".join(subject.dtypes),
        "matmul_precision": "highest",
        "seed": seed,
        "batch": tuple(
            jnp.shape(leaf) for leaf in jax.tree.leaves(subject.target.inputs)
        ),
        "jacobian_examples": examples,
        "command": " ".join(sys.argv),
    }
