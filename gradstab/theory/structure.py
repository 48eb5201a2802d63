"""A layer's equations as steps for which mean-field theory has a word.

Between two articulation points of a block lies a product with weights, a shift by a
bias, an activation, a normalisation or a sum of branches. What is none of these is
`Unknown`, with the reason.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.activations import is_elementwise
from gradstab.network.blocks import Block
from gradstab.program import primitives
from gradstab.program.primitives import Kind


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A run of equations.

    Attributes:
        eqns: all that the result needs beside the root, in order.
        root: the data that enter.
        result: the data that leave.
    """

    eqns: tuple
    root: _compat.Var
    result: _compat.Var


class Reshape(Step):
    """The same entries in another order or shape."""


class Affine(Step):
    """Every entry is multiplied with, or added to, a number known beforehand."""


class Elementwise(Step):
    """A nonlinear function of every entry."""


class Norm(Step):
    """Entries divided by a statistic of many of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Product(Step):
    """A product with weights.

    Attributes:
        weight: the variable that holds them.
        position: which operand of the product the data are.
    """

    weight: _compat.Var
    position: int

    @property
    def eqn(self) -> _compat.JaxprEqn:
        """The equation of the product."""
        return next(e for e in self.eqns if self.result in e.outvars)


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Step):
    """Two branches that start from the same data and are added.

    Attributes:
        branches: the steps of each; none for an identity connection.
    """

    branches: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown(Step):
    """Something without a theory.

    Attributes:
        reason: what it is.
    """

    reason: str


def steps_of(block: Block, /) -> tuple[Step, ...]:
    """The steps of a block, found once per block."""
    return block.programs.get("steps", lambda: _of_block(block))


def ends_in_norm(block: Block, /) -> bool:
    """Whether what leaves a block is normalised, but for a scale and a shift."""
    for step in reversed(steps_of(block)):
        if not isinstance(step, Affine | Reshape):
            return isinstance(step, Norm)
    return False


def is_linear(block: Block, /) -> bool:
    """Whether a block is one product with weights, but for a scale, a shift, an order.

    A normalisation before the product is none of the layer's own making: it closes what
    comes before.
    """
    steps = [s for s in steps_of(block) if not isinstance(s, Affine | Reshape)]
    return (
        bool(steps)
        and isinstance(steps[-1], Product)
        and all(isinstance(step, Norm) for step in steps[:-1])
    )


def every_step(steps: Iterable[Step], /) -> Iterator[Step]:
    """The steps, those of branches among them."""
    for step in steps:
        yield step
        for branch in getattr(step, "branches", ()):
            yield from every_step(branch)


def describe(step: Step, /) -> str:
    """The name of an activation: its rule's name, or its primitives."""
    words = []
    for eqn in step.eqns:
        name = primitives.name_of(eqn)
        if _compat.is_rule(eqn):
            name = _compat.rule_name(eqn)
        if not primitives.is_a(eqn, Kind.SILENT) and name not in words:
            words.append(name)
    return " + ".join(words if len(words) < 6 else [*words[:5], "..."])


def leaves(eqns: Sequence[_compat.JaxprEqn], root: _compat.Var, /) -> list:
    """The variables beside the root that the equations need and do not make."""
    made = {v for eqn in eqns for v in eqn.outvars} | {root}
    used = dict.fromkeys(v for eqn in eqns for v in _variables(eqn))
    return [v for v in used if v not in made]


def needed(
    eqns: Sequence[_compat.JaxprEqn], root: _compat.Var, result: _compat.Var, /
) -> tuple:
    """The equations that the result needs beside the root, in order."""
    wanted, kept = {result}, []
    for eqn in reversed(eqns):
        if any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(v for v in _variables(eqn) if v is not root)
    return tuple(kept[::-1])


def _of_block(block: Block) -> tuple[Step, ...]:
    if len(block.in_vars) != 1:
        reason = "several arrays enter" if block.in_vars else "its input is integers"
        return (Unknown(block.eqns, block.out_var, block.out_var, reason),)
    flow = flows.trace_flow(block.eqns, data=block.in_vars)
    return _parse(block.eqns, flow, block.in_vars[0], block.out_var)


def _parse(
    eqns: tuple, flow: flows.Flow, root: _compat.Var, result: _compat.Var
) -> tuple[Step, ...]:
    if result is root:
        return ()
    inside = needed(eqns, root, result)
    found = []
    for atom in flows.atoms(inside, flow, (root,), result):
        (start,) = atom.in_vars
        step = _step(atom, needed(inside, start, atom.out_var), flow, start)
        before = found[-1] if found else None
        # Centring may be an articulation point within a normalisation.
        norms = isinstance(step, Norm) and isinstance(before, Norm)
        if norms or (_bare(step) and _bare(before)):
            found[-1] = _joined(before, step, inside)
        else:
            found.append(step)
    return tuple(found)


def _step(atom: flows.Atom, eqns: tuple, flow: flows.Flow, root: _compat.Var) -> Step:
    ends = eqns, root, atom.out_var
    last = atom.eqns[-1]
    if len(atom.eqns) == 1 and primitives.is_a(last, Kind.RESHAPES):
        sizes = {math.prod(_compat.shape_of(v)) for v in (root, atom.out_var)}
        copies = "entries that are copied"
        return Reshape(*ends) if len(sizes) == 1 else Unknown(*ends, copies)
    if (
        primitives.is_named(last, "dot_general", "conv_general_dilated")
        and len(atom.eqns) == 1
    ):
        moving = [flow.is_data(v) for v in last.invars]
        if sum(moving) == 1:
            position = moving.index(True)
            return Product(*ends, last.invars[1 - position], position)
    if all(_same_shape(eqn, root) and is_elementwise(eqn) for eqn in atom.eqns):
        linear = len(atom.eqns) == 1 and _is_linear(last, flow)
        return Affine(*ends) if linear else Elementwise(*ends)
    if primitives.is_named(last, "add", "add_any") and all(
        map(flow.is_data, last.invars)
    ):
        return Sum(*ends, tuple(_parse(eqns, flow, root, v) for v in last.invars))
    names = set(map(primitives.name_of, atom.eqns))
    products = names & flows.CONTRACTIONS
    if any(map(primitives.reduces, atom.eqns)) and not products:
        if _compat.shape_of(root) == _compat.shape_of(atom.out_var):
            return Norm(*ends)
        return Unknown(*ends, _pooling(names))
    return Unknown(*ends, _reason(atom, products, names))


def _pooling(names: set[str]) -> str:
    return f"pooling ({', '.join(sorted(n for n in names if 'reduce' in n))})"


def _reason(atom: flows.Atom, products: set[str], names: set[str]) -> str:
    if products or sum(not is_elementwise(eqn) for eqn in atom.eqns) == 0:
        return "streams of data that are multiplied with one another"
    return f"no recursion for {', '.join(sorted(names)[:4])}"


def _is_linear(eqn: _compat.JaxprEqn, flow: flows.Flow) -> bool:
    moving = [flow.is_data(v) or flow.is_dependent(v) for v in eqn.invars]
    if primitives.is_named(eqn, "select_n"):
        return sum(moving) == 1 and not moving[0]
    if not primitives.is_a(eqn, Kind.LINEAR) or sum(moving) != 1:
        return False
    return not primitives.is_named(eqn, "div") or moving[0]


def _same_shape(eqn: _compat.JaxprEqn, root: _compat.Var) -> bool:
    return all(_compat.shape_of(v) == _compat.shape_of(root) for v in eqn.outvars)


def _bare(step: Step | None) -> bool:
    """Whether the step is a function of single entries without parameters."""
    if isinstance(step, Affine):
        return not leaves(step.eqns, step.root)
    return isinstance(step, Elementwise)


def _joined(first, second: Step, eqns: tuple) -> Step:
    kind = type(first) if type(first) is type(second) else Elementwise
    inside = needed(eqns, first.root, second.result)
    return kind(inside, first.root, second.result)


def _variables(eqn: _compat.JaxprEqn) -> list[_compat.Var]:
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
