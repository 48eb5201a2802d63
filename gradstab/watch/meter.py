"""What is summed up of gradients by two ways, on the device; not for users."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.watch.comparison import Sums
from gradstab.watch.norms import all_by_row, products_by_row


class Meter:
    """Adds up the gradients of batches, and measures each by layer.

    Args:
        names: of the rows.
        owners: for each leaf its row, or those of its slices.
        first: leaves of a gradient of A.
        second: of B.

    Attributes:
        names: of the rows that own a parameter.
    """

    def __init__(self, names, owners, first, second):
        used = sorted({row for own in owners for row in np.atleast_1d(own).tolist()})
        self.names = [names[row] for row in used]
        self._owners = tuple(
            tuple(map(used.index, own)) if isinstance(own, tuple) else used.index(own)
            for own in owners
        )
        self._wide = [_widest(x, y) for x, y in zip(first, second, strict=True)]
        real = _tree.widest(*map(_tree.real_dtype, self._wide))
        self._double = real == jnp.float64
        self._eps = float(jnp.finfo(real).eps)
        run = functools.partial(_measured, self._owners, len(used))
        self._run = jax.jit(run, donate_argnums=0)
        self._shardings = [x.sharding for x in first]
        with _compat.float64(self._double):
            self._sums = [
                jax.tree.map(jnp.zeros_like, list(first), self._wide) for _ in range(2)
            ]

    def add(self, first, second, /):
        """What is seen of a batch: products, their scales, equal, finite."""
        second = [
            y if y.sharding == sharding else jax.device_put(y, sharding)
            for y, sharding in zip(second, self._shardings, strict=True)
        ]
        with _compat.float64(self._double):
            self._sums, seen = self._run(self._sums, first, second)
        return jax.device_get(seen)

    def summed(self, several, /) -> Sums:
        """What was seen of all batches, and of their means."""
        products, scales, equal, finite = (
            np.stack(x) for x in zip(*several, strict=True)
        )
        with _compat.float64(self._double):
            run = functools.partial(products_by_row, self._owners, len(self.names))
            total = jax.device_get(jax.jit(_compat.on_one_layout(run))(*self._sums))
        means = _unscaled(*total) / len(several) ** 2
        batches = _unscaled(products, scales)
        return Sums(
            _with_whole(batches, np.sum),
            _with_whole(means, np.sum),
            _with_whole(equal[..., None], np.all)[..., 0],
            _with_whole(finite, np.all),
            self._eps,
        )


def _measured(owners, rows, sums, first, second):
    run = functools.partial(_of_batch, owners, rows)
    gaps, given = [], []
    for x, y, total in zip(first, second, sums[0], strict=True):
        given.append(x.astype(total.dtype))
        gaps.append(y.astype(total.dtype) - given[-1])
    sums = [
        [total + x for total, x in zip(totals, xs, strict=True)]
        for totals, xs in zip(sums, (given, gaps), strict=True)
    ]
    return sums, _compat.on_one_layout(run)(first, second, given, gaps)


def _of_batch(owners, rows, first, second, given, gaps):
    equal = [_same_bits(x, y) for x, y in zip(first, second, strict=True)]
    finite = [
        all_by_row(owners, rows, [jnp.isfinite(_tree.real_view(x)) for x in leaves])
        for leaves in (first, second)
    ]
    return (
        *products_by_row(owners, rows, given, gaps),
        all_by_row(owners, rows, equal),
        jnp.stack(finite, axis=-1),
    )


def _same_bits(x, y):
    """Which entries have the same bits; none of arrays of different dtypes."""
    if x.dtype != y.dtype:
        return jnp.zeros(jnp.shape(_tree.real_view(x)), bool)
    kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}
    bits = [
        jax.lax.bitcast_convert_type(real, kind[real.dtype.itemsize])
        for real in map(_tree.real_view, (x, y))
    ]
    return bits[0] == bits[1]


def _widest(x, y):
    return _tree.widest(jnp.float32, x.dtype, y.dtype)


def _unscaled(products, scales):
    """Products of arrays that were divided by their scales, in float64."""
    one, two = np.moveaxis(np.asarray(scales, np.float64), -1, 0)
    return np.asarray(products, np.float64) * np.stack(
        [one * one, one * two, two * two], axis=-1
    )


def _with_whole(values, join):
    """Values of rows, ``(batches, rows, n)``, and a last row of all of them."""
    whole = join(values, axis=-2, keepdims=True)
    return np.concatenate([values, whole], axis=-2)
