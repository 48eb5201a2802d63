"""The norms of the parameters of every layer, without a program for each of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree


def parameter_norms(network, leaves: Sequence[Any], /) -> jax.Array:
    """The norm of all parameters that a layer uses, for every layer.

    Args:
        network: from `find_layers`.
        leaves: one array per parameter leaf: the parameters, or their gradients.

    Returns:
        Array ``(layers,)``. Leaves of one shape are reduced together, and every slice
        of a leaf that a scan slices on its own. Memory: a copy of the leaves.
    """
    positions = {name: i for i, name in enumerate(network.program.param_names)}
    parts = [
        [
            (positions[name], place.slice if name in place.sliced_params else None)
            for name in place.params
        ]
        for place in network.layers
    ]
    parts = [
        [part for part in row if _tree.is_floating(leaves[part[0]])] for row in parts
    ]
    norms, number_of = _norms(leaves, dict.fromkeys(p for row in parts for p in row))
    # Short rows are filled up with a zero, which lies behind the norms.
    most = max(map(len, parts), default=0)
    table = np.full((len(parts), most), len(number_of))
    for row, numbers in zip(table, parts, strict=True):
        row[: len(numbers)] = [number_of[part] for part in numbers]
    return _tree.safe_norm(norms[table], axes=1)


def _norms(leaves: Sequence[Any], parts):
    """The norms of leaves and of slices, a zero behind, and the place of each."""
    groups: dict = {}
    for leaf, number in parts:
        # A leaf that a scan slices is a group of its own.
        kind = leaf if number is not None else (leaves[leaf].shape, leaves[leaf].dtype)
        groups.setdefault(kind, []).append((leaf, number))
    columns, order = [], []
    for rows in groups.values():
        if rows[0][1] is None:
            stack = jnp.stack([leaves[leaf] for leaf, _ in rows])
            order += rows
        else:
            stack = leaves[rows[0][0]]
            order += [(rows[0][0], number) for number in range(len(stack))]
        # One after the other: magnitudes of all at once would be another copy.
        columns.append(jax.lax.map(_tree.safe_norm, stack))
    wide = _tree.widest(jnp.float32, *(column.dtype for column in columns))
    columns = [column.astype(wide) for column in (*columns, jnp.zeros(1, wide))]
    return jnp.concatenate(columns), {part: i for i, part in enumerate(order)}
