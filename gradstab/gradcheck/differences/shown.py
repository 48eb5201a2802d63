"""What the outputs on both sides of a point show, however large they are."""

from typing import Any

import numpy as np

from gradstab.gradcheck.differences.by_output import by_output
from gradstab.gradcheck.differences.directions import LARGE
from gradstab.gradcheck.differences.tables import is_average, norm

# So many entries at a time fit a cache; of large outputs so few show stairs.
_BLOCK, _SAMPLED = 2**13, 16


def shown(there, here, value, cotangents: Any, size, ends, /) -> dict:
    """Norms and products of a few probes.

    Args:
        there: ``(probes, entries)``, the outputs ahead of the point.
        here: those behind it.
        value: ``(entries,)``, those at the point.
        cotangents: ``(num_cotangents, entries)``.
        size: of the outputs; the jump is in units of it.
        ends: where one output ends and the next begins; empty for a single one.
    """
    plain = len(ends) == 0 and there.shape[1] > LARGE
    found = _plainly(there, here, value, cotangents) if plain else None
    if found is None:
        found = _carefully(there, here, value, cotangents, size, ends)
    return found | {"jump": found["jump"] / size}


def _plainly(there, here, value, cotangents: Any) -> dict | None:
    """The same of one large output; None if it has to be done with care."""
    rows, num = there.shape
    totals = {name: np.zeros(rows) for name in ("norm", "moved", "bend")}
    products, least = np.zeros((rows, len(cotangents))), []
    for start in range(0, num, _BLOCK):
        s = slice(start, start + _BLOCK)
        ahead, behind = there[:, s], here[:, s]
        change = ahead - behind
        products += change @ cotangents[:, s].T
        bend = behind - value[s]
        bend *= 2
        bend += change  # change - 2 * (value - behind)
        for name, part in zip(totals, (ahead, change, bend), strict=True):
            totals[name] += np.einsum("ki,ki->k", part, part)
        least.append(_least(change[:, ::_SAMPLED]))  # stairs are everywhere
    norms = {name: np.sqrt(total) for name, total in totals.items()}
    # What underflows in a bend is far below rounding.
    bounds = norms["norm"], norms["moved"], np.maximum(norms["bend"], 1.0)
    if not all(np.all(is_average(size)) for size in bounds):
        return None
    nothing = np.zeros((rows, 0))
    rest = {"jump": np.min(least, axis=0), "norms": nothing, "changes": nothing}
    return {"products": products, **norms, **rest}


def _carefully(there, here, value, cotangents: Any, size, ends) -> dict:
    """The same in units of the size, so that nothing overflows."""
    num = max(there.shape[1], 1)
    width = num if len(ends) or num <= LARGE else _BLOCK
    every = 1 if width == num else _SAMPLED
    parts = []
    for start in range(0, num, width):
        s = slice(start, start + width)
        ahead, behind = there[:, s] / size, here[:, s] / size
        change = ahead - behind
        behind -= value[s] / size
        behind *= 2
        behind += change
        parts.append(
            {
                "products": change @ (cotangents[:, s] * size).T,
                "norm": size * norm(ahead),
                "moved": size * norm(change),
                "bend": size * norm(behind),
                "jump": size * _least(change[:, ::every]),
                "norms": size * by_output(ahead, ends),
                "changes": size * by_output(change, ends),
            }
        )
    if len(parts) == 1:
        return parts[0]
    whole = {name: np.stack([p[name] for p in parts], axis=-1) for name in parts[0]}
    totals = {"products": np.sum, "jump": np.min}
    return {
        n: totals.get(n, lambda a, axis: norm(a))(a, axis=-1) for n, a in whole.items()
    }


def _least(change):
    """The smallest magnitude that is not zero; infinite if there is none."""
    return np.min(np.where(change == 0, np.inf, np.abs(change)), axis=-1)
