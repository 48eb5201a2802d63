r"""All singular values of Jacobians where they were computed, many at a time.

In float64 they are the roots of the eigenvalues of the Gram matrices, as on the host
(see `gradstab.spectra.dense`): exact to the rounding of the data where these are
float32 numbers, and checked against a stated error where they are float64 numbers. A
Gram matrix squares the condition, so in float32, which is all that some devices have,
values below :math:`\sqrt u \sigma_1` would be lost; there, and where that check fails,
the matrices are decomposed themselves.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab import _compat, _tree
from gradstab.spectra.decomposed import (
    RELATIVE,
    Decomposed,
    gram_errors,
    real_matrices,
    roundoff_of,
)
from gradstab.spectra.placement import has_float64

# A decomposition errs by at most this many units of roundoff of the largest value and
# the root of its longer side: up to 2.5 were seen in a thousand matrices of all kinds.
_DECOMPOSITION = 6

# A matrix this many times as long as wide is made triangular first.
_LONG = 2

# Of the inverse iteration: its shift in float64, see `gradstab.spectra.dense`, and the
# steps with it and with the larger one that float32 needs.
_SHIFT = 1e-9
_STEPS, _MORE_STEPS = 2, 5

# Where the exponent lies in the bits of a floating number.
_LAYOUTS = {
    "float64": (jnp.uint64, 52, 0x7FF),
    "float32": (jnp.uint32, 23, 0xFF),
    "bfloat16": (jnp.uint16, 7, 0xFF),
}


def decompose_on_device(
    jacobians, /, *, vectors: bool = False, wide: bool | None = None
) -> Decomposed:
    r"""All singular values of Jacobians that are written out, found where they lie.

    Args:
        jacobians: ``(num, n_out, n_in)``, any floating dtype, or complex.
        vectors: whether to find the leading singular vectors as well.
        wide: whether to compute in float64; by default where the device has it.

    Returns:
        Values, errors and vectors in NumPy, see `gradstab.spectra.dense.decompose`; the
        Jacobians themselves are not brought to the host. Errors are those of rounding
        the data, of the decomposition and, where a device takes subnormal numbers for
        zero, of those. Cost: one or two compiled programs for every shape, and
        :math:`O(n^3)` for each Jacobian.
    """
    wide = has_float64() if wide is None else wide
    jacobians, unit = real_matrices(jacobians), None
    if isinstance(jacobians, np.ndarray) and not wide:
        jacobians, unit = within_range(jacobians)
    with _compat.float64(wide), jax.default_matmul_precision("highest"):
        jacobians = jnp.asarray(jacobians)
        exact = wide and not _is_double(jacobians)
        found = _fetched(_found, jacobians, wide, wide, vectors)
        if wide and not exact and not _good(found):
            found = _fetched(_found, jacobians, wide, False, vectors)
    return _with_errors(found, jacobians, unit, wide)


def within_range(jacobians):
    """Numbers of the host as float32 ones, near one in size, and their unit."""
    largest = np.max(np.abs(jacobians), axis=(1, 2), initial=0)
    ok = np.isfinite(largest) & (largest > 0)
    _, exponent = np.frexp(np.where(ok, largest.astype(np.float64), 1))
    scaled = np.ldexp(jacobians.astype(np.float64), -exponent[:, None, None])
    return scaled.astype(np.float32), np.ldexp(1.0, exponent)


def _is_double(jacobians):
    return jacobians.dtype == jnp.float64


def _fetched(
    function: Callable[..., Any], jacobians, wide: bool | None, gram, vectors: bool
):
    """What a program finds, in NumPy."""
    dtype = jnp.float64 if wide else jnp.float32
    return jax.tree.map(np.asarray, function(jacobians, dtype, gram, vectors)) | {
        "by_gram": gram
    }


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _found(jacobians, dtype: DTypeLike, gram, vectors: bool):
    """The program: values and vectors of matrices near one in size, and their units."""
    lost = _num_subnormal(jacobians)
    # To a narrower dtype only when they are near one in size.
    matrices = jacobians.astype(_tree.widest(jacobians.dtype, dtype))
    finite = jnp.all(jnp.isfinite(matrices), axis=(1, 2))
    matrices = jnp.where(finite[:, None, None], matrices, 0)
    unit = _tree.power_of_two_near(jnp.max(jnp.abs(matrices), axis=(1, 2)))
    matrices = (matrices / unit[:, None, None]).astype(dtype)
    upright = matrices.shape[1] > matrices.shape[2]
    flat = jnp.swapaxes(matrices, 1, 2) if upright else matrices
    products = flat @ jnp.swapaxes(flat, 1, 2) if gram or vectors else None
    if gram:
        squares = jnp.linalg.eigvalsh(products)[:, ::-1]
        values = jnp.sqrt(jnp.maximum(squares, 0))
    else:
        values = jnp.linalg.svd(_compact(flat), compute_uv=False)
    found = {"values": values, "unit": unit, "finite": finite, "lost": lost}
    if vectors:
        short, long = _leading(flat, products, values[:, 0])
        found |= (
            {"left": long, "right": short}
            if upright
            else {
                "left": short,
                "right": long,
            }
        )
    return found


def _num_subnormal(jacobians):
    """How many entries of each matrix a device may take for zero."""
    layout = _LAYOUTS.get(str(jacobians.dtype))
    if layout is None:
        return jnp.zeros(len(jacobians), jnp.int32)
    integers, place, mask = layout
    bits = jax.lax.bitcast_convert_type(jacobians, integers)
    exponent = (bits >> integers(place)) & integers(mask)
    # All bits but the sign.
    some = (bits << integers(1)) != integers(0)
    return jnp.sum((exponent == integers(0)) & some, axis=(1, 2), dtype=jnp.int32)


def _compact(flat):
    """A matrix with the same singular values; triangular, if the given one is long."""
    if flat.shape[2] < _LONG * flat.shape[1]:
        return flat
    return jnp.linalg.qr(jnp.swapaxes(flat, 1, 2), mode="r")


def _leading(flat, products, largest):
    """The leading vectors of flat matrices, by inverse iteration."""
    size, dtype = flat.shape[1], flat.dtype
    rounding = size * float(jnp.finfo(dtype).eps)
    shift, steps = max(_SHIFT, rounding), _STEPS if rounding < _SHIFT else _MORE_STEPS
    identity = jnp.eye(size, dtype=dtype)[None]
    top = (1 + shift) * jnp.square(largest)
    factor = jnp.linalg.cholesky(top[:, None, None] * identity - products)
    start = np.random.default_rng(0).standard_normal((1, size, 1))
    vector = jnp.broadcast_to(jnp.asarray(start, dtype), (len(flat), size, 1))
    for _ in range(steps):
        vector = jax.scipy.linalg.cho_solve((factor, True), vector)
        vector = vector / jnp.linalg.norm(vector, axis=1, keepdims=True)
    other = jnp.swapaxes(flat, 1, 2) @ vector
    other = other / jnp.linalg.norm(other, axis=1, keepdims=True)
    return vector[:, :, 0], other[:, :, 0]


def _good(found):
    """Whether no value from a Gram matrix errs by more than the host would allow."""
    values = found["values"][found["finite"] & (found["values"][:, 0] > 0)]
    return bool(np.all(gram_errors(values) <= RELATIVE * values))


def _with_errors(found, jacobians, unit, wide: bool | None):
    """The record, of the numbers that were given: with their units again."""
    values = found["values"].astype(np.float64)
    largest, longest = values[:, :1], max(jacobians.shape[1:])
    work = roundoff_of(jnp.float64 if wide else jnp.float32)
    errors = max(roundoff_of(jacobians.dtype), work) * longest * largest
    if found["by_gram"]:
        errors = errors + gram_errors(values)
    else:
        errors = errors + _DECOMPOSITION * work * np.sqrt(longest) * largest
    errors = np.broadcast_to(errors, values.shape)
    scale = found["unit"].astype(np.float64)[:, None]
    flushed = float(jnp.finfo(jacobians.dtype).tiny) * np.sqrt(found["lost"])[:, None]
    outer = 1.0 if unit is None else unit[:, None]
    alive = np.where(found["finite"], 1.0, np.nan)[:, None]
    # Larger than the largest number is infinite, as on the host.
    with np.errstate(over="ignore", under="ignore"):
        values, errors = values * scale, errors * scale + flushed
        values, errors = values * outer * alive, errors * outer * alive
    left, right = (
        found[side] * alive if side in found else np.full((len(values), size), np.nan)
        for side, size in zip(("left", "right"), jacobians.shape[1:], strict=True)
    )
    method = "gram" if found["by_gram"] else "svd"
    return Decomposed(values, errors, left, right, method)


def square_sums(matrices, sizes, /, *, wide: bool | None = None):
    """Sums of squares of all entries, over the squares of sizes near the largest ones.

    Args:
        matrices: ``(num, n, m)`` on the device.
        sizes: (num,) in NumPy.
        wide: whether to compute in float64; by default where the device has it.

    Returns:
        ``(sums, rounding)``: (num,) in NumPy, and by what fraction they may be off.
    """
    wide = has_float64() if wide is None else wide
    dtype = jnp.float64 if wide else jnp.float32
    mantissa, exponent = np.frexp(sizes)
    with _compat.float64(wide):
        sums = np.asarray(_square_sums(matrices, exponent, dtype), np.float64)
    terms = matrices.shape[1] * matrices.shape[2]
    rounding = 2 * roundoff_of(dtype) * (np.sqrt(terms) + 4)
    rounding += 4 * roundoff_of(matrices.dtype)
    return sums / np.square(mantissa), rounding


@functools.partial(jax.jit, static_argnums=2)
def _square_sums(matrices, exponent, dtype: DTypeLike):
    exponent = jnp.asarray(exponent, jnp.int32)[:, None, None]
    wide = _tree.widest(matrices.dtype, dtype)
    scaled = jnp.ldexp(matrices.astype(wide), -exponent).astype(dtype)
    return jnp.sum(jnp.square(scaled), axis=(1, 2))
