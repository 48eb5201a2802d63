"""Which entries of an argument cannot be moved: f, or its slope, ends there.

A step of every entry at once leaves the domain if one entry lies at its border, and
nothing is seen of the others. So a leaf is searched, in blocks, for the entries whose
own step f does not survive; they are held fixed, and the rest is judged.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.draws import held_entries, size
from gradstab.gradcheck.differences.probes import Measurement
from gradstab.gradcheck.differences.steps import ladder
from gradstab.gradcheck.places.leaf_programs import LeafPrograms
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.problem import MODES, Problem

# Parts of a block at once; each is moved to both sides.
_PARTS = 8

# Entries of one value that are tried one by one; of more a sample is.
_ONE_BY_ONE = 64

# Evaluations per leaf.
_BUDGET = 2048

# Two steps, as powers of eps, between which a slope that is finite hardly changes: that
# of x log x grows by a third, of which half is asked for.
_STEPS = 0.3, 0.4
_GROWTH = 1.16

_NO_JVP = (
    "the JVP is not finite although the entries held fixed are not moved: the VJP was "
    "checked alone in {}"
)

# What one entry with an infinite slope makes of all others, where the rule is finite.
HAZY = (Outcome.HIDDEN, Outcome.VANISHES, Outcome.UNCONFIRMED)

# So many units of rounding a movement is seen clearly with.
_CLEAR = 100


def held(
    problem: Problem,
    point: tuple,
    leaf: int,
    rng: np.random.Generator,
    /,
    *,
    steep: bool = False,
):
    """The entries of a leaf that are held, those that are not finite among them.

    Args:
        problem: what is checked.
        point: where, one array per leaf.
        leaf: its number.
        rng: of the signs.
        steep: hold entries too at which f has no finite slope on one side.

    Returns:
        ``(held, evaluations)``: a mask of the shape of the leaf, and what was spent.
        Of more than 64 entries of one value all are held if a sample of them is.
    """
    search = _Search(problem, point, leaf, rng, steep)
    search.run()
    return search.held.reshape(problem.leaves[leaf].shape), search.programs.evaluations


def steep_entries(problem: Problem, look: Any, point: tuple, rng, /):
    """The few entries at which f is too steep to tell anything of the others.

    A rule may be finite there, as one that is zero beside a root.

    Args:
        problem: what is checked.
        look: what was seen: leaves of which it says too little are searched.
        point: where.
        rng: of the signs.

    Returns:
        ``(masks, evaluations)``: what is to be held in every leaf, and what was spent.
        The masks are None if there are no such entries, or if most are.
    """
    before, spent = look.seen.draw.held, 0
    masks = list(before)
    for i, name in enumerate(problem.names):
        if any(g.leaf == name and g.state in HAZY for g in look.findings):
            mask, used = held(problem, point, i, rng, steep=True)
            few = np.count_nonzero(mask) <= mask.size / 2
            masks[i], spent = mask if few else masks[i], spent + used
    same = all(map(np.array_equal, masks, before))
    return None if same else tuple(masks), spent


def held_notes(problem: Problem, seen: Measurement, /) -> Iterator[str]:
    """What the reader should know of the entries that were not moved.

    Args:
        problem: what is checked.
        seen: the measurement at the point given.
    """
    names = problem.names
    for name, x, mask in zip(names, problem.leaves, seen.draw.held, strict=True):
        lost = mask & ~np.isfinite(np.asarray(x))
        if num := int(lost.sum()):
            what = "entry of {} is" if num == 1 else "entries of {} are"
            yield f"{num} {what.format(name)} not finite: held fixed"
        if num := int((mask & ~lost).sum()):
            what = "entry" if num == 1 else "entries"
            yield f"f ends at {num} {what} of {name}: held fixed"
    if set(MODES) <= set(problem.modes):
        leaves = zip(names, seen.leaves, strict=False)
        lost = [name for name, p in leaves if "forward" not in p.rules]
        if lost:
            yield _NO_JVP.format(", ".join(lost))


class _Search:
    def __init__(
        self,
        problem: Problem,
        point: tuple,
        leaf: int,
        rng: np.random.Generator,
        steep,
    ):
        self.point, self.rng, self.steep = point, rng, steep
        self.programs = LeafPrograms(problem, leaf)
        self.x = np.asarray(point[leaf]).ravel()
        self.held = held_entries(point)[leaf].ravel().copy()
        self.eps = float(jnp.finfo(problem.dtype).eps)
        finest = ladder(problem.dtype)[-1]
        steps = [self.eps**power for power in _STEPS] if steep else [finest]
        self.steps = size(self.x, self.held) * np.array(steps)
        self.signs = rng.choice([-1.0, 1.0], self.x.size)

    def run(self):
        """Finds one entry, holds those of its value that are like it, and goes on."""
        while self.programs.evaluations < _BUDGET:
            free = np.flatnonzero(~self.held)
            if not free.size or not self._ends([free])[0]:
                return
            if (entry := self._one_of(free)) is None:
                return
            alike = free[self.x[free] == self.x[entry]]
            self.held[self._those_that_end(alike)] = True
            self.held[entry] = True

    def _one_of(self, block):
        """An entry whose own step f does not survive; None if only several do."""
        while len(block) > 1:
            cuts = np.unique(np.linspace(0, len(block), _PARTS + 1).astype(int))
            parts = [block[a:b] for a, b in itertools.pairwise(cuts)]
            ends = self._ends(parts)
            if not any(ends):
                return None
            block = parts[ends.index(True)]
        return block[0] if self._ends([block])[0] else None

    def _those_that_end(self, entries):
        few = len(entries) <= _ONE_BY_ONE
        tried = entries if few else self.rng.choice(entries, _ONE_BY_ONE, replace=False)
        ends = self._ends([tried[k : k + 1] for k in range(len(tried))])
        return tried[ends] if few or not all(ends) else entries

    def _ends(self, blocks) -> list[bool]:
        """Whether f, or its slope, ends on one side if a block of entries is moved."""
        moves = [side * h for h in self.steps for side in (1.0, -1.0)]
        rows = np.repeat(self.x[None], len(blocks) * len(moves) + 1, axis=0)
        for row, (block, move) in zip(
            rows, itertools.product(blocks, moves), strict=False
        ):
            row[block] += (move * self.signs[block]).astype(self.x.dtype)
        values = self.programs.values(self.point, rows)
        there = values[:-1].reshape(len(blocks), len(moves), -1)
        ends = ~np.isfinite(there).all(axis=(1, 2))
        return (ends | self._grows(there, values[-1])).tolist()

    @np.errstate(invalid="ignore", over="ignore")
    def _grows(self, there, here):
        """Whether the slope on one side is larger, the smaller the step."""
        if not self.steep:
            return np.zeros(len(there), bool)
        change = np.linalg.norm(there - here, axis=-1)
        coarse, fine = change[:, :2], change[:, 2:]
        ratio = self.steps[0] / self.steps[1]
        clear = fine > _CLEAR * self.eps * np.linalg.norm(here)
        return np.any(clear & (fine * ratio > _GROWTH * coarse), axis=1)
