"""A parametrisation of a model: what it does with each parameter, and does it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gradstab import _console
from gradstab._console import text
from gradstab.errors import UserValueError
from gradstab.scaling import makers
from gradstab.scaling.roles import Role


class ParameterScale(NamedTuple):
    """What a parametrisation does with one parameter.

    At m times the base width the initial values are multiplied by ``m ** size`` and the
    updates by ``m ** rate``.

    Attributes:
        name: dotted path.
        role: what it is.
        shape: at the base width.
        axes: of its axes those that grow with the width.
        size: exponent that is applied to the initial values.
        rate: exponent that is applied to the updates.
        note: what a reader should know; empty if nothing.
        along: of the axes those whose lengths together are m times those at the base
            width.
        constant: of what the initialiser divides by, the part that does not grow, over
            that which does: of Glorot's it is fan_in / fan_out where fan_out grows. The
            initial values then take a further factor, so that their size is a power.
        bend: the same for orthogonal kernels, of size 1/sqrt(max(fan_in, fan_out)).
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    size: float
    rate: float
    note: str = ""
    along: tuple[int, ...] = ()
    constant: float = 0.0
    bend: float = 0.0

    def multiple(self, shape: Sequence[int], /) -> float:
        """By how much the width of a parameter of a shape is that of the base.

        Raises:
            ValueError: it has another number of axes.
        """
        if len(shape) != len(self.shape):
            raise UserValueError(
                f"{self.name} has shape {tuple(shape)}; at the base width it is "
                f"{self.shape}"
            )
        return math.prod(shape[i] / self.shape[i] for i in self.along)


class Parametrization:
    """A model maker with its parametrisation; made by `gradstab.parametrize`.

    Attributes:
        make: ``make(width, key)``, rescaled: what `gradstab.transfer` takes.
        transform: an optax transformation that scales updates; it comes last in the
            chain: ``optax.chain(optax.adam(1e-3), scaled.transform)``. It reads the
            width from the shapes of the updates, so one serves all widths.
        roles: what was found and what is done, a `ParameterScale` for each parameter,
            in the order of the leaves.
        notes: what cannot be done from outside, and is to be changed by hand.
        scheme: the parametrisation.
        optimizer: for which optimiser.
        base_width: at which nothing is scaled.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        roles: tuple[ParameterScale, ...],
        notes: tuple[str, ...],
        *,
        scheme: str,
        optimizer: str,
        base_width: int,
    ) -> None:
        self._make = make
        self.roles = roles
        self.notes = notes
        self.scheme = scheme
        self.optimizer = optimizer
        self.base_width = base_width
        self.transform = optax.GradientTransformation(
            lambda params: optax.EmptyState(), self._scale_updates
        )

    def make(self, width: int, key: jax.Array) -> Any:
        """What the maker gives at this width, with its initial values rescaled."""
        return self.rescale(makers.made_by(self._make, width, key))

    def rescale(self, made: Any, /) -> Any:
        """A freshly initialised model with its initial values multiplied.

        Args:
            made: what ``make`` gave: a model, ``(apply, params)``, ``(linen module,
                variables)``, or a pytree of parameters alone.

        Returns:
            The same kind of thing. A module of Flax NNX is changed in place, and
            returned.

        Raises:
            ValueError: its parameters are not those that were compared.
        """
        return rescaled(made, self._rescaled)

    def show(self, console: Any = None) -> None:
        """Print what was found and what is done to a rich console."""
        console = _console.terminal(console)
        title = (
            f"{self.scheme} for {self.optimizer}, at m times the width "
            f"{self.base_width}"
        )
        table = _console.table(
            "parameter",
            "role",
            "shape",
            "initial\nvalues",
            "learning\nrate",
            right=("initial\nvalues", "learning\nrate"),
            title=text(title),
        )
        for one in self.roles:
            shape = " x ".join(
                f"{n}m" if i in one.axes else str(n) for i, n in enumerate(one.shape)
            )
            cells = (one.name, one.role, shape, _power(one.size), _power(one.rate))
            table.add_row(*map(text, cells))
        console.print(table)
        for note in self.all_notes():
            console.print(text(note))

    def all_notes(self) -> tuple[str, ...]:
        """The notes, those of single parameters among them."""
        own: dict[str, list[str]] = {}
        for one in self.roles:
            if one.note:
                own.setdefault(one.note, []).append(one.name)
        return (*self.notes, *(f"{few(v)}: {k}" for k, v in own.items()))

    def _repr_html_(self) -> str:
        return _console.html(self.show)

    def __repr__(self) -> str:
        return (
            f"Parametrization({self.scheme!r}, {self.optimizer!r}, "
            f"base_width={self.base_width}, {len(self.roles)} parameters)"
        )

    def _scale_updates(self, updates: Any, state: Any, params: Any = None) -> tuple:
        return self._times(updates, _rate_factor), state

    def _rescaled(self, tree: Any) -> Any:
        return self._times(tree, _size_factor)

    def _times(
        self, tree: Any, factor: Callable[[ParameterScale, Sequence[int]], float]
    ) -> Any:
        """Every parameter in a pytree times a factor of its width."""
        leaves, structure = jax.tree.flatten(tree)
        pairs = zip(leaves, self._of(tree, leaves), strict=True)
        return structure.unflatten(
            [x if one is None else _times(x, factor(one, x.shape)) for x, one in pairs]
        )

    def _of(self, tree: Any, leaves: list) -> list[ParameterScale | None]:
        """For every leaf what is known of it; None for what is no parameter."""
        by_name = {one.name: one for one in self.roles}
        found = [by_name.get(name) for name in makers.names_of(tree)]
        trained = [makers.is_trained(leaf) for leaf in leaves]
        named = [one for one in found if one is not None]
        # All of the parameters, perhaps with running statistics; or some of them.
        if len(named) == len(self.roles) or (named and len(named) == sum(trained)):
            return found
        if sum(trained) != len(self.roles):
            raise UserValueError(
                f"these are {sum(trained)} floating arrays, and the model that was "
                f"compared has {len(self.roles)} parameters: "
                f"{few([one.name for one in self.roles])}"
            )
        rest = iter(self.roles)  # under other names, in the same order
        return [next(rest) if own else None for own in trained]


def rescaled(made: Any, scaled: Callable[[Any], Any], /) -> Any:
    """What a maker gave, with its parameters changed by a function of a pytree.

    Args:
        made: a model, a pair of a function or a linen module and its arrays, or a
            pytree; a module of Flax NNX is changed in place.
        scaled: the function.
    """
    if isinstance(made, nnx.Module):
        nnx.update(made, scaled(nnx.state(made, nnx.Param)))
        return made
    if makers.is_pair(made) or makers.is_linen_pair(made):
        return made[0], scaled(made[1])
    return scaled(made)


def _rate_factor(one: ParameterScale, shape: Sequence[int]) -> float:
    return one.multiple(shape) ** one.rate if one.rate else 1.0


def _size_factor(one: ParameterScale, shape: Sequence[int]) -> float:
    constant, bend = one.constant, one.bend
    if not one.size and not constant and not bend:
        return 1.0
    ratio = one.multiple(shape)
    divided = (1 + constant / ratio) / (1 + constant)
    bent = max(1, bend / ratio) / max(1, bend)
    return ratio**one.size * math.sqrt(divided * bent)


def _times(leaf: Any, factor: float) -> Any:
    return leaf if factor == 1 else leaf * jnp.asarray(factor, leaf.dtype)


def _power(exponent: float) -> str:
    return "1" if not exponent else "m" if exponent == 1 else f"m^{exponent:g}"


def few(names: Sequence[str], /) -> str:
    """The first of many names."""
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
