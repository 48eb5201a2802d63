r"""The search for the wrong entries of one leaf.

A block of entries is *wrong* if along a random direction that moves it alone the rule
differs from the slope of f by more than the bar. A wrong block is cut in four, down to
single entries: :math:`16 \log_4 n` evaluations for one wrong entry of ``n``. The
direction is drawn once and cut with the blocks, so what is seen in a block is the sum
of what is seen in its parts: no error vanishes on the way down. If many blocks are
wrong, a random sample says how many entries are.
"""

import dataclasses
import itertools

import numpy as np

from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.leaf_programs import GROUP, LANES

# So many wrong blocks are followed one by one; more are sampled.
_MANY = 8

# Entries of a sample, and the share of wrong ones from which on it tells enough.
_SAMPLE = 16
_DENSE = 0.25

# Entries that are listed where the rule is not finite.
_LISTED = 64


@dataclasses.dataclass(frozen=True)
class Wrong:
    """The wrong entries of a leaf.

    Attributes:
        errors: of those that were looked at one by one: flat index to error.
        count: how many there are in all.
        estimated: whether that was extrapolated from a sample.
    """

    errors: dict[int, float]
    count: int
    estimated: bool


def wrong_entries(
    seen: Comparison, rng: np.random.Generator, /, *, max_evaluations: int
) -> Wrong:
    """Searches depth first, into the worst block, until nothing is left.

    Args:
        seen: the rule beside its function; counts the evaluations.
        rng: of the sample.
        max_evaluations: the search ends before ``seen`` has spent that many.

    Returns:
        All wrong entries, or some and how many there may be; none if no entry stands
        out of the noise.
    """
    if seen.gradients is not None:
        undefined = ~np.isfinite(seen.gradients).all(axis=0)
        if undefined.any():
            first = np.flatnonzero(undefined)[:_LISTED].tolist()
            return Wrong(dict.fromkeys(first, np.inf), int(undefined.sum()), False)
    search = _Search(seen, rng, max_evaluations)
    search.run()
    return search.result()


class _Search:
    """The state of a search: what was found, and what is left."""

    def __init__(
        self, seen: Comparison, rng: np.random.Generator, max_evaluations: int
    ):
        self.seen, self.rng, self.limit = seen, rng, max_evaluations
        self.errors: dict[int, float] = {}
        self.blocks = [(0, seen.x.size)]
        self.share, self.region = 0.0, None
        self.confined = False

    def run(self):
        while self.blocks and self._affordable(LANES):
            self._divide(*self.blocks.pop())
            if len(self.blocks) <= _MANY:
                continue
            if self.region is None:
                self._sample(self._left())
            elif self.errors and not self.confined:
                self._confine()
            if self.share >= _DENSE:
                return

    def result(self) -> Wrong:
        if not self.blocks:
            return Wrong(self.errors, len(self.errors), False)
        if self.region is None:
            self._sample(self._left())
        inside = 0 if self.region is None else np.count_nonzero(self.region)
        least = len(self.errors) + (self.share < _DENSE) * len(self.blocks)
        return Wrong(self.errors, max(least, round(self.share * inside)), True)

    def _affordable(self, evaluations):
        return self.seen.evaluations + evaluations <= self.limit

    def _divide(self, start: int, stop: int):
        """Cuts a block and keeps its wrong parts, the worst last."""
        cuts = np.unique(np.linspace(start, stop, GROUP + 1).astype(int)).tolist()
        parts = list(itertools.pairwise(cuts))
        moved = np.zeros((len(parts), self.seen.x.size))
        for row, (a, b) in zip(moved, parts, strict=True):
            row[a:b] = self.seen.direction[a:b]
        errors, bars = self.seen.gaps(moved)
        wrong = [k for k in np.argsort(errors) if errors[k] > bars[k]]
        if not wrong and not self.errors and not self.blocks and stop - start > GROUP:
            # The error is here, but too thin to be seen in a part.
            wrong = [int(np.argmax(errors / bars))]
        if not wrong and not self.errors and not self.blocks:
            errors, bars = self._carefully(moved)
            wrong = np.flatnonzero(errors > bars).tolist()
        for k in wrong:
            a, b = parts[k]
            if b - a == 1:
                self.errors[a] = float(errors[k])
            else:
                self.blocks.append((a, b))

    def _carefully(self, moved):
        """Single entries, each with a step of its own."""
        if not self._affordable(LANES * len(moved)):
            return np.zeros(len(moved)), np.ones(len(moved))
        return np.transpose([self.seen.gap_of_ladder(row) for row in moved])

    def _left(self):
        """Which entries lie in blocks that are wrong and not cut yet."""
        left = np.zeros(self.seen.x.size, bool)
        for start, stop in self.blocks:
            left[start:stop] = True
        return left

    def _sample(self, region):
        """Looks at some entries of a region one by one, if they can be paid."""
        inside = np.flatnonzero(region)
        entries = self.rng.choice(inside, min(_SAMPLE, len(inside)), replace=False)
        if not self._affordable(GROUP * len(entries)):
            return
        moved = np.zeros((len(entries), self.seen.x.size))
        moved[np.arange(len(entries)), entries] = self.seen.direction[entries]
        errors, bars = self.seen.gaps(moved)
        wrong = errors > bars
        found = zip(entries[wrong].tolist(), errors[wrong].tolist(), strict=True)
        self.errors.update(found)
        self.share, self.region = float(np.mean(wrong)), region

    def _confine(self):
        """Samples the slab in which all errors lie, if they share an index."""
        self.confined = True
        places = np.unravel_index(np.arange(self.seen.x.size), self.seen.shape)
        first = next(iter(self.errors))
        slabs = [p == p[first] for p in places if np.ptp(p)]
        outside = [np.where(slab, 0.0, self.seen.direction) for slab in slabs]
        if not outside or not self._affordable(GROUP * (len(outside) + _SAMPLE)):
            return
        errors, bars = self.seen.gaps(np.stack(outside))
        region = np.ones(self.seen.x.size, bool)
        for slab, error, bar in zip(slabs, errors, bars, strict=True):
            region &= slab | (error > bar)
        if not region.all():
            self._sample(region)
