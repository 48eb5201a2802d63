"""Layers whose rules allow products backward only; internal.

A rule for the reverse mode has no forward direction. Mostly its backward pass can be
transposed, which gives the products that the rule stands for; not so if it holds a
loop without a fixed end (an implicit layer), a kernel or a call of foreign code. And
foreign code may take one vector at a time only. Then the Jacobian is known row by row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.network.blocks import Block
from gradstab.network.foreign import can_be_traced, limited
from gradstab.program import primitives
from gradstab.spectra.linear_map import LinearMap


def may_be_one_way(block: Block, /) -> bool:
    """Whether a block holds what may lack a forward direction, or mapping."""
    return any(map(limited, block.eqns))


def why_one_way(block: Block, /, forward, backward) -> str:
    """Why a block has no products with many vectors in both directions; else empty.

    Args:
        block: the block.
        forward: a function that multiplies forward, and what it takes.
        backward: likewise.
    """
    if not can_be_traced(*backward):
        return f"{_rules(block)} cannot be mapped over vectors"
    if not can_be_traced(*forward):
        return f"{_rules(block)} has no JVP and a backward pass without a transpose"
    return ""


def matrix_map(matrices, /) -> LinearMap:
    """Jacobians that are written out, ``(num, n_out, n_in)``, as a linear map."""
    num, n_out, n_in = matrices.shape

    def multiply(vectors, path):
        vectors = vectors.astype(matrices.dtype)
        return jnp.einsum(path, matrices, vectors, precision="highest")

    return LinearMap(
        matvec=lambda v: multiply(v, "boi,bi->bo"),
        rmatvec=lambda w: multiply(w, "boi,bo->bi"),
        num=num,
        shape=(n_out, n_in),
    )


def can_be_mapped(function: Callable[..., Any], inputs, /) -> bool:
    """Whether a function can be mapped over a leading axis of its inputs."""
    return can_be_traced(jax.vmap(function), inputs)


def _rules(block: Block):
    """The names of what may be one way in a block."""
    names = dict.fromkeys(
        _compat.rule_name(eqn) if _compat.is_rule(eqn) else primitives.name_of(eqn)
        for eqn in block.eqns
        if limited(eqn)
    )
    return ", ".join(names)
