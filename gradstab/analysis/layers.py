"""The layers of a report: their signals, and their Jacobians one after the other."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _tree
from gradstab.network.activations import unread
from gradstab.network.cosines import gradient_cosines
from gradstab.program.keys import split_key
from gradstab.records import Layer, Recurrence
from gradstab.spectra import (
    ExampleFunctions,
    LayerSpectrum,
    alignment,
    layer_recurrences,
    layer_spectrum,
)

_LEFT_OUT = LayerSpectrum(None, "")


class Measured(NamedTuple):
    """What was measured of the layers, in depth order."""

    layers: tuple[Layer, ...]
    recurrences: tuple[Recurrence, ...]


def measure_layers(
    subject, flow, signals, known: ExampleFunctions, wanted, limits, /, *, key, advance
) -> Measured:
    """The records of all layers.

    Args:
        subject: from `find_subject`.
        flow: from `propagate`.
        signals: those to report, which are the flow's own but for an ensemble.
        known: from `example_functions`.
        wanted: for every layer whether its Jacobian is computed.
        limits: of the analysis.
        key: of random probes.
        advance: called with the name of every layer that is done.
    """
    network, sizes = subject.network, _sizes(subject)
    keys = split_key(key, len(network.layers))
    layers, recurrences, before = [], [], None
    for i, row in enumerate(_rows(signals)):
        place, found = network.layers[i], _LEFT_OUT
        if wanted[i]:
            found = layer_spectrum(
                network,
                flow,
                place,
                coupled=known.coupled[i],
                example=known.functions[i],
                vectors=True,
                key=keys[i],
                **limits._asdict(),
            )
        recurrences += layer_recurrences(
            network,
            flow,
            place,
            examples=limits.examples,
            max_dense=limits.max_dense if wanted[i] else 0,
            spectra_on=limits.spectra_on,
        )
        aligned = before and found.leading and alignment(before, found.leading)
        before = found.leading
        layer = _layer(place, row, found, known.coupled[i], sizes)
        if math.isnan(layer.dead_fraction):
            reasons = layer.note, unread(network.blocks[place.block])
            note = "; ".join(filter(None, reasons))
            layer = dataclasses.replace(layer, note=note)
        layers.append(dataclasses.replace(layer, alignment=aligned))
        advance(place.name)
    return Measured(tuple(layers), tuple(recurrences))


def nothing_known(network, /) -> ExampleFunctions:
    """What is known of examples where no Jacobian is wanted: not even couplings."""
    num = len(network.layers)
    return ExampleFunctions((None,) * num, (None,) * num)


def with_cosines(measured, subject, flow, known, limits, /) -> Measured:
    """The layers with the cosines of the examples' gradients of their parameters.

    Args:
        measured: from `measure_layers`.
        subject: from `find_subject`.
        flow: from `propagate` with a loss.
        known: from `example_functions`.
        limits: of the analysis.
    """
    found = gradient_cosines(
        subject.network,
        flow,
        *subject.arrays,
        examples=limits.examples,
        functions=known.functions,
    )
    layers = [
        dataclasses.replace(layer, gradient_cosines=matrix)
        for layer, matrix in zip(measured.layers, found.matrix, strict=True)
    ]
    return measured._replace(layers=tuple(layers))


def _rows(signals):
    """The signals of one layer after the other."""
    names = [field.name for field in dataclasses.fields(signals)]
    columns = {n: np.asarray(getattr(signals, n)) for n in names if n != "names"}
    for number in range(len(signals.names)):
        yield {name: column[number] for name, column in columns.items()}


def _sizes(subject):
    """For every parameter leaf its shape, that of the real view if it is complex."""
    views = jax.eval_shape(
        lambda leaves: [_tree.real_view(leaf) for leaf in leaves],
        jax.tree.leaves(subject.target.params),
    )
    shapes = [view.shape for view in views]
    return dict(zip(subject.network.program.param_names, shapes, strict=True))


def _layer(place, row, found, coupled, sizes):
    norms, cut = row.pop("gradient_norms"), bool(row.pop("disconnected"))
    own = [
        sizes[name][1:] if name in place.sliced_params else sizes[name]
        for name in place.params
    ]
    numbers: dict[str, Any] = {name: float(value) for name, value in row.items()}
    return Layer(
        **numbers,
        gradient_norm=norms,
        jacobian=found.spectrum,
        name=place.name,
        in_shape=place.in_shapes[0][1:] if len(place.in_shapes) == 1 else None,
        out_shape=place.out_shape[1:],
        params=place.params,
        num_params=sum(map(math.prod, own)),
        coupled=coupled,
        disconnected=cut,
        note="; ".join(filter(None, (place.note, found.note))),
    )
