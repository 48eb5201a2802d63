"""A coordinate check: what was measured at every size, and what it says."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradstab import _console
from gradstab.errors import UserKeyError, UserValueError
from gradstab.records import record, static
from gradstab.scaling import causes, panels, store, table
from gradstab.scaling.blocks import (
    BlockSlopes,
    block_slopes,
    depth_schemes_like,
    is_first,
)
from gradstab.scaling.causes import Cause
from gradstab.scaling.roles import Role
from gradstab.scaling.slopes import Slope, Trend, fit

_ORDER = (Trend.GROWS, Trend.SHRINKS, Trend.UNKNOWN, Trend.FLAT, Trend.NOTHING)


class LayerSlopes(NamedTuple):
    """How a layer goes with the size, after the last step.

    Attributes:
        name: dotted path.
        activation: of the data that leave it.
        update: of their change since the first step, on the same inputs.
        gradient: of the gradient of the loss by them.
        is_output: whether it is the last: what leaves it are the logits.
    """

    name: str
    activation: Slope
    update: Slope
    gradient: Slope
    is_output: bool

    @property
    def quantity(self) -> str:
        """Which decides: 'activation' if that is not flat, else 'update'."""
        return "activation" if self._activation_decides else "update"

    @property
    def slope(self) -> float:
        """Of what decides."""
        return getattr(self, self.quantity).value

    @property
    def error(self) -> float:
        """The standard error of the slope."""
        return getattr(self, self.quantity).error

    @property
    def verdict(self) -> Trend:
        """What the layer does as the model grows."""
        return getattr(self, self.quantity).trend

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds would probably settle it; None if it is settled."""
        return getattr(self, self.quantity).seeds_needed

    @property
    def _activation_decides(self) -> bool:
        # Logits that shrink at first are right: what is learned makes them.
        worse = (Trend.GROWS,) if self.is_output else (Trend.GROWS, Trend.SHRINKS)
        return self.activation.trend in worse and self.update.trend is not Trend.GROWS


class ParameterSlopes(NamedTuple):
    """How a parameter goes with the size, after the last step.

    Attributes:
        name: dotted path.
        role: what it is.
        is_matrix: whether it has two axes.
        gain: what its initial values make of data of size 1.
        own: of the effect of its update on the data that it meets.
        passed: what its initial values make of an update of the data of size 1.
        change: of its update.
    """

    name: str
    role: Role
    is_matrix: bool
    gain: Slope
    own: Slope
    passed: Slope
    change: Slope

    @property
    def verdict(self) -> Trend:
        """What the effect of its update does as the model grows."""
        return self.own.trend

    @property
    def slope(self) -> float:
        """Of the effect of its update."""
        return self.own.value

    @property
    def error(self) -> float:
        """The standard error of the slope."""
        return self.own.error


@record(eq=False)
class Transfer:
    """What `gradstab.transfer` measured; slopes are fitted when they are asked for.

    Attributes:
        activation: (sizes, seeds, steps + 1, layers) root mean squares.
        update: likewise, of the change of the data that leave a layer.
        gradient: likewise, of the gradient of the loss by them.
        added: likewise, of what a block adds to the data that enter it, at the layer
            that ends it; NaN at others, and if depth does not vary.
        weight: (sizes, seeds, steps + 1, parameters) root mean squares.
        change: likewise, of the change of a parameter.
        entering: likewise, of the data that it meets, at the start.
        gain: likewise, what its initial values make of data of size 1.
        own: likewise, of the effect of its change on the data that it meets.
        passed: likewise, what its initial values make of a change of the data.
        loss: (sizes, seeds, steps + 1).
        normalises: whether the optimiser divides by the size of the gradient.
        sizes: widths, depths or batch sizes.
        vary: 'width', 'depth' or 'batch'.
        layer_names: in depth order.
        parameter_names: in the order in which they meet the data.
        roles: of the parameters.
        matrices: which of them have two axes; over depth, which are multiplied with
            the data.
        notes: what a reader should know.
    """

    activation: Any
    update: Any
    gradient: Any
    added: Any
    weight: Any
    change: Any
    entering: Any
    gain: Any
    own: Any
    passed: Any
    loss: Any
    normalises: bool = static()
    sizes: tuple[int, ...] = static()
    vary: str = static()
    layer_names: tuple[str, ...] = static()
    parameter_names: tuple[str, ...] = static()
    roles: tuple[Role, ...] = static()
    matrices: tuple[bool, ...] = static()
    notes: tuple[str, ...] = static(default=())

    @property
    def num_steps(self) -> int:
        """How many steps were taken."""
        return self.loss.shape[2] - 1

    @property
    def num_seeds(self) -> int:
        """How many initialisations were measured at each size."""
        return self.loss.shape[1]

    @property
    def layers(self) -> tuple[LayerSlopes, ...]:
        """The layers after the last step, in depth order."""
        return self.layers_at(self.num_steps)

    @property
    def parameters(self) -> tuple[ParameterSlopes, ...]:
        """The parameters after the last step."""
        return self.parameters_at(self.num_steps)

    def layers_at(self, step: int, /) -> tuple[LayerSlopes, ...]:
        """The layers after so many steps."""
        last = len(self.layer_names) - 1
        return tuple(
            LayerSlopes(
                name,
                self._slope(self.activation, step, i),
                self._slope(self.update, step, i),
                self._slope(self.gradient, step, i),
                i == last,
            )
            for i, name in enumerate(self.layer_names)
        )

    def parameters_at(self, step: int, /) -> tuple[ParameterSlopes, ...]:
        """The parameters after so many steps."""
        rows = zip(self.parameter_names, self.roles, self.matrices, strict=True)
        return tuple(
            ParameterSlopes(
                *row,
                *(
                    self._slope(values, step, i)
                    for values in (self.gain, self.own, self.passed, self.change)
                ),
            )
            for i, row in enumerate(rows)
        )

    def layer(self, name: str, /) -> LayerSlopes:
        """The layer of this name.

        Raises:
            KeyError: there is none.
        """
        return _named(self.layers, name)

    def parameter(self, name: str, /) -> ParameterSlopes:
        """The parameter of this name.

        Raises:
            KeyError: there is none.
        """
        return _named(self.parameters, name)

    @property
    def verdict(self) -> Trend:
        """Of the whole: 'grows' if a layer grows; 'flat' only if all are flat.

        Over depth the first block may shrink: one of L does one L-th of what all do.
        """
        found = [
            layer.verdict
            for layer in self.layers
            if not (self.vary == "depth" and is_first(layer.name))
            or layer.verdict is Trend.GROWS
        ]
        return next(trend for trend in _ORDER if trend in found)

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds would probably settle every layer; None if all are."""
        needed = [layer.seeds_needed for layer in self.layers]
        return max((n for n in needed if n is not None), default=None)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Which parameters spoil the transfer over width, and what would mend it.

        Learning rates are judged by the first step that changes a parameter at all:
        later a model that learns faster with the width has other gradients. They are
        those that are right once the initial values are; where an optimiser does not
        normalise, and initial values before the output are wrong,
        what the updates do may follow from these, and no learning rate is named. Empty
        over depth and batch size, where there are no roles.
        """
        if self.vary != "width":
            return ()
        rows = self.parameters
        initial = causes.initial_causes(
            [(r.name, r.role, r.gain, r.passed) for r in rows]
        )
        entering = np.asarray(self.entering)[:, :, :1]
        relative = np.asarray(self.own) / np.where(entering > 0, entering, np.nan)
        slopes = [
            self._slope(
                relative if r.role in causes.PRODUCTS else self.own,
                self._first_change(i),
                i,
            )
            for i, r in enumerate(rows)
        ]
        own = [(r.name, r.role, s) for r, s in zip(rows, slopes, strict=True)]
        return (*initial, *causes.rate_causes(own, initial, self.normalises))

    @property
    def schemes(self) -> tuple[tuple[str, str], ...]:
        """The parametrisations, each with its optimiser, that the slopes fit.

        After the first step, as theory is of one step of small learning rate. Over
        depth those of residual blocks; see `blocks`.
        """
        if self.vary == "depth":
            return depth_schemes_like(self.blocks, normalises=self.normalises)
        if self.vary != "width" or not self.num_steps:
            return ()
        rows = self.parameters_at(1)
        kinds = causes.NORMALISING if self.normalises else ("sgd",)
        own = [(r.role, r.is_matrix, r.gain, r.own) for r in rows]
        return causes.schemes_like(own, kinds)

    @property
    def blocks(self) -> tuple[BlockSlopes, ...]:
        """How stacks of residual blocks go with the depth; empty if that stays."""
        if self.vary != "depth":
            return ()
        own, gain, entering = map(np.asarray, (self.own, self.gain, self.entering))
        result = gain[:, :, 0] * entering[:, :, 0]
        relative = own[:, :, 1] / np.where(result > 0, result, np.nan)
        rows = list(zip(self.parameter_names, self.matrices, strict=True))
        added = np.asarray(self.added)[:, :, 0]
        return block_slopes(self.sizes, self.layer_names, added, rows, relative)

    def show(self, console: Any = None) -> None:
        """Print slopes, verdicts and causes to a rich console."""
        table.show(self, console)

    def plot(self, *, ax: Any = None, quantity: str | None = None) -> Any:
        """Draw sizes against width with the fitted lines; returns the figure.

        Args:
            ax: axes to draw on; then one quantity is drawn.
            quantity: 'activation', 'update', 'gradient' or 'own'; all if not given.
        """
        return panels.plot(self, ax=ax, quantity=quantity)

    def save(self, path: Any, /, *, overwrite: bool = False) -> None:
        """Write everything to a JSON file; `gradstab.scaling.load` reads it.

        Raises:
            FileExistsError: it exists, and ``overwrite`` is not set.
        """
        store.save(self, path, overwrite=overwrite)

    def _repr_html_(self) -> str:
        return _console.html(self.show)

    def _first_change(self, parameter: int) -> int:
        """The first step after which an update has an effect at every size."""
        moved = (np.asarray(self.own)[..., parameter] > 0).all(axis=(0, 1))
        return int(moved.argmax()) if moved.any() else self.num_steps

    def _slope(self, values: Any, step: int, column: int) -> Slope:
        return fit(np.array(self.sizes), np.asarray(values)[:, :, step, column])


def _named(rows: Sequence[Any], name: str) -> Any:
    for row in rows:
        if row.name == name:
            return row
    names = ", ".join(row.name for row in rows)
    raise UserKeyError(f"there is no {name!r}; there are: {names}")


def load(path: Any, /) -> Transfer:
    """Read a coordinate check that `Transfer.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, damaged, or of a newer schema.
    """
    fields = dataclasses.fields(Transfer)
    arrays = [field.name for field in fields if not field.metadata.get("static")]
    values = store.read(path, [field.name for field in fields], arrays)
    try:
        values["roles"] = tuple(map(Role, values["roles"]))
    except (TypeError, ValueError) as error:
        raise UserValueError(f"{path} is damaged: {error}") from error
    for name in ("sizes", "layer_names", "parameter_names", "matrices", "notes"):
        values[name] = tuple(values[name])
    return Transfer(**values)
