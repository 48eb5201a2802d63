"""Slices of parameters that stacks of layers own, outside of their scan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from gradstab import _compat
from gradstab.network.flow import Flow

_MARK = "gradstab slices from "


class Slices(NamedTuple):
    """Slices of a parameter leaf, or a parameter that all iterations share.

    Attributes:
        leaf: which leaf; None if it is shared.
        start: the first slice, or the first iteration that uses what is shared.
        stack: all leaves of which the same layers own slices; empty if it is shared.
    """

    leaf: int | None
    start: int
    stack: frozenset


def marked_slices(array, start: int, stack, /) -> jax.Array:
    """Slices of a parameter leaf, with a name that says which.

    Args:
        array: the slices, or a parameter that all iterations share.
        start: the number of the first, or of the first iteration that uses it.
        stack: all parameter leaves that are sliced alike; none if it is shared.
    """
    return checkpoint_name(array, f"{_MARK}{start} of {' '.join(map(str, stack))}")


def find_slices(eqns: Sequence[_compat.JaxprEqn], flow: Flow, given=None, /) -> dict:
    """What is made of slices of parameters, and of which.

    Args:
        eqns: the equations of a program or scan body, in order.
        flow: their flow.
        given: what is known of the variables that enter.

    Returns:
        By variable a frozenset of `Slices`.
    """
    found = dict(given or {})
    for eqn in eqns:
        name = _compat.given_name(eqn)
        sources = (found.get(v, frozenset()) for v in _variables(eqn))
        made = frozenset().union(*sources)
        if name is not None and name.startswith(_MARK):
            start, _, stack = name.removeprefix(_MARK).partition(" of ")
            leaves = frozenset(map(int, stack.split()))
            (leaf,) = flow.params_of(eqn.outvars[0]) if leaves else (None,)
            made = frozenset({Slices(leaf, int(start), leaves)})
        if made:
            found.update({v: made for v in eqn.outvars if v in flow.owners})
    return found


def _variables(eqn: _compat.JaxprEqn):
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
