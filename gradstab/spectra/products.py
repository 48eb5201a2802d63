"""The growth exponents of the input-output Jacobian of a network."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstab.network import NetworkRun
from gradstab.spectra.exponents import Exponents, exponents
from gradstab.spectra.layer_map import LayerMap, layer_map

# All exponents up to this width, and so many of the largest above.
_ALL = 256
_LARGEST = 32

# Arrays of the size of a basis that a step of a sweep holds at a time.
_COPIES = 6


# Operations of a sweep through Jacobians that are written out: a tenth of a second.
_FEW_FLOPS = 2**31


class ProductExponents(NamedTuple):
    """What is found of the whole product.

    Attributes:
        exponents: their values and by how much the last sweep changed them, per
            example or, if a layer couples them, of the whole batch; None if they were
            not computed.
        note: why not, or which part of the network they are of; else empty.
        num_layers: of how many layers.
    """

    exponents: Exponents | None
    note: str
    num_layers: int


def product_exponents(
    run: NetworkRun,
    /,
    *,
    examples: int,
    top_k: int | None = None,
    max_bytes: float = 2**28,
    spectra_on: str = "auto",
    jacobians: Sequence[np.ndarray | None] = (),
) -> ProductExponents:
    r"""Growth exponents of the Jacobian of a network's output by its input.

    Jacobians are multiplied with vectors and not written out for it, by programs that
    are compiled once for every block; those that were written out before are used where
    that takes less time than to compile. If a layer mixes examples, the Jacobian
    is that of the whole batch. Layers of integers at the beginning (an embedding) are
    left out.

    Args:
        run: from `find_examples`.
        examples: of how many examples, if no layer mixes them.
        top_k: how many exponents; by default all if the narrowest place of the network
            has at most 256 entries, else 32.
        max_bytes: of vectors and intermediate results at a time, about.
        spectra_on: where vectors are made orthonormal, see `exponents`.
        jacobians: of every layer, as `layer_spectrum` wrote them out, or None.

    Returns:
        The exponents, see `exponents` for accuracy and cost, or why there are none.
    """
    maps, note = _maps(run, examples)
    if maps is None:
        return ProductExponents(None, note, 0)
    widths = [maps[0].shape[1], *(linear.shape[0] for linear in maps)]
    if top_k is None and min(widths) > _ALL:
        top_k = _LARGEST
        note = _both(
            note, f"the {top_k} largest exponents: narrowest layer is above 256"
        )
    most = min(widths[0], widths[-1])
    columns = min(*widths, most if top_k is None else 2 * top_k + 8)
    for layer, linear in zip(run.layers[-len(maps) :], maps, strict=True):
        if reason := linear.refusal(max_bytes):
            reason = f"no exponents of the product: {layer.name}: {reason}"
            return ProductExponents(None, _both(note, reason), 0)
    size = _COPIES * 8 * max(widths) * columns
    # Those that can be multiplied with in one direction only are written out.
    size += sum(8 * math.prod(linear.shape) for linear in maps if linear.one_way)
    if size > 4 * max_bytes:
        needed = f"{size / 2**20:.0f} MiB for {columns} vectors"
        note = _both(note, f"no exponents of the product: {needed} above max_bytes")
        return ProductExponents(None, note, 0)
    options = {"top_k": top_k, "max_bytes": max_bytes, "spectra_on": spectra_on}
    if not any(run.coupled):
        maps = _written(maps, jacobians, columns)
    parts = [
        _select(exponents(group, **options), skip)
        for group, skip in _groups(maps, size, max_bytes)
    ]
    values, change = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ProductExponents(Exponents(values, change), note, len(maps))


def _written(maps, jacobians, columns):
    """The Jacobians in place of the maps, where all are known and quick to multiply."""
    matrices = list(jacobians)[-len(maps) :]
    if len(matrices) < len(maps) or any(one is None for one in matrices):
        return maps
    fits = [
        one.shape == (linear.num, *linear.shape) and one.dtype == linear.dtype
        for one, linear in zip(matrices, maps, strict=True)
    ]
    work = 2 * columns * sum(one.size for one in matrices)
    return matrices if all(fits) and work <= _FEW_FLOPS else maps


def _maps(run: NetworkRun, examples: int):
    """The maps of all layers that data enter, and a note; None if they do not chain."""
    joint = any(run.coupled)
    start = 0
    for number, layer in enumerate(run.layers):
        if not layer.function.in_vars:
            start = number + 1
    note = "" if start == 0 else f"product from {_after(run.network, start)} on"
    maps = []
    for layer in run.layers[start:]:
        layer = layer.of_batch() if joint else layer
        linear, why = layer_map(layer, examples=examples)
        if linear is None:
            return None, f"no exponents of the product: {layer.name}: {why}"
        if maps and maps[-1].shape[0] != linear.shape[1]:
            return (
                None,
                f"no exponents of the product: more than one way to {layer.name}",
            )
        maps.append(linear)
    if not maps:
        return None, "no exponents of the product: no data enter a layer"
    if joint:
        note = _both(note, "of the whole batch: a layer mixes examples")
    return maps, note


def _after(network, start):
    return network.names[start] if start < len(network.names) else "the end"


def _groups(maps, num_bytes, max_bytes: float):
    """The same maps for some examples at a time."""
    if not all(isinstance(one, LayerMap) and one.by_example for one in maps):
        yield maps, 0
        return
    columns = (list(linear.parts(num_bytes, max_bytes)) for linear in maps)
    for parts in zip(*columns, strict=True):
        yield [part for part, _ in parts], parts[0][1]


def _select(part, first):
    return part.values[first:], part.errors[first:]


def _both(one, other):
    return f"{one}; {other}" if one else other
