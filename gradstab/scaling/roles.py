"""What each parameter of a model is, found by comparing the model at two widths."""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from gradstab import _tree
from gradstab.network.adapters import Target
from gradstab.program.trace import Program, trace_program
from gradstab.program.uses import DataProduct, Mark, Met, Use, parameters_met

# Of a parameter at one width, and at a larger one.
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


class Role(enum.StrEnum):
    """What a parameter is, as parametrisations of width know it."""

    INPUT = "input"
    """A product from an axis that stays to one that grows with the width."""
    HIDDEN = "hidden"
    """A product from an axis that grows to one that grows."""
    OUTPUT = "output"
    """A product from an axis that grows to one that stays."""
    EMBEDDING = "embedding"
    """A table of rows that grow, of which some are looked up."""
    VECTOR = "vector"
    """One axis that grows, entry by entry: a bias, a gain, a position."""
    TIED = "tied embedding"
    """A table that is looked up, and multiplied with to give the output."""
    FIXED = "fixed"
    """Nothing in it grows with the width."""
    AMBIGUOUS = "ambiguous"
    """More than one of these, or none that is known."""

    @property
    def sums(self) -> bool:
        """Whether a result sums over an axis that grows."""
        return self in (Role.HIDDEN, Role.OUTPUT)

    @property
    def spreads(self) -> bool:
        """Whether the results lie along an axis that grows."""
        return self not in (Role.OUTPUT, Role.FIXED)


class Found(NamedTuple):
    """The role of one parameter, and where it is known from.

    Attributes:
        role: what it is.
        axes: of its axes those that grow.
        note: what a reader should know; empty if nothing.
    """

    role: Role
    axes: tuple[int, ...]
    note: str = ""


def uses_of(target: Target, /) -> Met:
    """The uses of the parameters of a model, without evaluating it."""
    arrays = (target.params, target.state, target.inputs)
    return uses_in(trace_program(target.apply, *arrays), target)


def uses_in(program: Program, target: Target, /) -> Met:
    """The uses of the parameters of a model in its program."""
    leaves = jax.tree.leaves((target.params, target.state, target.inputs))
    marks = marks_for(target)
    met = []

    def run(*leaves: Any) -> None:
        met.append(parameters_met(program.closed, leaves, leaves, marks))

    jax.eval_shape(run, *leaves)
    return met[0]._replace(effects=())


def marks_for(target: Target, /) -> list[Mark]:
    """What the leaves of ``(params, state, inputs)`` are made of."""
    params = len(jax.tree.leaves(target.params))
    state = len(jax.tree.leaves(target.state))
    inputs = jax.tree.leaves(target.inputs)
    own = [Mark(frozenset({i})) for i in range(params)]
    # A key of the inputs makes masks, not data.
    given = [Mark(is_data=not _tree.is_key(leaf)) for leaf in inputs]
    return [*own, *[Mark()] * state, *given]


def from_uses(
    narrow: Sequence[Use], wide: Sequence[Use], shapes: Sequence[Shapes]
) -> list[Found]:
    """The role of every parameter from its uses at two widths.

    Args:
        narrow: the uses at one width.
        wide: the same at a larger one, in the same order.
        shapes: for each parameter its shape at the one and at the other.
    """
    roles: list[set[Role]] = [set() for _ in shapes]
    notes = [""] * len(shapes)
    for small, large in zip(narrow, wide, strict=True):
        role = _role(small, large)
        for leaf in small.leaves:
            axes = _growing(*shapes[leaf])
            if role is Role.HIDDEN and len(axes) < 2:
                # Part of a sum or product of parameters that together are hidden.
                notes[leaf] = "used only together with other parameters"
                roles[leaf].add(Role.AMBIGUOUS)
            elif axes:
                roles[leaf].add(role)
    return [
        _settled(_growing(*pair), found, note)
        for pair, found, note in zip(shapes, roles, notes, strict=True)
    ]


def _role(small: Use, large: Use) -> Role:
    sums, spreads = large.summed > small.summed, large.beside > small.beside
    if small.kind == "lookup":
        return Role.EMBEDDING if spreads else Role.FIXED
    if small.kind == "entries":
        return Role.VECTOR if spreads else Role.FIXED
    if small.kind == "other":
        return Role.AMBIGUOUS
    if sums:
        return Role.HIDDEN if spreads else Role.OUTPUT
    return Role.INPUT if spreads else Role.FIXED


def _settled(axes: tuple[int, ...], roles: set[Role], note: str) -> Found:
    roles = roles - {Role.FIXED} if len(roles) > 1 else roles
    if not axes:
        return Found(Role.FIXED, axes)
    if not roles:
        return Found(Role.AMBIGUOUS, axes, note or "no use of it was found")
    if roles == {Role.EMBEDDING, Role.OUTPUT}:
        return Found(Role.TIED, axes, "looked up, and multiplied with for the output")
    if roles == {Role.VECTOR} and len(axes) > 1:
        return Found(
            Role.AMBIGUOUS, axes, "meets the data entry by entry with two growing axes"
        )
    if len(roles) == 1:
        (role,) = roles
        if role is Role.AMBIGUOUS and not note:
            note = "used inside of a branch, an unbounded loop or an opaque operation"
        return Found(role, axes, note)
    if roles <= {Role.EMBEDDING, Role.VECTOR, Role.INPUT}:  # all scale alike
        return Found(Role.EMBEDDING, axes)
    names = ", ".join(sorted(roles))
    return Found(Role.AMBIGUOUS, axes, f"used as {names}")


def from_names(
    names: Sequence[str], shapes: Sequence[Shapes], *, output_first: bool
) -> list[Found]:
    """The role of every parameter from its name and shape alone.

    Args:
        names: dotted paths.
        shapes: for each parameter its shape at one width and at a larger one.
        output_first: whether kernels are (output, input), as those of Equinox are.
    """
    return [
        _by_name(name.lower(), *pair, output_first)
        for name, pair in zip(names, shapes, strict=True)
    ]


_GUESS = "by its name and shape; with inputs= the program says what it is"


def _by_name(
    name: str, shape: tuple[int, ...], larger: tuple[int, ...], output_first: bool
) -> Found:
    axes = _growing(shape, larger)
    if not axes:
        return Found(Role.FIXED, axes)
    last = name.rpartition(".")[2]
    if "embed" in name:
        return Found(Role.EMBEDDING, axes, _GUESS)
    if len(shape) == 1 or last in ("bias", "scale", "b", "offset"):
        return Found(Role.VECTOR, axes, _GUESS)
    if len(axes) > 1:
        return Found(Role.HIDDEN, axes, _GUESS)
    towards_end = axes == (len(shape) - 1,)
    if output_first:
        towards_end = axes == (0,)
    return Found(Role.INPUT if towards_end else Role.OUTPUT, axes, _GUESS)


def _growing(shape: tuple[int, ...], larger: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        i for i, pair in enumerate(zip(shape, larger, strict=True)) if pair[1] > pair[0]
    )


def growing_products(
    narrow: Sequence[DataProduct], wide: Sequence[DataProduct]
) -> list[DataProduct]:
    """Products of data with data over an axis that grows with the width."""
    pairs = zip(narrow, wide, strict=False)
    return [small for small, large in pairs if large.summed > small.summed]
