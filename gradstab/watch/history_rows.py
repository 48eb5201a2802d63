"""What a history holds in memory: numbers of every step, in ascending order."""

import bisect

import numpy as np

from gradstab.errors import UserValueError

LOSS = "value"
"""What `Statistics` calls the loss."""


class Rows:
    """The steps of a run, each with its numbers.

    Args:
        names: what is watched, in depth order.
    """

    def __init__(self, names: tuple[str, ...] = ()):
        self.names = names
        self.steps: list[int] = []
        self._columns: list[dict[str, np.ndarray]] = []
        self._scalars: list[dict[str, float]] = []

    def add(self, step: int, columns, scalars) -> None:
        """Add a step; of those that are not before it nothing is left.

        Args:
            step: its number.
            columns: arrays, those of layers ``(..., names)``.
            scalars: numbers.
        """
        if self.steps and step <= self.steps[-1]:
            first = bisect.bisect_left(self.steps, step)
            for rows in (self.steps, self._columns, self._scalars):
                del rows[first:]
        self.steps.append(step)
        self._columns.append(columns)
        self._scalars.append(scalars)

    def columns(self) -> tuple[str, ...]:
        """The names of the columns that a step has."""
        return tuple(dict.fromkeys(name for row in self._columns for name in row))

    def scalars(self) -> tuple[str, ...]:
        """The names of the scalars that a step has."""
        return tuple(dict.fromkeys(name for row in self._scalars for name in row))

    def column(self, name: str) -> np.ndarray:
        """A column, ``(steps, ..., names)``; NaN where a step does not have it.

        Raises:
            ValueError: it has not the same shape at all steps.
        """
        arrays = [row.get(name) for row in self._columns]
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) > 1:
            listed = ", ".join(map(str, sorted(shapes)))
            raise UserValueError(f"{name} has several shapes in this history: {listed}")
        shape = shapes.pop() if shapes else (len(self.names),)
        result = np.full((len(arrays), *shape), np.nan)
        for i, array in enumerate(arrays):
            if array is not None:
                result[i] = array
        return result

    def number(self, name: str) -> np.ndarray:
        """A column, or the loss: what metrics are computed from."""
        return self.scalar(name) if name == LOSS else self.column(name)

    def scalar(self, name: str) -> np.ndarray:
        """A scalar, ``(steps,)``; NaN where a step does not have it."""
        return np.array([row.get(name, np.nan) for row in self._scalars], float)
