"""Gradients of two configurations, layer by layer: what differs, and what is noise."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from gradstab import _console, _files, _json
from gradstab.errors import UserValueError
from gradstab.watch import comparison_table
from gradstab.watch.sameness import Sameness

SCHEMA = 1
_KIND = "gradient comparison"

# How often a comparison of equal gradients may say of any of its layers that they
# differ. Every layer is asked twice: for its direction, and for its scale.
ALPHA = 0.01
# A difference as large as the resolution is seen in so many of the cases.
_POWER = 0.95


class LayerComparison(NamedTuple):
    """The gradient of a layer by two ways, A and B, over the same batches.

    All that is relative is so to the norm of the mean gradient of A. NaN where the
    gradient is zero, or not finite.

    Attributes:
        layer: its name.
        verdict: see `Sameness`.
        difference: norm of the difference of the mean gradients, relative.
        error: its standard error, of what varies from batch to batch.
        noise: the yardstick: the standard error of the mean gradient of A, relative.
        resolution: the smallest difference of the means that these batches show, with a
            probability of 95 %; a difference of scale alone is often seen sooner.
        turn: one less the cosine of the angle between both means.
        factor: by which the gradient of B is longer along that of A, batch by batch,
            in the mean.
        factor_error: its standard error.
        each: the difference of a batch over the gradient of a batch, root mean squares.
        lost: in how many batches A and B are not finite.
    """

    layer: str
    verdict: Sameness
    difference: float
    error: float
    noise: float
    resolution: float
    turn: float
    factor: float
    factor_error: float
    each: float
    lost: tuple[int, int]

    @property
    def cosine(self) -> float:
        """Of the angle between the mean gradients."""
        return 1 - self.turn

    @property
    def of_noise(self) -> float:
        """The difference in units of the noise between batches."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(self.difference, self.noise))


@dataclasses.dataclass(frozen=True)
class GradientComparison:
    """The gradients of every layer by two ways, over the same batches.

    Attributes:
        layers: a `LayerComparison` for each layer with parameters, in depth order.
        whole: the same of all parameters together.
        values: the losses, ``(batches, 2)``.
        names: what A and B are called.
        made: what they are, and how they were compared; text by name.
    """

    layers: tuple[LayerComparison, ...]
    whole: LayerComparison
    values: np.ndarray
    names: tuple[str, str] = ("A", "B")
    made: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def num_batches(self) -> int:
        """How many batches both were given."""
        return len(self.values)

    @property
    def differing(self) -> tuple[LayerComparison, ...]:
        """The layers that differ."""
        return tuple(x for x in self.layers if x.verdict is Sameness.DIFFERS)

    @property
    def is_bitwise(self) -> bool:
        """Whether every layer has the same bits in every batch."""
        return all(x.verdict is Sameness.BITWISE for x in self.layers)

    def __getitem__(self, name: str) -> LayerComparison:
        """The layer of that name."""
        found = [x for x in self.layers if x.layer == name]
        if not found:
            names = ", ".join(x.layer for x in self.layers)
            raise UserValueError(f"no layer named {name!r}; compared were: {names}")
        return found[0]

    def show(self, console: Any = None, /) -> None:
        """Print a table to a rich console (standard output by default)."""
        comparison_table.show(self, console)

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values, as `save` writes it."""
        return {"schema": SCHEMA, "kind": _KIND, **_encoded(self)}

    def save(self, path: str | pathlib.Path, /, *, overwrite: bool = False) -> None:
        """Write everything as JSON; `GradientComparison.read` reads it back.

        Raises:
            FileExistsError: there is a file, and ``overwrite`` is not set.
            OSError: it cannot be written.
        """
        path = _files.as_path(path, "path")
        _files.make_folder(path.parent)
        text = _json.dumps(self.as_json(), indent=1)
        _files.write(path, text + "\n", overwrite=overwrite)

    @classmethod
    def read(cls, path: str | pathlib.Path, /) -> "GradientComparison":
        """A comparison that `save` wrote.

        Raises:
            OSError: there is no such file, or it cannot be read.
            ValueError: it is no comparison of gradients, or of a newer schema.
        """
        path = _files.as_path(path, "path")
        try:
            content = _json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserValueError(f"{path} is not a JSON file") from error
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            raise UserValueError(f"{path} is no comparison of gradients")
        if content.get("schema") != SCHEMA:
            raise UserValueError(
                f"{path} has schema {content.get('schema')!r}; this gradstab reads "
                f"{SCHEMA}"
            )
        try:
            return cls(
                tuple(_layer(x) for x in content["layers"]),
                _layer(content["whole"]),
                np.array(content["values"], float).reshape(-1, 2),
                tuple(content["names"]),
                dict(content["made"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserValueError(f"{path} is damaged: {error}") from error

    def __str__(self):
        return "\n".join(comparison_table.sentences(self))

    def _repr_html_(self):
        return _console.html(self.show)


def _encoded(found: GradientComparison):
    fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    fields["layers"] = [x._asdict() for x in found.layers]
    fields["whole"] = found.whole._asdict()
    return _json.encoded(fields)


def _layer(values) -> LayerComparison:
    kinds = LayerComparison.__annotations__
    read: dict[str, Any] = {
        name: float(value) if kinds[name] is float else value
        for name, value in values.items()
    }
    read |= {"verdict": Sameness(read["verdict"]), "lost": tuple(read["lost"])}
    return LayerComparison(**read)


class Sums(NamedTuple):
    """What was summed up of gradients: of A, g, and of the differences, d.

    Attributes:
        batches: squared norm of g, product of g and d, squared norm of d of every
            batch, ``(batches, rows, 3)``.
        means: the same of the means over the batches, ``(rows, 3)``.
        equal: whether the bits are the same, ``(batches, rows)``.
        finite: whether A and B are finite, ``(batches, rows, 2)``.
        eps: spacing of the numbers in which they were summed.
    """

    batches: np.ndarray
    means: np.ndarray
    equal: np.ndarray
    finite: np.ndarray
    eps: float


def judged(names, sums: Sums, /) -> tuple[LayerComparison, ...]:
    r"""What is said of every row.

    The norm of the mean difference is set against its standard error by Student's law
    with as many degrees of freedom as there are batches less one. That is exact where
    differences have one direction, and errs towards "no difference" where they have
    many: of sums of squares of normal numbers with one mean, a single one is beyond a
    bound most often. The factor along the gradient of A is asked too, batch by batch:
    a change of scale is seen where the mean gradient is all noise.

    Args:
        names: of the rows.
        sums: of two batches and more.

    References:
        Székely and Bakirov (2003), Extremal probabilities for Gaussian quadratic forms.
    """
    from scipy import special

    free = len(sums.batches) - 1
    bound = special.stdtrit(free, 1 - ALPHA / (4 * len(names)))
    reach = bound + special.stdtrit(free, _POWER)
    with np.errstate(all="ignore"):
        return tuple(_judged(n, i, sums, bound, reach) for i, n in enumerate(names))


def _judged(name, row, sums, bound, reach) -> LayerComparison:
    batches, means = sums.batches[:, row], sums.means[row]
    number = len(batches)
    lost_a, lost_b = (~sums.finite[:, row]).sum(axis=0).tolist()
    lost = lost_a, lost_b
    size, along, gap = np.sqrt(means[0]), means[1], np.sqrt(means[2])
    noise, error = (
        _error(batches[:, i].sum(), means[i], number, sums.eps) for i in (0, 2)
    )
    factors = np.divide(batches[:, 1], batches[:, 0])
    factors = factors[batches[:, 0] > 0]
    factor = factors.mean() if len(factors) else np.nan
    spread = factors.std(ddof=1) / np.sqrt(number) if len(factors) == number else np.nan
    squares = means[0] * means[2] - along**2
    other = means[0] + 2 * along + means[2]
    sine = np.clip(squares / (means[0] * other), 0, 1)
    cosine = np.sign(means[0] + along) * np.sqrt(1 - sine)
    # Of nearly equal directions 1 - cos loses its digits.
    turn = sine / (1 + cosine) if cosine > 0 else 1 - cosine
    numbers = {
        "difference": gap / size,
        "error": error / size,
        "noise": noise / size,
        "resolution": max(reach * error / size, sums.eps),
        "turn": turn,
        "factor": 1 + factor,
        "factor_error": spread,
        "each": np.sqrt(batches[:, 2].sum() / batches[:, 0].sum()),
    }
    if sums.equal[:, row].all():
        verdict = Sameness.BITWISE
        numbers["resolution"] = 0.0
    elif lost[0] != lost[1] or np.any(np.ptp(sums.finite[:, row].astype(int), axis=1)):
        verdict = Sameness.DIFFERS
    elif any(lost):
        verdict = Sameness.UNKNOWN
    elif _stands_out(gap, error, bound, sums.eps * size) or _stands_out(
        abs(factor), spread, bound, sums.eps
    ):
        verdict = Sameness.DIFFERS
    elif gap <= sums.eps * size or reach * error <= noise:
        verdict = Sameness.SAME
    else:
        verdict = Sameness.UNKNOWN
    numbers = {name: float(value) for name, value in numbers.items()}
    return LayerComparison(name, verdict, lost=lost, **numbers)


def _stands_out(value, error, bound, rounding) -> bool:
    """Whether a mean is beyond its noise, and beyond rounding."""
    return bool(value > bound * error and value > rounding)


def _error(total, mean, number, eps):
    """The standard error of a mean vector, of its squared norms; not below rounding."""
    spread = max(total - number * mean, 4 * eps * total)
    return np.sqrt(spread / (number * (number - 1)))
