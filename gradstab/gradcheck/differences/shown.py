"""What the outputs on both sides of a point show, however large they are."""

import numpy as np

from gradstab.gradcheck.differences.by_output import by_output
from gradstab.gradcheck.differences.directions import LARGE
from gradstab.gradcheck.differences.tables import norm

# So many entries at a time fit a cache; of large outputs so few show stairs.
_BLOCK, _SAMPLED = 2**13, 16


def shown(there, here, middle, cotangents, size, ends, /) -> dict:
    """Norms and products of a few probes, in units of a size.

    Args:
        there: ``(probes, entries)``, the outputs ahead of the point.
        here: those behind it.
        middle: ``(entries,)``, those at the point, in units of the size.
        cotangents: ``(num_cotangents, entries)``.
        size: the unit.
        ends: where one output ends and the next begins; empty for a single one.
    """
    num = max(there.shape[1], 1)
    width = num if len(ends) or num <= LARGE else _BLOCK
    every = 1 if width == num else _SAMPLED  # stairs are everywhere
    parts = []
    for start in range(0, num, width):
        s = slice(start, start + width)
        ahead, behind = there[:, s] / size, here[:, s] / size
        change = ahead - behind
        behind -= middle[s]
        behind *= 2
        behind += change
        parts.append(
            {
                "products": change @ cotangents[:, s].T,
                "norm": norm(ahead),
                "moved": norm(change),
                "bend": norm(behind),  # change - 2 * (middle - behind)
                "jump": _least(change[:, ::every]),
                "norms": by_output(ahead, ends),
                "changes": by_output(change, ends),
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
