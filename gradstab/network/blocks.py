"""The functions that layers compute: blocks, and scans over blocks."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab.network import flow as flows
from gradstab.program import primitives
from gradstab.program.cache import Cache


class Context(NamedTuple):
    """What a block needs beside the data: parameters, keys, masks.

    Attributes:
        varying: values of `Block.varying_vars`; for a block of many layers each with a
            leading axis over its layers, or a tuple with one array for each of them.
        shared: values of `Block.shared_vars`, the same for all of its layers.
    """

    varying: Any
    shared: Any

    def stacked(self):
        """The context of many layers with a leading axis over them everywhere."""
        varying = [jnp.stack(v) if isinstance(v, tuple) else v for v in self.varying]
        return self._replace(varying=varying)


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """The function that one layer, or each of many equal layers, computes.

    Attributes:
        eqns: its equations, in order.
        varying_vars: context that each of its layers has for itself.
        shared_vars: context that all of them share.
        in_vars: the data that enter: one variable, or all floating inputs, or none
            (an embedding of integers).
        out_var: the data that leave.
        length: the number of layers that share it; 1 outside a scan or roll.
        reverse: whether the first of these layers owns the last slice of the
            parameters, as in a reversed scan.
        contracted: parameter leaves that it multiplies the data with.
        owned: all parameter leaves that it uses.
        sliced: those of them of which each layer of a scan owns one slice.
        stack: the leaves of which the layers of its scan own slices.
        start: the first slice that its layers own; in a scan without slices the first
            iteration that they are. None outside of a scan.
        programs: what was compiled, or found, for it once.
    """

    eqns: tuple
    varying_vars: tuple
    shared_vars: tuple
    in_vars: tuple
    out_var: _compat.Var
    length: int
    reverse: bool
    contracted: frozenset
    owned: frozenset
    sliced: frozenset
    stack: frozenset = frozenset()
    start: int | None = None
    programs: Cache = dataclasses.field(default_factory=Cache, init=False, repr=False)

    def __call__(self, context: Context, *data):
        """The data that leave, for this context and these data that enter."""
        env = self.environment(context, data)
        (out,) = _compat.program_function(list(env), [self.out_var], self.eqns)(
            *env.values()
        )
        return out

    def environment(self, context: Context, data: Sequence[Any], /) -> dict:
        """The values of all variables that enter the block."""
        context = _tree.fresh_keys(context)  # what is drawn here was drawn before
        env = dict(zip(self.varying_vars, context.varying, strict=True))
        env.update(zip(self.shared_vars, context.shared, strict=True))
        env.update(zip(self.in_vars, data, strict=True))
        return env


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A scan over layers.

    Attributes:
        eqn: the scan equation.
        parts: its body and counts.
        body: the body, flat.
        blocks: the functions of the layers of one iteration, in depth order.
    """

    eqn: _compat.JaxprEqn
    parts: _compat.ScanParts
    body: Any
    blocks: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Roll:
    """A chain of equal blocks, or of equal groups of blocks, that became one scan.

    Attributes:
        members: the blocks as they were found, in depth order: group after group.
        blocks: the functions that the groups share, in depth order. Their variables
            are those of the first group; their length is the number of groups.
        contexts: for each of them and each of its varying variables a tuple with the
            variable of every group.
        exits: ``(variable, block, group)`` of the data that leave one of the members
            and are needed outside of the chain.
    """

    members: tuple
    blocks: tuple
    contexts: tuple
    exits: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Outline:
    """A flat program or scan body, and how it makes blocks of its atoms.

    Attributes:
        eqns: its equations, in order.
        flow: from `trace_flow`.
        length, reverse: of the scan whose body it is; 1 and False for a program.
        shared: variables that are the same in every iteration of the scan.
        slices: by variable what it is made of, from `find_slices`.
    """

    eqns: tuple
    flow: flows.Flow
    length: int = 1
    reverse: bool = False
    shared: frozenset = frozenset()
    slices: dict = dataclasses.field(default_factory=dict)

    def contracts(self, atom) -> frozenset:
        """Parameter leaves that an atom multiplies the data with."""
        leaves = (flows.contracts_parameter(eqn, self.flow) for eqn in atom.eqns)
        return frozenset().union(*leaves)

    def block(self, atom) -> Block:
        """The block that computes an atom."""
        inside = self._local_equations(atom)
        made = {v for eqn in inside for v in eqn.outvars} | set(atom.in_vars)
        used = dict.fromkeys(v for eqn in inside for v in _variables(eqn))
        context = [v for v in used if v not in made]
        owned = frozenset().union(*(self.flow.params_of(v) for v in context))
        slices = [part for v in context for part in self.slices.get(v, ())]
        return Block(
            eqns=tuple(inside),
            varying_vars=tuple(v for v in context if v not in self.shared),
            shared_vars=tuple(v for v in context if v in self.shared),
            in_vars=atom.in_vars,
            out_var=atom.out_var,
            length=self.length,
            reverse=self.reverse,
            contracted=self.contracts(atom),
            owned=owned,
            sliced=frozenset(p.leaf for p in slices if p.leaf is not None),
            stack=frozenset().union(*(part.stack for part in slices)),
            start=min((part.start for part in slices), default=None),
        )

    def _local_equations(self, atom):
        """The atom's equations, and those of masks and constants that they need."""
        data_eqns, local = set(map(id, atom.eqns)), set(atom.in_vars)
        # What follows from the data that enter comes after them.
        first = max((self._position.get(v, -1) for v in atom.in_vars), default=-1)
        inside = {}
        for i in range(first + 1, self._position[atom.out_var] + 1):
            eqn = self.eqns[i]
            needs = [v for v in _variables(eqn) if self._moves(v)]
            derived = bool(needs) and all(v in local for v in needs)
            if id(eqn) in data_eqns or derived:
                inside[i] = eqn
                local.update(eqn.outvars)
        inside = self._needed(inside, atom.out_var)
        return [inside[i] for i in sorted(inside)]

    def _needed(self, inside, out_var: _compat.Var):
        """Those of the equations that the output needs, with constants, by position."""
        needed, kept = [out_var], {}
        while needed:
            position = self._position.get(needed.pop())
            if position is None or position in kept:
                continue
            if position in inside or position in self._constants:
                kept[position] = self.eqns[position]
                needed += _variables(kept[position])
        return kept

    @functools.cached_property
    def _position(self):
        """Where each variable is made."""
        return {v: i for i, eqn in enumerate(self.eqns) for v in eqn.outvars}

    @functools.cached_property
    def _constants(self):
        """Positions of equations made from nothing but numbers written in the program.

        Random numbers from a key that the program makes are not among them: two blocks
        that draw them again would use the key twice.
        """
        found, constant = set(), set()
        for i, eqn in enumerate(self.eqns):
            pure = not eqn.effects and not primitives.draws(eqn)
            if pure and all(v in constant for v in _variables(eqn)):
                found.add(i)
                constant.update(eqn.outvars)
        return found

    def _moves(self, variable: _compat.Var):
        return self.flow.is_data(variable) or self.flow.is_dependent(variable)


def _variables(eqn: _compat.JaxprEqn):
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
