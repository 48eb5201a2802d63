"""The singular values of the Jacobian of one layer."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.network import LayerRun
from gradstab.records import Estimate, Spectrum
from gradstab.spectra.dense import Decomposed, decompose, spectrum_of
from gradstab.spectra.golub_kahan import golub_kahan
from gradstab.spectra.layer_map import LayerMap, layer_map
from gradstab.spectra.moments import moments
from gradstab.spectra.on_device import square_sums
from gradstab.spectra.placement import on_device

# How many values of a Jacobian that is not written out, unless a number is given.
_FEW = 8
# Vectors of the bidiagonalisation, blocks of them if the first search was not enough,
# and random probes beside it.
_MOST_VECTORS = 128
_MOST_BLOCKS = 12
_PROBES = 64
# The search is repeated with larger blocks if a bound is above this times the largest
# value: a cluster of values was too large for the first ones.
_WIDE = 3e-2
# Colours of a sparse Jacobian that are tried instead of relying on the probes.
_MOST_COLOURS = 512


class Leading(NamedTuple):
    """The leading singular vectors of a layer's Jacobians, of arbitrary sign.

    Attributes:
        left: (num, n_out) the direction in which the output moves most; NaN where the
            Jacobian is zero or not finite.
        right: (num, n_in) the direction that moves it so.
    """

    left: np.ndarray
    right: np.ndarray


class LayerSpectrum(NamedTuple):
    """What is found of a layer's Jacobian.

    Attributes:
        spectrum: its singular values; None if they were not computed.
        note: why not.
        leading: its leading singular vectors, if they were asked for.
        jacobians: (num, n_out, n_in) the Jacobians, if the host has them at once.
    """

    spectrum: Spectrum | None
    note: str
    leading: Leading | None = None
    jacobians: np.ndarray | None = None


def layer_spectrum(
    layer: LayerRun,
    /,
    *,
    examples: int,
    max_dense: int,
    top_k: int | None = None,
    max_bytes: int = 2**28,
    vectors: bool = False,
    spectra_on: str = "auto",
    key: jax.Array | None = None,
) -> LayerSpectrum:
    """The singular values of a layer's Jacobian, per example or of the whole batch.

    All of them from Jacobians that are written out, a few at a time, if their smaller
    side is at most ``max_dense``. Else, or if only some are wanted, the largest by
    products, with the distance within which a singular value lies, and the sum of the
    squares of all: exact where the layer is known to be sparse, else from random probes
    with an interval.

    Args:
        layer: a layer of a run, from `find_examples`.
        examples: for how many examples, if it does not mix them.
        max_dense: the longest smaller side of a Jacobian that is written out.
        top_k: how many values; by default all of a Jacobian that is written out, eight
            of one that is not.
        max_bytes: of Jacobians and of intermediate results at a time, about.
        vectors: whether to find the leading singular vectors.
        spectra_on: where Jacobians that are written out are decomposed: 'device', with
            no way over the host, 'host', or 'auto', which chooses by the platform and
            by the size.
        key: of the random probes; `jax.random.key(0)` if not given.

    Returns:
        A `LayerSpectrum`, without a spectrum where products with the Jacobian are known
        backward only and it is too large to be written out. Cost: the smaller side (its
        longer one if the layer has rules for backward derivatives only) in products,
        and :math:`O(n^3)` for each example; by products at most 320 of them.
    """
    linear, note = layer_map(layer, examples=examples)
    if linear is None:
        return LayerSpectrum(None, note)
    smaller = min(linear.shape)
    # A Jacobian this small is written out faster than its products are compiled.
    few = top_k is not None and smaller > max(8 * top_k, 2 * _PROBES)
    if smaller > max_dense and (reason := linear.refusal(max_bytes)):
        return LayerSpectrum(None, reason)
    if smaller > max_dense or (few and not linear.one_way):
        key = jax.random.key(0) if key is None else key
        device = on_device(spectra_on, linear.num, linear.shape)
        return _by_products(linear, top_k or _FEW, max_bytes, vectors, device, key)
    return _written_out(linear, top_k, max_bytes, vectors, spectra_on)


def alignment(before: Leading, after: Leading, /) -> np.ndarray | None:
    r"""Alignment :math:`|\langle u_1, v_1 \rangle|` of two layers in a row.

    One if the direction that the first layer amplifies most is the one that the second
    amplifies most: their gains multiply. Near :math:`\sqrt{2 / (\pi n)}` for unrelated
    layers of width n.

    Args:
        before: of the layer nearer the input.
        after: of the next layer.

    Returns:
        Array ``(num,)``, NaN where a direction is not defined; None if the first is of
        single examples and the second of the whole batch, or the other way round.
    """
    if before.left.shape != after.right.shape:
        return None
    return np.abs(np.sum(before.left * after.right, axis=1))


def _written_out(
    linear: LayerMap,
    top_k: int | None,
    max_bytes: float,
    vectors: bool,
    spectra_on: str,
):
    device = on_device(spectra_on, linear.num, linear.shape)
    options = {"vectors": vectors, "spectra_on": "device" if device else "host"}
    xp = jnp if device else np
    size = math.prod(linear.shape) * np.dtype(linear.dtype).itemsize
    found, jacobians = [], None
    for part, skip in linear.parts(size, max_bytes):
        matrices = part.dense(max_bytes, xp)
        found.append(decompose(matrices[skip:], **options))
        jacobians = matrices if part is linear and not device else None
    whole = _joined(found)
    spectrum = spectrum_of(whole, linear.shape, coupled=linear.coupled)
    leading = Leading(whole.left, whole.right) if vectors else None
    return LayerSpectrum(_cut(spectrum, top_k), "", leading, jacobians)


def _joined(parts):
    """Of several parts of the examples one."""
    *columns, methods = zip(*parts, strict=True)
    values, errors, left, right = map(np.concatenate, columns)
    return Decomposed(values, errors, left, right, max(methods))


def _cut(spectrum, top_k: int | None):
    values, errors = spectrum.values[:, :top_k], spectrum.errors[:, :top_k]
    return dataclasses.replace(spectrum, values=values, errors=errors)


def _by_products(
    linear: LayerMap,
    top_k,
    max_bytes: float,
    vectors: bool,
    device: bool,
    key: jax.Array,
):
    itemsize = 8 if np.dtype(linear.dtype).itemsize == 8 else 4
    columns = max(_MOST_VECTORS, _MOST_BLOCKS * (top_k + 1)) + _PROBES
    size = columns * sum(linear.shape) * itemsize
    results = []
    for part, skip in linear.parts(size, max_bytes):
        key, key_part = jax.random.split(key)
        results.append(_from(skip, _searched(part, top_k, int(vectors), key_part)))
    values, errors, left, right, probed = jax.tree.map(
        lambda *parts: np.concatenate(parts), *results
    )
    largest = np.where(values[:, 0] > 0, values[:, 0], 1)
    relative = _exact(linear, largest, max_bytes, device)
    relative = relative or probed.over_square(largest)
    # The squares of very small and of very large numbers are out of range.
    with np.errstate(over="ignore", under="ignore"):
        square = relative.times(np.square(largest))
    spectrum = Spectrum(
        values=values,
        errors=errors,
        frobenius_square=square,
        relative_square=relative,
        shape=linear.shape,
        coupled=linear.coupled,
        method="golub-kahan",
    )
    if not vectors:
        return LayerSpectrum(spectrum, "")
    alive = np.where(values[:, :1] > 0, 1, np.nan)
    return LayerSpectrum(spectrum, "", Leading(left[:, 0] * alive, right[:, 0] * alive))


def _searched(part: LayerMap, top_k: int, num_vectors: int, key: jax.Array):
    """Values, errors, leading vectors and random sums of some examples."""
    key_narrow, key_wide = jax.random.split(key)
    values, errors, left, right, probed = part.apply(
        _search(top_k, num_vectors), key_narrow
    )
    values, errors = np.asarray(values, np.float64), np.asarray(errors, np.float64)
    if np.any(errors > _WIDE * values[:, :1]):
        # Both are from below, each within its own bound.
        again = part.apply(_wide_search(top_k), key_wide)
        values, errors = np.maximum(values, again[0]), np.minimum(errors, again[1])
    return values, errors, left, right, probed


def _exact(linear: LayerMap, sizes, max_bytes: float, device: bool):
    """Squared Frobenius norms over those of the sizes, by colours; None without."""
    colouring = linear.colouring
    if colouring is None or colouring.num > _MOST_COLOURS:
        return None
    num_bytes = 8 * linear.shape[0] * colouring.num
    squares = []
    rounding = 4 * float(jnp.finfo(linear.dtype).eps)
    for part, skip in linear.parts(num_bytes, max_bytes):
        rows = part.coloured(max_bytes, jnp if device else np)[skip:]
        here = sizes[len(squares) :][: len(rows)]
        if device:
            found, of_sum = square_sums(rows, here)
            rounding = max(rounding, of_sum)
        else:
            rows = np.asarray(rows, np.float64) / here[:, None, None]
            found = np.sum(np.square(rows), axis=(1, 2))
        squares.extend(found)
    square = np.array(squares)
    return Estimate.within(square, rounding * square)


def _from(first, results):
    return jax.tree.map(lambda array: np.asarray(array)[first:], results)


@functools.cache
def _search(top_k: int, num_vectors: int):
    """The function that finds leading values and random sums of a linear map."""
    most = max(_MOST_VECTORS, 4 * top_k)
    decompose = golub_kahan(
        top_k, max_vectors=most, num_vectors=num_vectors, rtol_all=_WIDE
    )
    probe = moments(_PROBES)

    def search(linear, key: jax.Array):
        key_steps, key_probes = jax.random.split(key)
        leading = decompose(linear, key_steps)
        probed = probe(linear, key_probes)
        return leading.values, leading.bounds, leading.left, leading.right, probed

    return search


@functools.cache
def _wide_search(top_k: int):
    """The function that finds leading values however close they lie."""
    most = max(_MOST_VECTORS, _MOST_BLOCKS * (top_k + 1))
    decompose = golub_kahan(
        top_k, block=top_k + 1, max_vectors=most, rtol=math.inf, rtol_all=_WIDE
    )

    def search(linear, key: jax.Array):
        leading = decompose(linear, key)
        return leading.values, leading.bounds

    return search
