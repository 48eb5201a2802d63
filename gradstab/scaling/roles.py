"""What each parameter of a model is, found by comparing the model at two widths."""

import enum
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from gradstab import _tree
from gradstab.network.adapters import Target
from gradstab.program.trace import Program
from gradstab.program.uses import Mark, Met, Use, parameters_met

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
        factor: exponent of the width in what the program multiplies it with.
        missing: exponent of the width that a product of data lacks, such as that of
            queries and keys, and that this parameter can take.
    """

    role: Role
    axes: tuple[int, ...]
    note: str = ""
    factor: float = 0.0
    missing: float = 0.0


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
        for leaf in small.leaves:
            axes = growing(*shapes[leaf])
            role = role_of(small, large, shapes[leaf])
            if role is Role.HIDDEN and len(axes) < 2:
                # Part of a sum or product of parameters that together are hidden.
                notes[leaf] = "used only together with other parameters"
                roles[leaf].add(Role.AMBIGUOUS)
            elif axes:
                roles[leaf].add(role)
    return [
        _settled(growing(*pair), found, note)
        for pair, found, note in zip(shapes, roles, notes, strict=True)
    ]


def role_of(small: Any, large: Any, shapes: Shapes, /) -> Role:
    """What one use says of a parameter.

    Args:
        small: the `Use`, or `Meeting`, at one width.
        large: the same at a larger one.
        shapes: of the parameter, at both.
    """
    sums, spreads = large.summed > small.summed, large.beside > small.beside
    axes = len(growing(*shapes))
    if small.kind == "lookup":
        alone = Role.EMBEDDING if axes == 1 else Role.AMBIGUOUS
        return alone if spreads else Role.FIXED
    if small.kind == "entries":
        # Heads and their size may grow as a root each: they are one width.
        grown = math.prod(shapes[1]) / max(math.prod(shapes[0]), 1)
        alone = Role.VECTOR if axes < 2 or grown < 3 else Role.AMBIGUOUS
        return alone if spreads else Role.FIXED
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
_GUESS_EMBEDDING = (
    f"{_GUESS}. If it is the output too: multiply that by base_width / width by hand"
)
_VECTORS = ("bias", "scale", "b", "offset", "gain", "gamma", "beta")
_ADDED = ("pos", "position", "positions", "positional", "cls", "class", "token", "pe")


def _by_name(
    name: str, shape: tuple[int, ...], larger: tuple[int, ...], output_first: bool
) -> Found:
    axes = growing(shape, larger)
    if not axes:
        return Found(Role.FIXED, axes)
    last = name.rpartition(".")[2]
    if len(shape) == 1 or last in _VECTORS or _is_one_of(last, _ADDED):
        return Found(Role.VECTOR, axes, _GUESS)
    if len(axes) > 1:
        return Found(Role.HIDDEN, axes, _GUESS)
    axis = min(axes)
    if "embed" in name and "unembed" not in name and axis > 0:
        return Found(Role.EMBEDDING, axes, _GUESS_EMBEDDING)
    towards_end = axis == len(shape) - 1
    if output_first:
        towards_end = axis == 0
    if "unembed" in name:
        towards_end = False
    return Found(Role.INPUT if towards_end else Role.OUTPUT, axes, _GUESS)


def _is_one_of(name: str, parts: tuple[str, ...]) -> bool:
    words = name.replace("-", "_").split("_")
    return any(word in parts for word in words)


def growing(shape: tuple[int, ...], larger: tuple[int, ...], /) -> tuple[int, ...]:
    """The axes that are longer at the larger width."""
    return tuple(
        i for i, pair in enumerate(zip(shape, larger, strict=True)) if pair[1] > pair[0]
    )
