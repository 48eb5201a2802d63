"""The layers of a report: their signals, and their Jacobians one after the other."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _tree
from gradstab.analysis.selection import Limits
from gradstab.analysis.subject import Subject
from gradstab.network import LayerRun, NetworkRun
from gradstab.network.activations import unread
from gradstab.network.cosines import gradient_cosines
from gradstab.program.keys import split_key
from gradstab.records import Layer, Recurrence, Signals
from gradstab.spectra import (
    LayerSpectrum,
    alignment,
    layer_recurrences,
    layer_spectrum,
)

_LEFT_OUT = LayerSpectrum(None, "")


class Measured(NamedTuple):
    """What was measured of the layers, in depth order.

    Attributes:
        layers: their records.
        recurrences: of their recurrent scans.
        jacobians: for every layer those that were written out, or None; of all layers
            together no more than a quarter of ``max_bytes``.
    """

    layers: tuple[Layer, ...]
    recurrences: tuple[Recurrence, ...]
    jacobians: tuple[np.ndarray | None, ...]


def measure_layers(
    subject: Subject,
    run: NetworkRun,
    signals: Signals,
    wanted: Sequence[bool],
    limits: Limits,
    /,
    *,
    key: jax.Array,
    advance: Callable[[str], object],
) -> Measured:
    """The records of all layers.

    Args:
        subject: from `find_subject`.
        run: from `find_examples`; from `propagate` if no Jacobian is wanted.
        signals: those to report, which are the run's own but for an ensemble.
        wanted: for every layer whether its Jacobian is computed.
        limits: of the analysis.
        key: of random probes.
        advance: called with the name of every layer that is done.
    """
    sizes = _sizes(subject)
    keys = split_key(key, len(run.layers))
    layers, recurrences, before = [], [], None
    jacobians, left = [], limits.max_bytes // 4
    for i, (layer, row) in enumerate(zip(run.layers, _rows(signals), strict=True)):
        result = _LEFT_OUT
        if wanted[i]:
            options = limits._asdict()
            result = layer_spectrum(layer, vectors=True, key=keys[i], **options)
        matrices = result.jacobians
        if matrices is not None and matrices.nbytes > left:
            matrices = None
        jacobians.append(matrices)
        left -= 0 if matrices is None else matrices.nbytes
        recurrences += layer_recurrences(
            layer,
            examples=limits.examples,
            max_dense=limits.max_dense if wanted[i] else 0,
            spectra_on=limits.spectra_on,
        )
        aligned = before and result.leading and alignment(before, result.leading)
        before = result.leading
        record = _layer(layer, row, result, sizes)
        if math.isnan(record.dead_fraction):
            reasons = record.note, unread(layer.function)
            note = "; ".join(filter(None, reasons))
            record = dataclasses.replace(record, note=note)
        layers.append(dataclasses.replace(record, alignment=aligned))
        advance(layer.name)
    return Measured(tuple(layers), tuple(recurrences), tuple(jacobians))


def with_cosines(measured: Measured, run: NetworkRun, limits: Limits, /) -> Measured:
    """The layers with the cosines of the examples' gradients of their parameters.

    Args:
        measured: from `measure_layers`.
        run: the same run, with a loss.
        limits: of the analysis.
    """
    cosines = gradient_cosines(run, examples=limits.examples)
    layers = [
        dataclasses.replace(layer, gradient_cosines=matrix)
        for layer, matrix in zip(measured.layers, cosines.matrix, strict=True)
    ]
    return measured._replace(layers=tuple(layers))


def _rows(signals: Signals) -> Iterator[dict[str, Any]]:
    """The signals of one layer after the other."""
    names = [field.name for field in dataclasses.fields(signals)]
    columns = {n: np.asarray(getattr(signals, n)) for n in names if n != "names"}
    for number in range(len(signals.names)):
        yield {name: column[number] for name, column in columns.items()}


def _sizes(subject: Subject) -> dict[str, tuple[int, ...]]:
    """For every parameter leaf its shape, that of the real view if it is complex."""
    views = jax.eval_shape(
        lambda leaves: [_tree.real_view(leaf) for leaf in leaves],
        jax.tree.leaves(subject.target.params),
    )
    shapes = [view.shape for view in views]
    return dict(zip(subject.network.program.param_names, shapes, strict=True))


def _layer(
    layer: LayerRun,
    row: dict[str, Any],
    result: LayerSpectrum,
    sizes: dict[str, tuple[int, ...]],
) -> Layer:
    place = layer.place
    norms, cut = row.pop("gradient_norms"), bool(row.pop("disconnected"))
    own = [
        sizes[name][1:] if name in place.sliced_params else sizes[name]
        for name in place.params
    ]
    numbers: dict[str, Any] = {name: float(value) for name, value in row.items()}
    return Layer(
        **numbers,
        gradient_norm=norms,
        jacobian=result.spectrum,
        name=place.name,
        in_shape=place.in_shapes[0][1:] if len(place.in_shapes) == 1 else None,
        out_shape=place.out_shape[1:],
        params=place.params,
        num_params=sum(map(math.prod, own)),
        coupled=layer.coupled,
        disconnected=cut,
        note="; ".join(filter(None, (place.note, result.note))),
    )
