"""Whether two traces of a function are the same program."""

import re

import jax
import numpy as np

from gradstab import _compat, _tree
from gradstab.gradcheck.subject.traits import equations


def same(one, other, /) -> bool:
    """Whether two programs are the same text with the same numbers."""
    if _text(one) != _text(other):
        return False
    pairs = zip(_numbers(one), _numbers(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _text(closed: _compat.ClosedJaxpr):
    return re.sub(r"0x[0-9a-f]+", "", str(closed))  # addresses of functions


def _numbers(closed: _compat.ClosedJaxpr):
    """All literals and constants."""
    literals = [
        atom.val
        for eqn in equations(closed)
        for atom in eqn.invars
        if isinstance(atom, _compat.Literal)
    ]
    values = [*literals, *(value for _, value in _compat.constants(closed))]
    arrays = [np.asarray(a) for a in values if not _tree.is_key(a)]
    # The derivative of an integer has nothing to compare.
    return [a for a in arrays if a.dtype != jax.dtypes.float0]
