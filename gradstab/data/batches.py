"""Which examples are in the batch of a step: a pure function of the seed and the step.

A training loop keeps the data set on the device, asks the host for the indices of its
next steps in one go, and gathers. A resumed run asks for the steps that are left, and
so sees bitwise the batches that it would have seen.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from gradstab._attempt import Refusal, attempt
from gradstab.data.permutation import permutation
from gradstab.errors import UserTypeError, UserValueError


def batch_plan(
    seed: int,
    first_step: int,
    num_steps: int,
    /,
    *,
    num_examples: int,
    batch_size: int,
) -> np.ndarray:
    """The examples of the batches of ``num_steps`` steps, from ``first_step`` on.

    Every epoch is a new permutation of the examples cut into batches. The examples that
    do not fill a last batch are dropped, other ones in every epoch.

    Args:
        seed: of the run.
        first_step: counted from 0, over all epochs.
        num_steps: how many; they may lie in several epochs.
        num_examples: in the training set.
        batch_size: at most ``num_examples``.

    Returns:
        int32 ``(num_steps, batch_size)``, for ``x_train[plan[i]]`` or a `lax.scan`.

    Raises:
        ValueError: a size or a step is out of range.

    >>> whole = batch_plan(0, 0, 7, num_examples=10, batch_size=3)
    >>> resumed = batch_plan(0, 5, 2, num_examples=10, batch_size=3)
    >>> bool((whole[5:] == resumed).all())
    True
    """
    if first_step < 0 or num_steps < 0:
        raise UserValueError(
            "steps are counted from 0: got "
            f"first_step={first_step}, num_steps={num_steps}"
        )
    per_epoch = steps_per_epoch(num_examples, batch_size)
    steps = np.arange(first_step, first_step + num_steps)
    plan = np.empty((num_steps, batch_size), np.int32)
    for epoch in np.unique(steps // per_epoch):
        order = epoch_permutation(seed, int(epoch), num_examples)
        batches = order[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        here = steps // per_epoch == epoch
        plan[here] = batches[steps[here] % per_epoch]
    return plan


def steps_per_epoch(num_examples: int, batch_size: int, /) -> int:
    """The number of full batches in the training set.

    Raises:
        ValueError: there is none.

    >>> steps_per_epoch(55_000, 200)
    275
    """
    if not 1 <= batch_size <= num_examples:
        raise UserValueError(
            f"a batch of {batch_size} cannot be drawn from {num_examples} training "
            "examples: give a batch size from 1 to that number"
        )
    return num_examples // batch_size


@functools.lru_cache(maxsize=4)  # consecutive plans of one epoch share its permutation
def epoch_permutation(seed: int, epoch: int, num_examples: int, /) -> np.ndarray:
    """The order of the examples in an epoch: int32 ``(num_examples,)``, read-only.

    >>> sorted(epoch_permutation(0, 3, 5)) == [0, 1, 2, 3, 4]
    True
    """
    order = permutation(num_examples, seed=seed, stream=epoch)
    order.setflags(write=False)
    return order


def as_batches(batches: Iterable, /) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Any iterable of ``(x, y)`` as NumPy arrays of one shape, checked as they come.

    For data loaders of any library, with arrays of NumPy, JAX or whatever has
    ``__array__``. 64-bit numbers become 32-bit ones, as JAX would make them; other
    dtypes stay. All batches must have the shapes and dtypes of the first, because a
    compiled step has one shape.

    Args:
        batches: gives pairs with the examples on the leading axis of both.

    Returns:
        An iterator, as long as ``batches``.

    Raises:
        TypeError: not an iterable, not pairs, or not numbers.
        ValueError: the shapes differ from those of the first batch, or from each other.

    >>> [(x.shape, y.dtype.name) for x, y in as_batches([([[0.5], [1.5]], [0, 1])])]
    [((2, 1), 'int32')]
    """
    if not isinstance(batches, Iterable):
        raise UserTypeError(
            f"batches must be an iterable of (x, y), got {type(batches).__name__}"
        )
    return _checked(batches)


def _checked(batches: Iterable, /) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    first = None
    for index, pair in enumerate(batches):
        x, y = _arrays(pair, index)
        layout = (x.shape, x.dtype, y.shape, y.dtype)
        first = first or layout
        if layout != first:
            raise UserValueError(
                f"batch {index} is {_describe(*layout)}, but batch 0 was "
                f"{_describe(*first)}: all must be alike, so drop the last, smaller "
                "batch (in many loaders: drop_last=True) or pad it"
            )
        yield x, y


def _arrays(pair, index: int, /) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        length = f" of length {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise UserTypeError(
            f"batch {index} must be a pair (x, y), got {type(pair).__name__}{length}; "
            "map the loader first: ((b['image'], b['label']) for b in loader)"
        )
    x, y = (
        _array(pair[0], f"x of batch {index}"),
        _array(pair[1], f"y of batch {index}"),
    )
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise UserValueError(
            f"x and y of batch {index} must have the examples on their leading axis, "
            f"got shapes {x.shape} and {y.shape}"
        )
    return x, y


def _array(value, what: str, /) -> np.ndarray:
    array = attempt(np.asarray, value)
    if isinstance(array, Refusal):
        # Ragged lists, and tensors that require a gradient or live on a device.
        error = array.error
        raise UserTypeError(f"{what} is no array of numbers: {error}") from error
    if array.dtype.kind in "OSUMm":
        raise UserTypeError(f"{what} must be numbers, got dtype {array.dtype}")
    return _narrow(array, what)


def _narrow(array: np.ndarray, what: str, /) -> np.ndarray:
    narrow = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
    if array.dtype.name not in narrow:
        return array
    narrowed = array.astype(narrow[array.dtype.name])
    if array.dtype.kind in "iu" and not np.array_equal(narrowed, array):
        raise UserValueError(f"{what} has integers that do not fit in 32 bits")
    return narrowed


def _describe(x_shape, x_dtype, y_shape, y_dtype) -> str:
    return f"x {x_dtype}{list(x_shape)}, y {y_dtype}{list(y_shape)}"
