"""Parametrisations of depth: what is multiplied in residual networks, and how."""

import collections
import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstab import _console
from gradstab._console import text
from gradstab.errors import UserValueError
from gradstab.program.branches import Branch, Branches, branches_of
from gradstab.program.trace import trace_program
from gradstab.scaling import makers
from gradstab.scaling.parametrization import few, rescaled
from gradstab.scaling.roles import marks_for
from gradstab.scaling.rows import key_of
from gradstab.scaling.schemes import BRANCH_POWERS, depth_exponents


class Place(enum.StrEnum):
    """Where a parameter is, as parametrisations of depth know it."""

    OUTSIDE = "outside"
    """There is one of it at every depth: an embedding, an output."""
    BLOCK = "block"
    """There are as many as there are blocks."""
    END = "end of a branch"
    """The same, and what is added to the stream is a linear function of it."""


class DepthScale(NamedTuple):
    """What a parametrisation of depth does with a parameter of every block.

    With m times as many blocks as at the base depth the initial values are multiplied
    by ``m ** size`` and the updates by ``m ** rate``.

    Attributes:
        name: dotted path, with # for the number of the block where that is in it.
        place: where it is.
        count: how many layers have it at the base depth, as parameters of their own or
            as slices of one.
        is_stack: whether they are slices of one.
        size: exponent that is applied to the initial values.
        rate: exponent that is applied to the updates.
    """

    name: str
    place: Place
    count: int
    is_stack: bool
    size: float
    rate: float


class DepthParametrization:
    """A model maker with its parametrisation of depth; see `gradstab.parametrize`.

    Attributes:
        make: ``make(depth, key)``, rescaled: what `gradstab.transfer` takes.
        transform: an optax transformation that scales updates; it comes last in the
            chain, before decoupled weight decay. It reads the number of blocks from the
            updates, so one serves all depths.
        roles: a `DepthScale` for each parameter, or for each that every block has.
        notes: what cannot be done from outside, and is to be changed by hand.
        scheme: the parametrisation.
        optimizer: for which optimiser.
        base_depth: at which nothing is scaled.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        roles: tuple[DepthScale, ...],
        notes: tuple[str, ...],
        *,
        scheme: str,
        optimizer: str,
        base_depth: int,
    ) -> None:
        self._make = make
        self.roles = roles
        self.notes = notes
        self.scheme = scheme
        self.optimizer = optimizer
        self.base_depth = base_depth
        self.transform = optax.GradientTransformation(
            lambda params: optax.EmptyState(), self._scale_updates
        )

    def make(self, depth: int, key: jax.Array) -> Any:
        """What the maker gives at this depth, with its initial values rescaled."""
        return self.rescale(makers.made_by(self._make, depth, key))

    def rescale(self, made: Any, /) -> Any:
        """A freshly initialised model with its initial values multiplied.

        Args:
            made: what ``make`` gave, or a pytree of its parameters.

        Returns:
            The same kind of thing. A module of Flax NNX is changed in place, and
            returned.

        Raises:
            ValueError: its parameters are not those that were compared.
        """
        return rescaled(made, lambda tree: self._times(tree, "size"))

    def show(self, console: Any = None) -> None:
        """Print what was found and what is done to a rich console."""
        console = _console.terminal(console)
        title = (
            f"{self.scheme} for {self.optimizer}, with m times the blocks of depth "
            f"{self.base_depth}"
        )
        heads = ("initial\nvalues", "learning\nrate")
        columns = ("parameter", "place", *heads)
        table = _console.table(*columns, right=heads, title=text(title))
        for one in self.roles:
            powers = ("1" if not p else f"m^{p:g}" for p in (one.size, one.rate))
            table.add_row(*map(text, (one.name, str(one.place), *powers)))
        console.print(table)
        for note in self.notes:
            console.print(text(note))

    def _repr_html_(self) -> str:
        return _console.html(self.show)

    def __repr__(self) -> str:
        return (
            f"DepthParametrization({self.scheme!r}, {self.optimizer!r}, "
            f"base_depth={self.base_depth}, {len(self.roles)} parameters)"
        )

    def _scale_updates(self, updates: Any, state: Any, params: Any = None) -> tuple:
        return self._times(updates, "rate"), state

    def _times(self, tree: Any, field: str) -> Any:
        """Every parameter in a pytree times a power of the number of blocks."""
        leaves, structure = jax.tree.flatten(tree)
        by_name = {one.name: one for one in self.roles}
        keys = [_key(name, by_name) for name in makers.names_of(tree)]
        counts = collections.Counter(keys)
        pairs = list(zip(leaves, keys, strict=True))
        missing = [key for x, key in pairs if makers.is_trained(x) and not key]
        if missing and len(missing) == sum(map(makers.is_trained, leaves)):
            raise UserValueError(
                "none of these parameters is one of the model that was compared: "
                f"{few(list(by_name))}"
            )

        def scaled(leaf: Any, key: str) -> Any:
            one = by_name.get(key)
            power = getattr(one, field) if one else 0.0
            if one is None or not power:
                return leaf
            number = leaf.shape[0] if one.is_stack else counts[key]
            return leaf * jnp.asarray((number / one.count) ** power, leaf.dtype)

        return structure.unflatten([scaled(*pair) for pair in pairs])


def _key(name: str, known: Any) -> str:
    """The name in a table, with its number or without; empty if it is not there."""
    return next((one for one in (name, key_of(name)) if one in known), "")


def parametrize_depth(
    make: Callable[..., Any],
    keys: Sequence[jax.Array],
    *,
    base_depth: int,
    scheme: str,
    optimizer: str,
    inputs: Any,
    batched: bool,
) -> DepthParametrization:
    """Find the residual branches of a model, and how they must go with the depth.

    Args:
        make: ``make(depth, key)``.
        keys: for the base depth and for twice that.
        base_depth: at which the model was tuned.
        scheme: one of `gradstab.scaling.DEPTH_SCHEMES`.
        optimizer: one of `gradstab.scaling.OPTIMIZERS`.
        inputs: one input, or a tuple of them.
        batched: False if the model takes one example.

    Raises:
        ValueError: nothing grows with the depth, something else grows than the number
            of blocks, or there is no residual branch.
    """
    depth_exponents(scheme, optimizer, is_end=False)
    depths = base_depth, 2 * base_depth
    made = [makers.made_by(make, *pair) for pair in zip(depths, keys, strict=False)]
    params = list(map(makers.params_of, made))
    places = _places(params, depths)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    found = [_branches(one, given, batched) for one in made]
    names = makers.names_of(params[0])
    ends, by_hand = _ends(found, names)
    if not ends and not by_hand:
        raise UserValueError(
            "no residual branch was found, nothing that is computed of the data and "
            "added to them: parametrisations of depth are of residual networks"
        )
    inside = {name for name, (count, _, grows) in places.items() if grows}
    roles = []
    for name, (count, is_stack, _) in places.items():
        place = Place.OUTSIDE
        size = rate = 0.0
        if name in inside:
            place = Place.END if name in ends else Place.BLOCK
            powers = depth_exponents(scheme, optimizer, is_end=place is Place.END)
            size, rate = powers.size or 0.0, powers.rate
        roles.append(DepthScale(name, place, count, is_stack, size, rate))
    return DepthParametrization(
        make,
        tuple(roles),
        _notes(scheme, optimizer, by_hand),
        scheme=scheme,
        optimizer=optimizer,
        base_depth=base_depth,
    )


def _places(params: list, depths: tuple[int, int]) -> dict[str, tuple[int, bool, bool]]:
    """By name or key: how many layers have it, whether as slices, whether it grows."""
    small, large = (
        dict(zip(makers.names_of(one), makers.shapes_of(one), strict=True))
        for one in params
    )
    counts = [collections.Counter(map(key_of, one)) for one in (small, large)]
    found = {}
    for name, shape in small.items():
        key = key_of(name)
        if counts[0][key] != counts[1][key]:
            found[key] = (counts[0][key], False, True)
            continue
        other = large.get(name)
        if other == shape:
            found[name] = (1, False, False)
            continue
        if other is None or other[1:] != shape[1:] or other[0] <= shape[0]:
            raise UserValueError(
                f"{name} has shape {shape} at depth {depths[0]}, and {other} at depth "
                f"{depths[1]}: only the number of blocks may grow"
            )
        found[name] = (shape[0], True, True)
    if not any(grows for *_, grows in found.values()):
        raise UserValueError(
            f"no parameter differs between make({depths[0]}, key) and "
            f"make({depths[1]}, key): make must use the depth"
        )
    return found


def _branches(made: Any, inputs: tuple, batched: bool) -> Branches:
    target = makers.target_of(made, inputs, batched=batched)
    program = trace_program(target.apply, target.params, target.state, target.inputs)
    return branches_of(program.closed, marks_for(target))


def _ends(
    found: Sequence[Branches], names: list[str]
) -> tuple[set[str], tuple[str, ...]]:
    """Names of the ends of branches, and the lines of those that have none.

    Of branches of which there are as many at every depth nothing is said.
    """
    times = [collections.Counter() for _ in found]
    for counter, one in zip(times, found, strict=True):
        for branch in one.branches:
            counter[branch.source] += branch.times
    ends: set[str] = set()
    by_hand: dict[str, None] = {}
    for branch in found[0].branches:
        if times[1][branch.source] <= times[0][branch.source]:
            continue
        if _is_alone(branch, found[0]):
            ends.update(name for i in branch.ends for name in _both(names[i]))
        else:
            by_hand[branch.source] = None
    return ends, tuple(by_hand)


def _is_alone(branch: Branch, found: Branches) -> bool:
    """Whether its ends do nothing but to scale it."""
    return bool(branch.ends) and branch.ends.isdisjoint(found.elsewhere)


def _both(name: str) -> tuple[str, str]:
    return name, key_of(name)


def _notes(scheme: str, optimizer: str, by_hand: Sequence[str]) -> tuple[str, ...]:
    if scheme == "standard":
        return ()
    power = -BRANCH_POWERS[scheme]
    ratio = "base_depth / depth"
    factor = f"({ratio})" if power == 1 else f"({ratio})^{power:g}"
    notes = [
        f"at {source}: no parameter scales what is added there alone; multiply it by "
        f"{factor} by hand"
        for source in by_hand
    ]
    if optimizer == "adam":
        notes.append(
            f"gradients in the blocks go as depth^-{power:g}: where they come near to "
            "Adam's epsilon, multiply that by the same (Dey et al. 2025, table 1)"
        )
    return tuple(notes)
