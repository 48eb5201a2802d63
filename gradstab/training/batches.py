"""Where the batches of a run come from: arrays on the device, or an iterable."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab.data import as_batches, batch_plan
from gradstab.errors import UserTypeError, UserValueError


class Batches(NamedTuple):
    """The batches of one dispatch: ``x[plan[i]], y[plan[i]]`` is that of step i."""

    x: jax.Array  # (examples, ...)
    y: jax.Array  # (examples, ...)
    plan: np.ndarray  # int32 (steps_per_dispatch, batch_size)


class Splits(NamedTuple):
    """What a run trains on, and what it is evaluated on: pairs (x, y) or None."""

    train: Any
    val: tuple | None
    test: tuple | None

    @property
    def num_train(self) -> int | None:
        """Training examples; None for an iterable, which may have any number."""
        return len(self.train[0]) if isinstance(self.train, tuple) else None


def splits(data, /) -> Splits:
    """The training, validation and test examples in ``data``.

    Args:
        data: a record with ``x_train`` and ``y_train`` (and ``x_val``, ``x_test``,
            ...), a pair of arrays, or an iterable of batches.

    Raises:
        ValueError: arrays of different lengths.
        TypeError: none of these.
    """
    if hasattr(data, "x_train"):
        pairs = [
            _pair(getattr(data, f"x_{part}", None), getattr(data, f"y_{part}", None))
            for part in ("train", "val", "test")
        ]
        return Splits(*pairs)
    if isinstance(data, tuple | list) and len(data) == 2 and _are_arrays(data):
        return Splits(_pair(*data), None, None)
    if isinstance(data, Iterable) and not _are_arrays([data]):
        return Splits(data, None, None)
    raise UserTypeError(
        f"data is a {type(data).__name__}; expected a record with x_train and y_train "
        "(gradstab.data.load), a pair of arrays (x, y), or an iterable of such batches."
    )


def batches_from(
    train,
    /,
    *,
    batch_size: int | None,
    seed: int,
    steps_per_dispatch: int,
    first_step: int,
) -> Callable[[int, int], Batches]:
    """``batches(first_step, stop)`` of a pair of arrays or of an iterable.

    Raises:
        ValueError: arrays without a batch size, or an iterable with one.
    """
    if not isinstance(train, tuple):
        if batch_size is not None:
            raise UserValueError(
                f"batch_size={batch_size}, but the data come in batches; leave it out."
            )
        return streamed(
            train, steps_per_dispatch=steps_per_dispatch, first_step=first_step
        )
    if batch_size is None:
        raise UserValueError("arrays need batch_size=, the examples of one step.")
    return resident(
        train, seed=seed, batch_size=batch_size, steps_per_dispatch=steps_per_dispatch
    )


def resident(
    pair, /, *, seed: int, batch_size: int, steps_per_dispatch: int
) -> Callable[[int, int], Batches]:
    """Batches drawn from arrays that stay on the device, by `gradstab.data.batch_plan`.

    Returns:
        ``batches(first_step, stop)``, with a plan of ``steps_per_dispatch`` steps.
    """
    x, y = jax.device_put(pair)

    def batches(first_step, stop):
        del stop  # a plan may run past the end of the run: those steps are not taken
        plan = batch_plan(
            seed,
            first_step,
            steps_per_dispatch,
            num_examples=len(x),
            batch_size=batch_size,
        )
        return Batches(x, y, plan)

    return batches


def streamed(
    iterable, /, *, steps_per_dispatch: int, first_step: int
) -> Callable[[int, int], Batches]:
    """Batches taken from an iterable, again from its start when it ends.

    Those of the steps before ``first_step`` are drawn and dropped.

    Returns:
        ``batches(first_step, stop)``, to be called in the order of the steps. It raises
        ValueError when an iterator that cannot start again has ended.
    """
    stream = itertools.islice(_endless(iterable), first_step, None)

    def batches(first_step, stop):
        drawn = list(itertools.islice(stream, stop - first_step))
        x, y = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        rows = np.arange(len(x), dtype=np.int32).reshape(len(drawn), -1)
        plan = np.zeros((steps_per_dispatch, rows.shape[1]), np.int32)
        plan[: len(rows)] = rows
        # Always of one length, so that the last, shorter dispatch compiles nothing.
        x, y = (_extended(array, plan.size) for array in (x, y))
        return Batches(jax.device_put(x), jax.device_put(y), plan)

    return batches


def _endless(iterable):
    for epoch in itertools.count():
        empty = True
        for batch in as_batches(iterable):
            empty = False
            yield batch
        if empty:
            raise UserValueError(
                f"the batches ended after {epoch} passes: the iterable gives no more. "
                "Pass one that can be iterated again (a list, a data loader), or one "
                "with a batch for every step; on resuming, steps already taken count."
            )


def _extended(array, length, /):
    missing = np.zeros((length - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, missing])


def _are_arrays(items):
    return all(hasattr(item, "shape") and hasattr(item, "dtype") for item in items)


def _pair(x, y):
    if x is None or y is None:
        return None
    if not np.ndim(x) or not np.ndim(y) or len(x) != len(y):
        raise UserValueError(
            f"x has shape {np.shape(x)} and y {np.shape(y)}; both need the examples on "
            "their leading axis, equally many."
        )
    return x, y
