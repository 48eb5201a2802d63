"""How the initial values of parameters go with the width by themselves, as measured."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab._attempt import Refusal, attempt
from gradstab.scaling import makers

# Of the exponent: laws that differ by less than four of these are not told apart.
_ERROR = 0.01
_DRAWS = 256
# Entries that all draws together may have, of all parameters.
_ENTRIES = 4e7
# Draws one by one, of a maker that JAX can not map over keys.
_SLOW_DRAWS = 8
# Of kernels with a longer shorter side it is not asked whether they are orthogonal.
_LARGEST = 1024
# Beyond the error: what rounding of widths does to an exponent.
_SLACK = 0.02


class Initial(NamedTuple):
    """How the standard deviation of an initialiser goes with the width.

    Attributes:
        exponent: of the width; None if all is zero.
        constant: for Glorot's 1/sqrt(fan_in + fan_out), of which one fan stays: that
            over the one that grows, at the base width. Zero for powers.
        bend: the same for orthogonal kernels, 1/sqrt(max(fan_in, fan_out)).
        note: what a reader should know; empty if nothing.
    """

    exponent: float | None
    constant: float = 0.0
    bend: float = 0.0
    note: str = ""


def initial_sizes(
    make: Callable[..., Any],
    widths: tuple[int, int],
    key: jax.Array,
    params: Sequence[Any],
    wanted: Sequence[bool],
    /,
) -> list[Initial]:
    """How the initial values of each parameter go from one width to twice that.

    Args:
        make: ``make(width, key)``.
        widths: the two.
        key: another one than those with which ``params`` were made.
        params: the parameters at both.
        wanted: for each parameter whether to look.

    Returns:
        For each parameter its law. Small ones are drawn again, with other keys, until
        the error of the exponent is 0.01 or the draws 256.
    """
    pairs = list(zip(*map(jax.tree.leaves, params), strict=True))
    squares = [[_mean_square(x) for x in pair] for pair in pairs]
    measured = [
        _exponent(*pair) if want else (None, 0.0)
        for pair, want in zip(squares, wanted, strict=True)
    ]
    noisy = [i for i, (_, error) in enumerate(measured) if error > _ERROR]
    if noisy:
        entries = [sum(x.size for x in leaves) for leaves in zip(*pairs, strict=True)]
        again = [
            _drawn_again(make, width, one, noisy, size)
            for width, one, size in zip(
                widths, jax.random.split(key), entries, strict=True
            )
        ]
        for place, i in enumerate(noisy):
            ours = [_over_draws(rows[:, place]) for rows in again]
            # Draws that are all equal say nothing: then the entries of one do.
            if all(error > 0 for _, error in ours):
                measured[i] = _exponent(*ours)
    return [
        _orthogonal(*pair) or _law(*one, (pair[0].shape, pair[1].shape))
        for one, pair in zip(measured, pairs, strict=True)
    ]


def _mean_square(leaf: Any) -> tuple[float, float]:
    """The mean of the squares of the entries, and its standard error."""
    squares = np.abs(np.asarray(leaf).astype(np.complex128)) ** 2
    return float(squares.mean()), float(squares.std() / math.sqrt(squares.size))


def _over_draws(means: np.ndarray) -> tuple[float, float]:
    return float(means.mean()), float(means.std() / math.sqrt(max(len(means) - 1, 1)))


def _exponent(
    small: tuple[float, float], large: tuple[float, float]
) -> tuple[float | None, float]:
    """The exponent of the standard deviation, and its standard error."""
    if not small[0] > 0 or not large[0] > 0:
        return None, 0.0
    error = math.hypot(*(error / mean for mean, error in (small, large)))
    return math.log2(large[0] / small[0]) / 2, error / (2 * math.log(2))


def _drawn_again(
    make: Callable[..., Any],
    width: int,
    key: jax.Array,
    which: Sequence[int],
    entries: int,
) -> np.ndarray:
    """Mean squares of some parameters in many draws: (draws, parameters)."""

    def means(key: jax.Array) -> list[jax.Array]:
        leaves = jax.tree.leaves(makers.params_of(makers.made_by(make, width, key)))
        chosen = [leaves[i].astype(jnp.float32) for i in which]
        return [jnp.mean(jnp.abs(x) ** 2) for x in chosen]

    num = int(max(min(_DRAWS, _ENTRIES // entries), _SLOW_DRAWS))
    keys = jax.random.split(key, num)
    drawn = attempt(jax.vmap(means), keys)
    if isinstance(drawn, Refusal):  # it looks at the values of what it draws
        few = jax.random.split(_tree.fresh_keys(key), _SLOW_DRAWS)
        drawn = zip(*map(means, few), strict=True)
    return np.stack([np.stack(list(map(np.asarray, one))) for one in drawn], axis=-1)


def _law(
    measured: float | None, error: float, shapes: tuple[tuple[int, ...], ...]
) -> Initial:
    if measured is None:
        return Initial(None)
    half = round(2 * measured) / 2
    laws = [(abs(half - measured), half, 0.0)]
    for constant in _constants(*shapes):
        off = abs(_glorot(constant) - measured)
        laws.append((off + error, -0.5, constant))
    for small, large in zip(*shapes, strict=True):
        # A kernel over what grows and what stays: the width of what it sums grows less.
        off = abs(measured + math.log2(max(large, 1) / max(small, 1)) / 2)
        laws.append((off + error, -0.5, 0.0))
    off, exponent, constant = min(laws)
    if off <= 4 * error + _SLACK:
        return Initial(exponent, constant)
    note = f"its initial size goes as width^{measured:.2f}, which is no known law"
    return Initial(measured, note=note)


def _glorot(constant: float) -> float:
    """The exponent of 1/sqrt(fan + constant fan) from a fan of one to one of two."""
    return -math.log2((2 + constant) / (1 + constant)) / 2


def _orthogonal(small: Any, large: Any) -> Initial | None:
    """The law of a kernel whose rows or columns are orthogonal, where one fan stays."""
    if small.ndim < 2 or not (_is_orthogonal(small) and _is_orthogonal(large)):
        return None
    fans = [(math.prod(x.shape[:-1]), x.shape[-1]) for x in (small, large)]
    grows = [b > a for a, b in zip(*fans, strict=True)]
    if sum(grows) != 1:
        return None
    return Initial(-0.5, bend=fans[0][grows.index(False)] / fans[0][grows.index(True)])


def _is_orthogonal(kernel: Any) -> bool:
    matrix = np.asarray(kernel).astype(np.float64).reshape(-1, kernel.shape[-1])
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    if not 2 <= matrix.shape[1] <= _LARGEST or not matrix.any():
        return False
    products = matrix.T @ matrix
    sizes = np.diag(products)
    off = np.abs(products - np.diag(sizes)).max()
    return off < 1e-3 * sizes.mean() and np.ptp(sizes) < 1e-3 * sizes.mean()


def _constants(small: tuple[int, ...], large: tuple[int, ...]) -> list[float]:
    """What the fan that stays may be, over the one that grows; windows cancel."""
    grown = [i for i in range(len(small)) if large[i] > small[i]]
    if len(grown) != 1 or len(small) < 2:
        return []
    others = [n for i, n in enumerate(small) if i != grown[0]]
    return sorted({n / small[grown[0]] for n in (*others, math.prod(others))})
