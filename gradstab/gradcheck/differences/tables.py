r"""Tables :math:`\langle w_j, J v_k \rangle`, in float64 on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradstab.gradcheck.differences.directions import NUM_COTANGENTS, NUM_TANGENTS
from gradstab.gradcheck.differences.draws import Draw
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.programs import Programs

# The squares of numbers between this and its inverse are numbers.
_AVERAGE = 1e120


def rule_tables(programs: Programs, point: Sequence[Any], draw: Draw, /) -> dict:
    """What the rules of a function say along the directions.

    Returns:
        For every mode that was asked for its entries ``(moves, tangents, cotangents)``;
        ``gradients``, per leaf the VJPs of the cotangents; ``value``, all outputs as
        one vector, ``norm``, its Euclidean norm, and by how much it changed when
        computed again, ``gap``, and among others, ``gap_mapped``.
    """
    raw = programs.rules(point, draw)
    value = vector(raw["value"])
    with np.errstate(all="ignore"):
        tables = {
            "value": value,
            "norm": norm(value),
            "gap": norm(vector(raw["again"]) - value),
            "gap_mapped": norm(vector(raw["mapped"]) - value),
        }
        if "reverse" in raw:
            tables["gradients"] = raw["reverse"]
            tables["reverse"] = paired(draw, raw["reverse"])
        if "forward" in raw:
            moved = vectors(raw["forward"], axes=2)
            tables["forward"] = moved @ vectors(draw.cotangents).T
    return tables


def num_rules(problem: Problem, /) -> int:
    """Evaluations of f and its rules in one call of `rule_tables`."""
    moves = len(problem.leaves) + (len(problem.leaves) > 1)
    rules = moves * NUM_TANGENTS if "forward" in problem.modes else 0
    return rules + (NUM_COTANGENTS if "reverse" in problem.modes else 0) + 4


def paired(draw: Draw, gradients, /) -> np.ndarray:
    """What gradients say about every move: ``(moves, tangents, cotangents)``."""
    # What is not moved may have a slope of any kind: 0 * inf is not a number.
    triples = zip(draw.tangents, gradients, draw.held, strict=True)
    tables = np.stack(
        [
            vectors([v]) @ vectors([np.where(h, 0.0, g) if h.any() else g]).T
            for v, g, h in triples
        ]
    )
    alone = len(draw.tangents)
    together = [np.tensordot(row, tables, 1) for row in draw.weights[alone:]]
    return np.stack([*tables, *together])


def vector(arrays, /) -> np.ndarray:
    """All entries of all arrays, in float64."""
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])


def vectors(arrays, /, *, axes: int = 1) -> np.ndarray:
    """All arrays side by side, as vectors behind the leading axes, in float64."""
    flat = [np.asarray(a, np.float64) for a in arrays]
    flat = [a.reshape(*a.shape[:axes], -1) for a in flat]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=-1)


def unit(value, /) -> float:
    """The largest magnitude; one if that is zero or not finite."""
    largest = np.max(np.abs(value))
    return largest if np.isfinite(largest) and largest > 0 else 1.0


def norm(rows, /) -> np.ndarray:
    """Euclidean norms over the last axis; no row overflows, nor lets others underflow.

    >>> norm(np.array([[3e300, 4e300], [3e-9, 4e-9]]))
    array([5.e+300, 5.e-009])
    """
    with np.errstate(all="ignore"):
        plain = np.sqrt(np.einsum("...i,...i->...", rows, rows))
    if np.all(is_average(plain)):
        return plain
    size = np.max(np.abs(rows), axis=-1, keepdims=True, initial=0.0)
    size = np.where((size > 0) & np.isfinite(size), size, 1.0)
    return size[..., 0] * np.sqrt(np.sum(np.square(rows / size), axis=-1))


def is_average(size, /):
    """Whether a number, and its square, is neither huge nor tiny."""
    return (size > 1 / _AVERAGE) & (size < _AVERAGE)
