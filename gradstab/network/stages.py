"""Recurrent layers that lie upon each other inside of one scan over time.

A deep recurrent network may run all of its layers at one time step before it goes to
the next. What one layer hands to the next one at a time step does not come back: the
scan is as many scans after each other, one for each layer, the next over all that the
one before returned. The programs compute the same numbers. Layers that do feed back
into each other are one.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.boundaries import packed, unpacked
from gradstab.network.reasons import module
from gradstab.program.trace import Program, flatten_body
from gradstab.program.walk import (
    evaluate,
    evaluated,
    read,
    retraced,
    split_operands,
    walk,
)


class Stage(NamedTuple):
    """A part of the body of a scan that needs nothing of later ones.

    Attributes:
        carries: positions of the carries that it moves.
        eqns: its equations, in order.
        modules: of the parameters that it multiplies the data with.
    """

    carries: tuple[int, ...]
    eqns: tuple
    modules: frozenset


@dataclasses.dataclass(frozen=True, eq=False)
class DeepScan:
    """A scan over time as stages.

    Attributes:
        parts: of the scan equation.
        body: its body, flat.
        fixed: equations that are the same at every step.
        stages: in the order of evaluation.
        data: variables of the body that are data.
    """

    parts: _compat.ScanParts
    body: _compat.ClosedJaxpr
    fixed: tuple
    stages: tuple[Stage, ...]
    data: frozenset

    def run(self, operands: Sequence[Any], num_examples: int) -> list:
        """The results of the scan: one scan for each stage."""
        parts, invars = self.parts, self.body.jaxpr.invars
        first, last = parts.num_consts, parts.num_consts + parts.num_carry
        consts, begin, slices = split_operands(parts, operands)
        still = dict(_compat.constants(self.body))
        still.update(zip(invars[:first], consts, strict=True))
        walk(self.fixed, still)
        start = dict(enumerate(begin))
        steps = dict(zip(invars[last:], slices, strict=True))
        outs = self.body.jaxpr.outvars
        carried = {}
        for number, stage in enumerate(self.stages):
            wanted = self._wanted(number)

            needed = self._needed(stage)
            sliced = [v for v in steps if v in needed]

            def step(carry: Any, xs: Any, stage=stage, wanted=wanted, sliced=sliced):
                env = still | dict(zip(sliced, xs, strict=True))
                env.update({invars[first + i]: value for i, value in carry.items()})
                walk(stage.eqns, env)
                carry = {i: read(env, outs[i]) for i in stage.carries}
                return carry, [env[v] for v in wanted]

            carry, ys = jax.lax.scan(
                step,
                {i: start[i] for i in stage.carries},
                [steps[v] for v in sliced],
                length=parts.length,
                reverse=parts.reverse,
            )
            carried.update(carry)
            steps.update(zip(wanted, ys, strict=True))
            self._hand_over(steps, number, num_examples)
        returned = [
            steps[v] if v in steps else self._repeated(still, v)
            for v in outs[parts.num_carry :]
        ]
        return [*(carried[i] for i in range(parts.num_carry)), *returned]

    def _hand_over(self, steps, number: int, num_examples: int):
        """Lead all that moves on through one array with the examples in front."""
        later = [self._needed(stage) for stage in self.stages[number + 1 :]]
        if not later:
            return
        returned = self.body.jaxpr.outvars[self.parts.num_carry :]
        used = set(_variables(returned)).union(*later)
        passing = [v for v in steps if v in used and v in self.data]
        arrays = [steps[v] for v in passing]
        if not all(array.shape[1:2] == (num_examples,) for array in arrays):
            return
        turned = [jnp.swapaxes(array, 0, 1) for array in arrays]
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in turned]
        parted = unpacked(packed(turned, num_examples), shapes, num_examples)
        turned = [jnp.swapaxes(x, 0, 1) for x in parted]
        steps.update(zip(passing, turned, strict=True))

    def _needed(self, stage):
        """What the equations of a stage and its carries read."""
        outs = [self.body.jaxpr.outvars[i] for i in stage.carries]
        found = {v for eqn in stage.eqns for v in _variables(eqn.invars)}
        return found | set(_variables(outs))

    def _wanted(self, number: int):
        """What a stage makes that later ones read, or the scan returns."""
        stage, first = self.stages[number], self.parts.num_consts
        made = [self.body.jaxpr.invars[first + i] for i in stage.carries]
        made += [v for eqn in stage.eqns for v in eqn.outvars]
        later = [self._needed(other) for other in self.stages[number + 1 :]]
        returned = self.body.jaxpr.outvars[self.parts.num_carry :]
        used = set(_variables(returned)).union(*later)
        return [v for v in made if v in used]

    def _repeated(self, still, atom):
        value = read(still, atom)
        return jnp.broadcast_to(value, (self.parts.length, *jnp.shape(value)))


def part_stages(program: Program, flow: flows.Flow, num_examples: int, /):
    """The program with a scan for each of the layers inside of a scan over time.

    Args:
        program: from `trace_program`.
        flow: its flow.
        num_examples: length of the example axis.

    Returns:
        The program itself where no scan holds several. Cost: a trace where one does.
    """
    found = {}
    for eqn in program.eqns:
        deep = _deep_scan(eqn, flow, program.param_names)
        if deep is not None:
            found[id(eqn)] = deep
    if not found:
        return program
    closed = program.closed

    def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]):
        if id(eqn) in found:
            return found[id(eqn)].run(operands, num_examples)
        return evaluate(eqn, operands)

    def run(*values):
        return evaluated(closed, values, rule)

    return dataclasses.replace(program, closed=retraced(closed, run))


def _deep_scan(
    eqn: _compat.JaxprEqn, flow: flows.Flow, paths: Sequence[str]
) -> DeepScan | None:
    """The stages of a scan over time; None if it is none, or has but one."""
    parts = _compat.scan_parts(eqn)
    if parts is None or parts.num_carry < 2 or eqn.effects:
        return None
    xs = eqn.invars[parts.num_consts + parts.num_carry :]
    if not any(flow.is_data(v) or flow.is_dependent(v) for v in xs):
        return None
    if not flows.contracts_parameter(eqn, flow):
        return None
    body = flatten_body(parts.body)
    inner = body.jaxpr.invars
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    moving = {*inner[first:]}
    fixed = []
    for e in body.jaxpr.eqns:
        if any(v in moving for v in _variables(e.invars)):
            moving.update(e.outvars)
        else:
            fixed.append(e)
    owners = {v: flow.params_of(o) for v, o in zip(inner, eqn.invars, strict=True)}
    data = [v for v in inner[first:last] if _compat.is_floating(v)]
    data += [v for v, o in zip(inner, eqn.invars, strict=True) if flow.is_data(o)]
    dependent = [
        v for v, o in zip(inner, eqn.invars, strict=True) if flow.is_dependent(o)
    ]
    inside = flows.trace_flow(
        body.jaxpr.eqns, data=data, dependent=dependent, owners=owners
    )
    stages = _stages(body, parts, fixed, inside, paths)
    if len(stages) < 2:
        return None
    return DeepScan(parts, body, tuple(fixed), tuple(stages), inside.data)


def _stages(
    body: _compat.ClosedJaxpr,
    parts: _compat.ScanParts,
    fixed,
    flow: flows.Flow,
    paths: Sequence[str],
):
    """The stages, joined where one has no product or is no layer of its own."""
    skipped, stages = set(map(id, fixed)), []
    outs = body.jaxpr.outvars

    def stage(carries, wanted):
        eqns = _slice(body, wanted, skipped)
        skipped.update(map(id, eqns))
        leaves = (flows.contracts_parameter(e, flow) for e in eqns)
        modules = {module(paths[i]) for i in frozenset().union(*leaves)}
        return Stage(tuple(carries), tuple(eqns), frozenset(modules))

    for group in _cycles(body, parts):
        stages.append(stage(sorted(group), [outs[i] for i in group]))
    stages.append(stage((), outs[parts.num_carry :]))
    found = []
    for new in stages:
        if found and _belongs(found[-1], new):
            found[-1] = _joined(body, found[-1], new)
        else:
            found.append(new)
    if len(found) > 1 and not found[-1].modules:
        found[-2:] = [_joined(body, found[-2], found[-1])]
    return found


def _belongs(before, new):
    """Whether two stages are one layer: a cell, and what it makes of its state."""
    if not before.modules or before.modules & new.modules:
        return True
    if new.carries or not new.modules:
        return False
    parents = {m.rpartition(".")[0] for m in before.modules | new.modules}
    numbered = any(re.search(r"\d$", m) for m in new.modules)
    return len(parents) == 1 and parents != {""} and not numbered


def _joined(body: _compat.ClosedJaxpr, one, other):
    ours = set(map(id, (*one.eqns, *other.eqns)))
    return Stage(
        (*one.carries, *other.carries),
        tuple(e for e in body.jaxpr.eqns if id(e) in ours),
        one.modules | other.modules,
    )


def _cycles(body: _compat.ClosedJaxpr, parts: _compat.ScanParts):
    """Groups of carries that need each other, those that others need first."""
    first = parts.num_consts
    number = {v: i for i, v in enumerate(body.jaxpr.invars[first:])}
    reach = []
    for out in body.jaxpr.outvars[: parts.num_carry]:
        eqns = _slice(body, [out], set())
        used = {v for e in eqns for v in _variables(e.invars)} | {*_variables([out])}
        carries = {number[v] for v in used if v in number}
        reach.append({i for i in carries if i < parts.num_carry})
    for _ in reach:
        reach = [r.union(*(reach[j] for j in r)) for r in reach]
    groups: list[set] = []
    for i, needs in enumerate(reach):
        group = {i} | {j for j in needs if i in reach[j]}
        if group not in groups:
            groups.append(group)
    # What needs more comes later: a group needs all that those before it need.
    return sorted(groups, key=lambda g: len(set().union(*(reach[i] for i in g)) | g))


def _slice(body: _compat.ClosedJaxpr, wanted, skipped):
    """The equations that these need, without those skipped, in order."""
    needed, kept = set(_variables(wanted)), []
    for eqn in reversed(body.jaxpr.eqns):
        if id(eqn) not in skipped and any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(_variables(eqn.invars))
    return kept[::-1]


def _variables(atoms):
    return [v for v in atoms if not isinstance(v, _compat.Literal)]
