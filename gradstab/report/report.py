"""The report of an analysis."""

import dataclasses
import operator
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple, SupportsIndex

import jax
import numpy as np

from gradstab._text import printable
from gradstab.errors import UserIndexError, UserKeyError, UserTypeError
from gradstab.records import Growth, Layer, Prediction, Range, Recurrence
from gradstab.report import plots, store, table
from gradstab.report.ensembles import Ensemble
from gradstab.report.names import short_names
from gradstab.report.verdict import VERDICTS

# Of more layers the ends are printed.
_MOST_LINES = 10


class GrowthPair(NamedTuple):
    """How the signals grow along the layers, counted from the input.

    Attributes:
        forward: growth of the root mean square of the activations.
        backward: growth of the gradient norms.
    """

    forward: Growth
    backward: Growth


class Layers(tuple):
    """The layers of a report: a tuple that is printed in a few lines."""

    def __repr__(self) -> str:
        lines = list(map(repr, self))
        if len(lines) > _MOST_LINES:
            between = f"... {len(lines) - _MOST_LINES} more"
            half = _MOST_LINES // 2
            lines = [*lines[:half], between, *lines[-half:]]
        return "\n ".join([f"({len(self)} layers:", *lines]) + ")"


# JAX takes a subclass of a tuple for a leaf.
jax.tree_util.register_pytree_node(
    Layers, lambda layers: (tuple(layers), None), lambda _, layers: Layers(layers)
)


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """What the gradients of a model do, and how that was found.

    Attributes:
        layers: one record per layer, in depth order.
        growth: laws of the forward and of the backward signal.
        recurrences: one record per recurrent layer: its signals along time.
        verdict: 'stable', 'critical', 'vanishing', 'exploding', 'broken' or 'unknown'.
        reasons: the numbers behind the verdict, a sentence each.
        loss: value of the loss; of the random projection if none was given.
        made: how: versions, device, precision, seed, examples, command, seconds.
        exponents: (examples, k) growth exponents of the Jacobian from input to output,
            descending: natural logarithms of its singular values over the number of
            layers. None if they were not computed; the notes say why.
        exponent_errors: (examples, k) how far they may be off.
        theory: mean-field theory beside the measurement, layer by layer; None if it
            has nothing to say about any layer.
        ranges: where the signals leave the range of narrower dtypes.
        ensemble: signals of every initialisation, if an ensemble was analysed.
        notes: what was left out of the analysis of the network as a whole, and why.
    """

    layers: tuple[Layer, ...]
    growth: GrowthPair
    recurrences: tuple[Recurrence, ...]
    verdict: str
    reasons: tuple[str, ...]
    loss: float
    made: dict[str, Any]
    exponents: np.ndarray | None = None
    exponent_errors: np.ndarray | None = None
    theory: Prediction | None = None
    ranges: tuple[Range, ...] = ()
    ensemble: Ensemble | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", Layers(self.layers))

    def layer(self, name: str, /) -> Layer:
        """The layer of that name, with or without the modules that all of them share.

        Raises:
            KeyError: if there is none; the message lists the names.
        """
        found = {layer.name: layer for layer in self.layers}
        short = dict(zip(short_names(found), found, strict=True))
        name = name if name in found else short.get(name, name)
        if name not in found:
            names = ", ".join(map(printable, found))
            raise UserKeyError(
                f"no layer named {name!r}; this network has: {names}. "
                "Layers are named by the path of the parameters they own."
            )
        return found[name]

    def __getitem__(self, place: str | SupportsIndex) -> Layer:
        """The layer of that name, or at that place from the input (-1: the last)."""
        if isinstance(place, str):
            return self.layer(place)
        if not hasattr(place, "__index__"):
            raise UserTypeError(
                f"a report is asked for a layer by its name or number, and got "
                f"{place!r}; report.layers[1:3] gives several"
            )
        num = len(self.layers)
        if not -num <= operator.index(place) < num:
            raise UserIndexError(f"no layer {place}; this network has {num}, from 0 on")
        return self.layers[place]

    def __len__(self) -> int:
        """How many layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        """The layers, in depth order."""
        return iter(self.layers)

    def __contains__(self, name: str) -> bool:
        """Whether a layer has that name."""
        names = [layer.name for layer in self.layers]
        return name in names or name in short_names(names)

    def show(self, console: Any = None) -> None:
        """Print verdict and tables.

        Args:
            console: a `rich.console.Console`; standard output by default.
        """
        table.show(self, console)

    def plot(self, *, kind: str | None = None, ax: Any = None):
        """Draw signals, singular values, exponents and time against depth.

        Args:
            kind: the panel to draw: 'signals', 'jacobians', 'exponents', 'units',
                'time' or 'lyapunov'; by default all that the report has something for,
                or the signals if axes are given.
            ax: matplotlib axes for one panel; by default a new figure.

        Returns:
            The matplotlib figure; save it with ``savefig``.

        Raises:
            ValueError: if there is no such panel, or nothing to draw in it.
        """
        return plots.plot(self, kind=kind, ax=ax)

    def save(self, path: str | pathlib.Path, /, *, overwrite: bool = False) -> None:
        """Write everything as JSON; `gradstab.load` reads it back.

        Raises:
            FileExistsError: if the file exists and ``overwrite`` is not set; of
                programs that save to one path at once, all but one raise it.
            OSError: if it cannot be written; nothing is left of it then.
        """
        store.save(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"<Report {self}>"

    def _repr_html_(self) -> str:
        return table.html(self)

    def __str__(self) -> str:
        num = len(self.layers)
        number = f"{num} layers" if num != 1 else "one layer"
        lines = [f"{self.verdict}: {number}", *self.reasons]
        return "\n  ".join(map(printable, lines))


def load(path: str | pathlib.Path, /) -> Report:
    """Read a report that `Report.save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no report, damaged, or of another schema.
    """
    return Report(**store.read(path, Report, VERDICTS))
