"""Parametrisations for any model: what to scale, found and applied."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gradstab import _console, _tree
from gradstab._console import text
from gradstab.errors import UserValueError
from gradstab.network.refusals import not_numeric
from gradstab.scaling import makers
from gradstab.scaling.roles import (
    Found,
    Role,
    from_names,
    from_uses,
    growing_products,
    uses_of,
)
from gradstab.scaling.schemes import exponents

# Exponents of initialisers are 0, -1/2 or -1; so far from one it is none of these.
_ROUND = 0.15


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
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    size: float
    rate: float
    note: str = ""


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
        if makers.is_pair(made):
            return made[0], self._rescaled(made[1])
        if isinstance(made, nnx.Module):
            nnx.update(made, self._rescaled(nnx.state(made, nnx.Param)))
            return made
        if isinstance(made, tuple) and len(made) == 2:
            return made[0], self._rescaled(made[1])
        return self._rescaled(made)

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
        return (*self.notes, *(f"{_few(v)}: {k}" for k, v in own.items()))

    def _repr_html_(self) -> str:
        return _console.html(self.show)

    def __repr__(self) -> str:
        return (
            f"Parametrization({self.scheme!r}, {self.optimizer!r}, "
            f"base_width={self.base_width}, {len(self.roles)} parameters)"
        )

    def _scale_updates(self, updates: Any, state: Any, params: Any = None) -> tuple:
        return self._times(updates, lambda one: one.rate), state

    def _rescaled(self, tree: Any) -> Any:
        return self._times(tree, lambda one: one.size)

    def _times(self, tree: Any, exponent: Callable[[ParameterScale], float]) -> Any:
        """Every parameter in a pytree times the power of its own width."""
        leaves, structure = jax.tree.flatten(tree)
        pairs = zip(leaves, self._of(tree), strict=True)
        return structure.unflatten(
            [x if one is None else _times(x, one, exponent(one)) for x, one in pairs]
        )

    def _of(self, tree: Any) -> list[ParameterScale | None]:
        """For every leaf what is known of it; None for what is no parameter."""
        by_name = {one.name: one for one in self.roles}
        names = makers.names_of(tree)
        found = [by_name.get(name) for name in names]
        if any(one is not None for one in found):
            missing = set(by_name) - set(names)
            if not missing:
                return found
        leaves = jax.tree.leaves(tree)
        trained = [makers.is_trained(leaf) for leaf in leaves]
        if sum(trained) != len(self.roles):
            raise UserValueError(
                f"these are {sum(trained)} floating arrays, and the model that was "
                f"compared has {len(self.roles)} parameters: "
                f"{_few([one.name for one in self.roles])}"
            )
        rest = iter(self.roles)
        return [next(rest) if own else None for own in trained]


def parametrize(
    make: Callable[..., Any],
    /,
    *,
    base_width: int,
    scheme: str = "mup",
    optimizer: str = "adam",
    inputs: Any = None,
    key: jax.Array | None = None,
    batched: bool = True,
) -> Parametrization:
    r"""Find what each parameter of a model is, and how it must go with the width.

    The model is made at the base width and at twice that. Axes that differ grow with
    the width; what an operation sums over, and along what its results lie, says the
    role: *input* (from an axis that stays), *hidden* (between axes that grow), *output*
    (to an axis that stays), *vector*, *embedding*. At :math:`m` times the base width
    the standard deviation of a weight of exponent :math:`b` and its learning rate of
    exponent :math:`c` are :math:`m^b` and :math:`m^c` times those at the base width,
    where `gradstab.scaling.SCHEMES` are known. At the base width nothing changes.

    How the initialiser goes with the width by itself is measured, so that one with a
    fixed standard deviation and one of Glorot's or He's end up the same.

    Args:
        make: ``make(width, key)`` gives a model as for `gradstab.analyze`, or a pair
            ``(apply, params)``.
        base_width: the width at which the model was tuned.
        scheme: 'mup', 'ntk', 'mean-field', 'spectral' or 'standard'.
        optimizer: 'sgd', 'adam' (any that divides by the size of the gradient, AdamW
            and Lion among them) or 'muon' (`optax.contrib.muon` as it comes).
        inputs: one input, or a tuple of them, to trace the model with. Without it roles
            are guessed from names and shapes, and the notes say so.
        key: a PRNG key; `jax.random.key(0)` if not given.
        batched: False if the model takes one example.

    Returns:
        The parametrisation: ``.make``, ``.transform``, ``.rescale``, ``.roles``. Cost:
        two initialisations, and two traces where inputs are given.

    Raises:
        ValueError: for an unknown scheme or optimiser; if nothing grows with the width,
            or the two models do not have the same parameters.

    References:
        Yang et al. (2022), Tensor Programs V, table 3 and appendix B.
        Yang and Hu (2021), Tensor Programs IV, table 1.
        Yang, Simon and Bernstein (2023), A spectral condition for feature learning.

    >>> import jax, jax.numpy as jnp, optax
    >>> import gradstab as gs
    >>> def make(width, key):
    ...     k1, k2 = jax.random.split(key)
    ...     hidden = jax.random.normal(k1, (width, width)) / jnp.sqrt(width)
    ...     head = jax.random.normal(k2, (width, 10)) / jnp.sqrt(width)
    ...     apply = lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["head"]
    ...     return apply, {"hidden": hidden, "head": head}
    >>> scaled = gs.parametrize(make, base_width=32)
    >>> [(one.name, str(one.role), one.size, one.rate) for one in scaled.roles]
    [('head', 'output', -0.5, -1.0), ('hidden', 'hidden', 0.0, -1.0)]
    >>> optimizer = optax.chain(optax.adam(1e-3), scaled.transform)
    """
    exponents(scheme, optimizer, Role.HIDDEN)  # names are known before work begins
    keys = jax.random.split(jax.random.key(0) if key is None else key)
    narrow = makers.made_by(make, base_width, keys[0])
    wide = makers.made_by(make, 2 * base_width, keys[1])
    params = makers.params_of(narrow), makers.params_of(wide)
    names, larger = map(makers.names_of, params)
    if names != larger:
        raise UserValueError(
            f"the models of width {base_width} and {2 * base_width} differ in their "
            f"parameters: {_few(sorted(set(names) ^ set(larger)))}"
        )
    shapes = list(zip(*map(makers.shapes_of, params), strict=True))
    if all(a == b for a, b in shapes):
        raise UserValueError(
            f"no parameter differs between make({base_width}, key) and "
            f"make({2 * base_width}, key): make must use the width"
        )
    found, notes = _found(narrow, wide, names, shapes, inputs, batched)
    sizes = [_exponent_of_size(*pair) for pair in _leaves(*params)]
    roles = tuple(
        _scale(name, one, shape, size, scheme, optimizer)
        for name, one, (shape, _), size in zip(names, found, shapes, sizes, strict=True)
    )
    if scheme != "standard":
        notes += tuple(_tied(roles))
    return Parametrization(
        make, roles, notes, scheme=scheme, optimizer=optimizer, base_width=base_width
    )


def _leaves(*trees: Any) -> list[tuple]:
    return list(zip(*map(jax.tree.leaves, trees), strict=True))


def _found(
    narrow: Any,
    wide: Any,
    names: Sequence[str],
    shapes: list[tuple],
    inputs: Any,
    batched: bool,
) -> tuple[list[Found], tuple[str, ...]]:
    if inputs is None:
        first = _is_output_first(narrow)
        return from_names(names, shapes, output_first=first), ()
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    not_numeric(inputs, "inputs")
    targets = [makers.target_of(m, inputs, batched=batched) for m in (narrow, wide)]
    small, large = map(uses_of, targets)
    if [use.leaves for use in small.uses] != [use.leaves for use in large.uses]:
        first = _is_output_first(narrow)
        why = "the program differs with the width: roles are guessed from the names"
        return from_names(names, shapes, output_first=first), (why,)
    found = from_uses(small.uses, large.uses, shapes)
    grown = growing_products(small.products, large.products)
    lines = list(dict.fromkeys(one.source for one in grown if one.source))
    notes = [_attention(line) for line in lines]
    return found, tuple(notes)


def _attention(line: str) -> str:
    return (
        f"data are multiplied with data over an axis that grows with the width, at "
        f"{line}: if these are queries and keys, muP divides by the size of a head and "
        "not by its square root; or let the number of heads grow and keep their size"
    )


def _tied(roles: Sequence[ParameterScale]) -> list[str]:
    return [
        f"{one.name} is embedding and output at once: its initial values and rate are "
        "those of an embedding; multiply the output by base_width / width by hand"
        for one in roles
        if one.role is Role.TIED
    ]


def _is_output_first(made: Any) -> bool:
    """Whether the kernels are those of Equinox: (output, input)."""
    model = made[1] if makers.is_pair(made) else made
    modules = [type(model), *(type(node) for node in _nodes(model))]
    return any(
        base.__module__.startswith("equinox") for kind in modules for base in kind.mro()
    )


def _nodes(tree: Any) -> list:
    return [] if isinstance(tree, nnx.Module) else [tree]


def _exponent_of_size(narrow: Any, wide: Any) -> float | None:
    """How the root mean square goes with the width; None if it is zero."""
    small, large = (
        float(_tree.safe_norm(x)) / math.sqrt(max(x.size, 1)) for x in (narrow, wide)
    )
    return math.log2(large / small) if small > 0 and large > 0 else None


def _scale(
    name: str,
    found: Found,
    shape: tuple[int, ...],
    measured: float | None,
    scheme: str,
    optimizer: str,
) -> ParameterScale:
    wanted = exponents(scheme, optimizer, found.role, is_matrix=len(shape) == 2)
    note, size = found.note, 0.0
    if wanted.size is not None and measured is not None:
        own = round(2 * measured) / 2
        if abs(own - measured) > _ROUND:
            own = measured
            note = "; ".join(
                filter(None, (note, f"its initial size goes as width^{measured:.2f}"))
            )
        size = wanted.size - own
    return ParameterScale(
        name, found.role, shape, found.axes, size + 0.0, wanted.rate, note
    )


def _times(leaf: jax.Array, one: ParameterScale, exponent: float) -> jax.Array:
    if not exponent or not one.axes:
        return leaf
    if len(leaf.shape) != len(one.shape):
        raise UserValueError(
            f"{one.name} has shape {leaf.shape}; at the base width it is {one.shape}"
        )
    axis = one.axes[0]
    ratio = leaf.shape[axis] / one.shape[axis]
    return leaf * jnp.asarray(ratio**exponent, leaf.dtype)


def _power(exponent: float) -> str:
    return "1" if not exponent else "m" if exponent == 1 else f"m^{exponent:g}"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
