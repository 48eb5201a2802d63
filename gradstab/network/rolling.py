"""Chains of equal blocks as one scan, so that nothing is compiled once per layer.

A model that runs through its layers in a Python loop is a program of as many copies as
it has layers. Blocks that follow each other and compute the same function of different
parameters, alone or in groups (attention, then a feed-forward block), become one block
with many layers, as those of a scan are. What a block makes must then be needed nowhere
else but for the data that leave it, and its context must be known before the chain.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gradstab import _compat
from gradstab.network.blocks import Block, Roll
from gradstab.program.canonical import Forms
from gradstab.program.trace import Program


def roll_up(plan: Sequence[Any], program: Program, /) -> tuple[list, list]:
    """Replace chains of equal blocks in a plan by rolls.

    Args:
        plan: blocks and stacks, in depth order.
        program: from `trace_program`.

    Returns:
        ``(plan, steps)``: the plan with rolls, and the way to evaluate the program
        with it: equations and rolls, in order; equations that nothing needs are left
        out. Cost: linear in the number of equations, quadratic in that of blocks.
    """
    eqns = live_equations(program)
    chains = _Chains(plan, eqns, program.closed.jaxpr.outvars)
    items, start = [], 0
    while start < len(plan):
        period, groups = chains.longest(start)
        end = start + period * groups
        items.append(chains.roll(start, end, period) if groups > 1 else plan[start])
        start = end
    rolls = [item for item in items if isinstance(item, Roll)]
    return items, _schedule(eqns, rolls)


def live_equations(program: Program, /) -> list:
    """The equations with effects, and those that an output of the program needs."""
    needed, kept = set(_variables(program.closed.jaxpr.outvars)), []
    for eqn in reversed(program.eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(_variables(eqn.invars))
    return kept[::-1]


class _Chains:
    """Where in a plan equal groups of blocks follow each other."""

    def __init__(self, plan: Sequence[Any], eqns: Sequence[_compat.JaxprEqn], outvars):
        self.plan = plan
        self._item_of = _items_of_equations(plan)
        self._users = self._items_that_use(eqns, outvars)
        forms = Forms()
        self._forms = [
            forms.number(item.eqns, item.in_vars, [item.out_var])
            if isinstance(item, Block) and not self._is_open(i)
            # Numbers of programs are not negative.
            else -1 - i
            for i, item in enumerate(plan)
        ]
        self._contexts = self._context_depths(eqns)
        self._interrupted = self._behind_effects(eqns)

    def longest(self, start: int):
        """``(period, groups)`` of the longest chain from here; the shortest period."""
        best = 1, 1
        for period in range(1, (len(self.plan) - start) // 2 + 1):
            groups = self._groups(start, period)
            if groups > 1 and groups * period > best[0] * best[1]:
                best = period, groups
        return best

    def _groups(self, start: int, period):
        """How many equal groups of this many blocks follow each other from here on."""
        if not self._equal(start, start + period):
            return 1
        end = start
        while end < len(self.plan) and self._joins(start, end, period):
            end += 1
        return (end - start) // period

    def _joins(self, start: int, number: int, period):
        block = self.plan[number]
        return (
            (number < start + period or self._equal(number, number - period))
            and isinstance(block, Block)
            and len(block.in_vars) == 1
            and self._contexts[number] < start
            and (number == start or number not in self._interrupted)
        )

    def _equal(self, one, other):
        return self._forms[one] == self._forms[other]

    def roll(self, start: int, end, period):
        """The blocks from here to the end as one scan over groups of them."""
        members = self.plan[start:end]
        copies = (members[number::period] for number in range(period))
        blocks, contexts = zip(*map(_shared_block, copies), strict=True)
        inside = set(range(start, end))
        exits = [
            (block.out_var, i % period, i // period)
            for i, block in enumerate(members)
            if self._users[block.out_var] - inside
        ]
        return Roll(tuple(members), blocks, contexts, tuple(exits))

    def _items_that_use(self, eqns: Sequence[_compat.JaxprEqn], outvars):
        """For every variable the items that use it; None stands for all the rest."""
        users: dict = {v: {None} for v in _variables(outvars)}
        for eqn in eqns:
            for v in _variables(eqn.invars):
                users.setdefault(v, set()).add(self._item_of.get(id(eqn)))
        return users

    def _is_open(self, number: int):
        """Whether a block makes anything but its output that others use."""
        block = self.plan[number]
        made = {v for eqn in _moving(block) for v in eqn.outvars} - {block.out_var}
        return any(self._users.get(v, set()) - {number} for v in made)

    def _context_depths(self, eqns: Sequence[_compat.JaxprEqn]):
        """For each item the last item on which its context depends; -1 without one."""
        depths: dict = {}
        for eqn in eqns:
            before = (depths.get(v, -1) for v in _variables(eqn.invars))
            depth = self._item_of.get(id(eqn), max(before, default=-1))
            depths.update(dict.fromkeys(eqn.outvars, depth))
        return [
            max((depths.get(v, -1) for v in item.varying_vars), default=-1)
            if isinstance(item, Block)
            else -1
            for item in self.plan
        ]

    def _behind_effects(self, eqns: Sequence[_compat.JaxprEqn]):
        """The items with an effect between the item before and their last equation.

        An effect must keep its place among all other effects.
        """
        found, effect = set(), False
        for eqn in eqns:
            effect = effect or bool(eqn.effects)
            if effect and id(eqn) in self._item_of:
                found.add(self._item_of[id(eqn)])
                effect = False
        return found


def _items_of_equations(plan: Sequence[Any]):
    return {
        id(eqn): i
        for i, item in enumerate(plan)
        for eqn in (_moving(item) if isinstance(item, Block) else [item.eqn])
    }


def _moving(block: Block):
    """The equations of a block but for those of constants, which are no block's own."""
    found, constant = [], set()
    for eqn in block.eqns:
        if all(v in constant for v in _variables(eqn.invars)):
            constant.update(eqn.outvars)
        else:
            found.append(eqn)
    return found


def _shared_block(copies):
    """The block that the copies have in common, and their varying variables."""
    first = copies[0]
    rows = list(zip(*(copy.varying_vars for copy in copies), strict=True))
    varies = [any(v is not row[0] for v in row) for row in rows]
    block = dataclasses.replace(
        first,
        varying_vars=tuple(r[0] for r, v in zip(rows, varies, strict=True) if v),
        shared_vars=tuple(r[0] for r, v in zip(rows, varies, strict=True) if not v),
        length=len(copies),
        contracted=frozenset().union(*(copy.contracted for copy in copies)),
        owned=frozenset().union(*(copy.owned for copy in copies)),
    )
    return block, tuple(row for row, v in zip(rows, varies, strict=True) if v)


def _schedule(eqns: Sequence[_compat.JaxprEqn], rolls):
    """Equations and rolls in an order in which everything is made before it is used.

    A roll stands where its last equation stood. What needs data that leave one of its
    blocks waits for it.
    """
    roll_of = {id(e): r for r in rolls for m in r.members for e in _moving(m)}
    last = {roll_of[id(eqn)]: eqn for eqn in eqns if id(eqn) in roll_of}
    steps, waiting, late = [], [], set()
    for eqn in eqns:
        roll = roll_of.get(id(eqn))
        if roll is not None:
            late.update(eqn.outvars)
        elif any(v in late for v in _variables(eqn.invars)):
            waiting.append(eqn)
            late.update(eqn.outvars)
        else:
            steps.append(eqn)
        if roll is not None and eqn is last[roll]:
            steps += [roll, *waiting]
            waiting, late = [], set()
    return steps


def _variables(atoms):
    return [v for v in atoms if not isinstance(v, _compat.Literal)]
