"""Optimal learning rates of several widths: what was measured, and what it says."""

import dataclasses
import math
from typing import Any

import numpy as np

from gradstab import _console
from gradstab import _drawing as drawing
from gradstab._console import text
from gradstab.records import record, static
from gradstab.scaling import store
from gradstab.scaling.slopes import Slope, Trend, fit

KIND = "gradstab learning-rate transfer"
# Rates on either side of the best whose losses are fitted. Of transformers trained for
# 40 and 200 steps, optima have two thirds to a quarter of the error of those by one.
_BESIDE = 2
# A loss of four times the least, or one that diverged, is outside of the valley; how
# far does not matter.
_FAR = math.log(4)


@record(eq=False)
class LearningRates:
    """What `gradstab.scaling.learning_rate_transfer` measured.

    Attributes:
        losses: (widths, seeds, rates) after the last step; infinity where it diverged.
        rates: (rates,) learning rates.
        widths: of the models.
        num_steps: of training.
    """

    losses: Any
    rates: Any
    widths: tuple[int, ...] = static()
    num_steps: int = static()

    @property
    def num_seeds(self) -> int:
        """How many initialisations were trained at each width and rate."""
        return self.losses.shape[1]

    @property
    def optima_of_seeds(self) -> np.ndarray:
        """(widths, seeds) optimal rates; NaN where every rate diverged."""
        return np.array(
            [[optimum(self.rates, one) for one in width] for width in self.losses]
        )

    @property
    def at_edge(self) -> np.ndarray:
        """(widths,) whether the best rate of a seed is the first or the last given.

        The optimum then lies there or beyond.
        """
        best = np.argmin(self.losses, axis=2)
        last = self.losses.shape[2] - 1
        none = ~np.isfinite(np.asarray(self.losses)).any(axis=2)
        return ((best == 0) | (best == last) | none).any(axis=1)

    @property
    def optima(self) -> np.ndarray:
        """(widths,) optimal rates: geometric means over seeds."""
        return np.exp(np.mean(np.log(self.optima_of_seeds), axis=1))

    @property
    def errors(self) -> np.ndarray:
        """(widths,) standard errors of the natural logarithms of the optima.

        Over seeds; NaN for one seed.
        """
        if self.num_seeds < 2:
            return np.full(len(self.widths), math.nan)
        spread = np.std(np.log(self.optima_of_seeds), axis=1, ddof=1)
        return spread / math.sqrt(self.num_seeds)

    @property
    def slope(self) -> Slope:
        """Of the logarithm of the optimum against that of the width."""
        return fit(np.array(self.widths), self.optima_of_seeds)

    @property
    def verdict(self) -> Trend:
        """Whether the optimum moves: 'flat' if it does not.

        'cannot tell' too where an optimum is not within the rates.
        """
        return Trend.UNKNOWN if self.at_edge.any() else self.slope.trend

    @property
    def factor(self) -> float:
        """The largest ratio of the optima of two widths; at least 1.

        Where an optimum is not within the rates it is that of what was found.
        """
        return float(np.max(self.optima) / np.min(self.optima))

    def show(self, console: Any = None) -> None:
        """Print the optimum of every width, and whether it moves."""
        console = _console.terminal(console)
        heads = ("optimal\nrate", "factor of\nits error", "loss\nthere", "diverged")
        title = (
            f"{len(self.rates)} learning rates from {self.rates[0]:.3g} to "
            f"{self.rates[-1]:.3g}, {_many(self.num_steps, 'step')}, "
            f"{_many(self.num_seeds, 'seed')}"
        )
        table = _console.table("width", *heads, right=heads, title=text(title))
        columns = (self.widths, self.optima, self.errors, self.losses)
        for width, best, error, losses in zip(*columns, strict=True):
            least = float(np.mean(np.min(losses, axis=1)))
            lost = float(np.mean(~np.isfinite(losses)))
            cells = f"{best:.3g}", _factor(error), f"{least:.4g}", f"{lost:.0%}"
            table.add_row(text(str(width)), *map(text, cells))
        console.print(table)
        for sentence in self.sentences():
            console.print(text(sentence))

    def sentences(self) -> list[str]:
        """What the measurement says, in words."""
        edges = [str(w) for w, e in zip(self.widths, self.at_edge, strict=True) if e]
        if edges:
            return [
                f"cannot tell: at width {', '.join(edges)} the best rate is the first "
                "or the last of those given, or every rate diverged; give lower or "
                "higher ones"
            ]
        moved = (
            f"the optimum goes as width^{self.slope}; widths differ by at most a "
            f"factor {self.factor:.2f}"
        )
        if self.verdict is Trend.FLAT:
            return [f"flat: the optimum stays where it is; {moved}"]
        if self.verdict is Trend.UNKNOWN:
            needed = self.slope.seeds_needed
            more = f"; {needed} seeds would probably settle it" if needed else ""
            return [f"cannot tell: {moved}{more}"]
        return [f"the optimum {self.verdict} with the width: {moved}"]

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the loss against the learning rate for each width; returns the figure.

        Args:
            ax: axes to draw on.
        """
        ax = drawing.canvas(ax)
        colours = drawing.ordered_colours(len(self.widths))
        rows = zip(self.widths, self.losses, self.optima, colours, strict=True)
        for width, losses, best, colour in rows:
            shown = np.where(np.isfinite(losses), losses, np.nan)
            whole = np.isfinite(losses).all(axis=0)
            middle = np.where(whole, np.mean(losses, axis=0), np.nan)
            label = f"width {width}: optimum {best:.3g}"
            ax.plot(self.rates, middle, "o-", color=colour, markersize=3, label=label)
            if whole.any():
                low, high = (f(shown[:, whole], axis=0) for f in (np.min, np.max))
                band = self.rates[whole], low, high
                ax.fill_between(*band, color=colour, alpha=0.15, linewidth=0)
            ax.axvline(best, color=colour, linewidth=1, linestyle=":")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel(f"loss after {_many(self.num_steps, 'step')}")
        ax.set_title(f"learning rates at {len(self.widths)} widths; dotted: optima")
        drawing.add_legend(ax)
        return ax.figure

    def save(self, path: Any, /, *, overwrite: bool = False) -> None:
        """Write everything to a JSON file; `load_learning_rates` reads it.

        Raises:
            FileExistsError: it exists, and ``overwrite`` is not set.
        """
        store.save(self, path, kind=KIND, overwrite=overwrite)

    def _repr_html_(self) -> str:
        return _console.html(self.show)


def load_learning_rates(path: Any, /) -> LearningRates:
    """Read what `LearningRates.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, damaged, or of a newer schema.
    """
    names = [field.name for field in dataclasses.fields(LearningRates)]
    values = store.read(path, names, ("losses", "rates"), kind=KIND)
    values["widths"] = tuple(values["widths"])
    return LearningRates(**values)


def optimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate of the least loss: the vertex of a parabola between two logarithms.

    By least squares through the best rate and two rates on either side, so that the
    noise of single runs, where the valley is broad, moves it little; between the
    neighbours of the best rate. That rate itself where it is the first or the last, or
    a neighbour diverged. NaN if all did.

    >>> rates = np.array([0.1, 1.0, 10.0])
    >>> float(round(optimum(rates, np.exp(0.1 * (np.log10(rates) - 0.25) ** 2)), 6))
    1.778279
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    if not np.isfinite(losses).any():
        return math.nan
    best = int(np.argmin(losses))
    if (
        best in (0, len(rates) - 1)
        or not np.isfinite(losses[[best - 1, best + 1]]).all()
    ):
        return float(rates[best])
    near = slice(max(best - _BESIDE, 0), best + _BESIDE + 1)
    x = np.log(rates[near] / rates[best])
    parabola = np.polynomial.polynomial.polyfit(x, _depths(losses[near]), 2)
    if not parabola[2] > 0:  # equal losses
        return float(rates[best])
    vertex = np.clip(-0.5 * parabola[1] / parabola[2], *_neighbours(rates, best))
    return float(rates[best] * np.exp(vertex))


def _depths(losses: np.ndarray) -> np.ndarray:
    """How much the logarithms of losses lie above the least, as far as that matters."""
    least = np.min(losses)
    if least >= 0:
        tiny = np.finfo(np.float64).tiny  # above a loss of zero all are far
        above = np.log(np.maximum(losses, tiny)) - np.log(max(least, tiny))
        return np.minimum(above, _FAR)
    # Without logarithms: the losses, on the scale of what is usual among them.
    above = losses - least
    scale = np.median(above[above > 0]) if (above > 0).any() else 1.0
    return np.minimum(above / scale, _FAR)


def _neighbours(rates: np.ndarray, best: int) -> np.ndarray:
    return np.log(rates[[best - 1, best + 1]] / rates[best])


def _factor(error: float) -> str:
    return "" if math.isnan(error) else f"{math.exp(error):.3g}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
