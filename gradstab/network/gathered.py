"""A scan over layers, run with all that flows through it packed into one array."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.network.boundaries import packed, unpacked
from gradstab.network.slices import marked_slices


class State(NamedTuple):
    """What one iteration hands to the next.

    Attributes:
        still: arrays that pass unchanged: those that pass around the scan, and the
            constants that are data.
        moving: the carries that are data.
        rest: the other carries.
    """

    still: list
    moving: list
    rest: list


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredScan:
    """A scan over layers through which several arrays flow.

    Attributes:
        parts: of the scan equation.
        carries: positions, among the carries, of those that are data.
        consts: positions of the constants that are data.
        passengers: variables of the data that pass around the scan.
        leaves: for each array that is sliced the parameter leaf that it is, or None.
        tied: position of a constant that holds a parameter, or None.
        first: whether the first iteration is taken out of the scan: what is packed
            before it belongs to no other layer.
        last: whether the last one is.
    """

    parts: _compat.ScanParts
    carries: tuple[int, ...]
    consts: tuple[int, ...]
    passengers: tuple
    leaves: tuple
    tied: int | None
    first: bool = False
    last: bool = False

    def run(
        self, operands: Sequence[Any], around, num_examples: int
    ) -> tuple[list, list]:
        """The values of the passengers, and the results of the scan.

        Args:
            operands: of the scan equation.
            around: the values of the passengers.
            num_examples: length of the example axis.
        """
        parts = self.parts
        consts, operands = operands[: parts.num_consts], operands[parts.num_consts :]
        carry, xs = operands[: parts.num_carry], operands[parts.num_carry :]
        still = [*around, *(consts[i] for i in self.consts)]
        state = self._state(still, carry)
        state, ys = self._iterate(consts, state, xs, num_examples)
        return state.still[: len(around)], [*self._carry(state), *ys]

    def _state(self, still, carry: Any):
        moving = [carry[i] for i in self.carries]
        return State(
            still, moving, [c for i, c in enumerate(carry) if i not in self.carries]
        )

    def _carry(self, state: Any):
        moving, rest = iter(state.moving), iter(state.rest)
        numbers = range(self.parts.num_carry)
        return [next(moving if i in self.carries else rest) for i in numbers]

    def _iterate(self, consts: Any, state: Any, xs: Any, num_examples: int):
        """The iterations that are taken out, and the scan over the others."""
        length = self.parts.length
        order = list(range(length)[:: -1 if self.parts.reverse else 1])
        start, end = int(self.first), length - int(self.last)
        returned = []  # by the iterations, in their order
        if self.first:
            state, ys = self._step(consts, 0, state, self._slices(xs, order[0]))
            returned.append([y[None] for y in ys])
        pack = _packing(state, num_examples)
        if start < end:
            given = self._numbered(consts, start)

            def body(carried, xs: Any):
                state, ys = self._step(given, None, pack.opened(*carried), xs)
                return pack.closed(state), ys

            carried, ys = jax.lax.scan(
                body,
                pack.closed(state),
                self._slices(xs, order[start:end]),
                length=end - start,
                reverse=self.parts.reverse,
            )
            state = pack.opened(*carried)
            returned.append(ys)
        elif self.last:
            state = pack.opened(*pack.closed(state))
        if self.last:
            xs = self._slices(xs, order[-1])
            state, ys = self._step(consts, length - 1, state, xs)
            returned.append([y[None] for y in ys])
        returned = returned[::-1] if self.parts.reverse else returned
        return state, [jnp.concatenate(parts) for parts in zip(*returned, strict=True)]

    def _step(self, consts: Any, number: int | None, state: Any, xs: Any):
        """One iteration; with its number where it is taken out of the scan."""
        if number is not None:
            consts = self._numbered(consts, number)
        given = list(consts)
        num_around = len(state.still) - len(self.consts)
        for i, value in zip(self.consts, state.still[num_around:], strict=True):
            given[i] = value
        run = _compat.closed_function(self.parts.body)
        results = run(*given, *self._carry(state), *xs)
        carry, ys = results[: self.parts.num_carry], results[self.parts.num_carry :]
        return self._state(state.still, carry), ys

    def _slices(self, xs: Any, numbers):
        """One slice or some of what is scanned over; of parameters with a mark."""
        if isinstance(numbers, int):
            start, found = numbers, [x[numbers] for x in xs]
        elif len(numbers) == self.parts.length:
            return xs
        else:
            start, end = min(numbers), max(numbers) + 1
            found = [jax.lax.slice_in_dim(x, start, end) for x in xs]
        stack = [leaf for leaf in self.leaves if leaf is not None]
        return [
            part if leaf is None else marked_slices(part, start, stack)
            for part, leaf in zip(found, self.leaves, strict=True)
        ]

    def _numbered(self, consts: Any, start: int):
        """The constants; of shared parameters one with the number of the iteration."""
        given = list(consts)
        if self.tied is not None and (self.first or self.last):
            given[self.tied] = marked_slices(given[self.tied], start, ())
        return given


class _Packing(NamedTuple):
    """How a state becomes one array beside carries that are no data."""

    shapes: list
    num_still: int
    num_examples: int

    def closed(self, state: Any):
        arrays = [*state.still, *state.moving]
        return packed(arrays, self.num_examples, still=self.num_still), state.rest

    def opened(self, whole, rest):
        arrays = unpacked(whole, self.shapes, self.num_examples)
        return State(arrays[: self.num_still], arrays[self.num_still :], rest)


def _packing(state: Any, num_examples: int):
    arrays = [*state.still, *state.moving]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    return _Packing(shapes, len(state.still), num_examples)
