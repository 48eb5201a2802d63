"""Tasks that need a long memory, generated from a seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradstab.data.dataset import Dataset
from gradstab.errors import UserValueError

Seed = int | np.random.SeedSequence

COPIED = 10  # symbols to remember in copy-memory, from an alphabet of 8
ALPHABET = 8
BLANK, GO = 8, 9
TEMPORAL_ORDER_SYMBOLS = "abcdXYEB"  # four distractors, two that count, start, end


def adding_problem(num: int, time_steps: int, seed: Seed):
    r"""Add the two marked numbers of a sequence.

    Each step is a number, uniform on [0, 1), and a marker that is 1 at one step of the
    first half and one of the second half, else 0. The target is the sum of the two
    numbers that are marked. Always answering 1, the mean, errs by the variance of the
    sum of two uniform numbers: :math:`2 / 12 = 1/6 = 0.1667`.

    Args:
        num: examples.
        time_steps: the length of a sequence, at least 2.
        seed: equal seeds give equal examples.

    Returns:
        ``x`` float32 ``(num, time_steps, 2)`` and ``y`` float32 ``(num, 1)``.

    Raises:
        ValueError: a size is too small.

    References:
        Hochreiter and Schmidhuber (1997), Long short-term memory, experiment 4, in the
        form of Arjovsky, Shah and Bengio (2016), Unitary evolution recurrent neural
        networks, section 4.2.

    >>> x, y = adding_problem(3, 50, seed=0)
    >>> bool((y[:, 0] == (x[:, :, 0] * x[:, :, 1]).sum(axis=1)).all())
    True
    """
    _check_sizes("adding_problem", num, time_steps, at_least=2)
    rng = np.random.default_rng(seed)
    half = time_steps // 2
    x = np.zeros((num, time_steps, 2), np.float32)
    x[:, :, 0] = rng.random((num, time_steps), dtype=np.float32)
    examples = np.arange(num)
    first = rng.integers(0, half, num)
    second = rng.integers(half, time_steps, num)
    x[examples, first, 1] = x[examples, second, 1] = 1
    y = x[examples, first, 0] + x[examples, second, 0]
    return x, y[:, None]


def copy_memory(num: int, time_steps: int, seed: Seed, *, one_hot: bool = True):
    r"""Repeat ten symbols after a delay.

    A sequence of ``time_steps + 20`` tokens: ten symbols uniform on 0..7, then
    ``time_steps - 1`` blanks (8), then the sign to answer (9), then ten blanks. The
    target is the blank everywhere but at the last ten steps, where it is the ten
    symbols. Without a memory the best answer is the blank, then any of eight: a mean
    cross-entropy of :math:`10 \ln 8 / (T + 20)`, 0.1733 for a delay of 100.

    Args:
        num: examples.
        time_steps: the delay :math:`T`, at least 1.
        seed: equal seeds give equal examples.
        one_hot: whether ``x`` is one-hot vectors or integer tokens.

    Returns:
        ``x``, float32 ``(num, time_steps + 20, 10)`` or int32
        ``(num, time_steps + 20)``, and ``y`` int32 ``(num, time_steps + 20)`` in 0..8.

    Raises:
        ValueError: a size is too small.

    References:
        Arjovsky, Shah and Bengio (2016), section 4.1.

    >>> tokens, targets = copy_memory(1, 3, seed=0, one_hot=False)
    >>> print(tokens[0, 10:], bool((tokens[0, :10] == targets[0, -10:]).all()))
    [8 8 9 8 8 8 8 8 8 8 8 8 8] True
    """
    _check_sizes("copy_memory", num, time_steps, at_least=1)
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, ALPHABET, (num, COPIED), dtype=np.int32)
    tokens = np.full((num, time_steps + 2 * COPIED), BLANK, np.int32)
    targets = tokens.copy()
    tokens[:, :COPIED] = symbols
    tokens[:, COPIED + time_steps - 1] = GO
    targets[:, -COPIED:] = symbols
    return (_one_hot(tokens, ALPHABET + 2) if one_hot else tokens), targets


def temporal_order(num: int, time_steps: int, seed: Seed):
    r"""Say which two symbols came, and in which order: XX, XY, YX or YY.

    A sequence begins with E, ends with B, and is random in a, b, c, d except at one
    step in :math:`[T/10, T/5]` and one in :math:`[T/2, 3T/5]`, where it is X or Y.
    Those are the paper's 10..20 and 50..60 of about 100, scaled; the paper draws the
    length too, here it is fixed, so that a batch has one shape. Not looking costs
    :math:`\ln 4 = 1.386`.

    Args:
        num: examples.
        time_steps: the length :math:`T`, at least 10.
        seed: equal seeds give equal examples.

    Returns:
        ``x`` float32 ``(num, time_steps, 8)``, one-hot in the order a b c d X Y E B;
        ``y`` int32 ``(num,)``: 0 XX, 1 XY, 2 YX, 3 YY.

    Raises:
        ValueError: a size is too small.

    References:
        Hochreiter and Schmidhuber (1997), experiment 6a.

    >>> x, y = temporal_order(1, 20, seed=0)
    >>> symbols = ["abcdXYEB"[i] for i in x[0].argmax(axis=1)]
    >>> symbols[0], symbols[-1], len([s for s in symbols if s in "XY"])
    ('E', 'B', 2)
    """
    _check_sizes("temporal_order", num, time_steps, at_least=10)
    rng = np.random.default_rng(seed)
    symbol = TEMPORAL_ORDER_SYMBOLS.index
    tokens = rng.integers(0, 4, (num, time_steps))
    tokens[:, 0], tokens[:, -1] = symbol("E"), symbol("B")
    examples = np.arange(num)
    first_is_y, second_is_y = rng.integers(0, 2, (2, num))
    first = rng.integers(time_steps // 10, time_steps // 5 + 1, num)
    second = rng.integers(time_steps // 2, time_steps * 3 // 5 + 1, num)
    tokens[examples, first] = symbol("X") + first_is_y
    tokens[examples, second] = symbol("X") + second_is_y
    labels = (2 * first_is_y + second_is_y).astype(np.int32)
    return _one_hot(tokens, len(TEMPORAL_ORDER_SYMBOLS)), labels


@dataclass(frozen=True)
class GeneratedTask:
    """How a generated task is drawn, and what not remembering costs."""

    draw: Callable  # (num, time_steps, seed) -> x, y
    task: str
    num_outputs: int
    baseline: Callable[[int], float]  # of time_steps
    baseline_answer: str


GENERATED = {
    "adding": GeneratedTask(
        adding_problem, "regression", 1, lambda time_steps: 1 / 6, "always 1"
    ),
    "copy-memory": GeneratedTask(
        copy_memory,
        "sequence-classification",
        ALPHABET + 1,
        lambda time_steps: COPIED * math.log(ALPHABET) / (time_steps + 2 * COPIED),
        "the blank, then any of eight symbols",
    ),
    "temporal-order": GeneratedTask(
        temporal_order,
        "classification",
        4,
        lambda time_steps: math.log(4),
        "any of four classes",
    ),
}


def generated(
    name: str, /, *, num_train: int, num_held_out: int, time_steps: int, seed: int
) -> Dataset:
    """A data set of one of the tasks in `GENERATED`.

    Training, validation and test examples come from three independent streams of the
    seed, so more training examples leave the others as they are.
    """
    task = GENERATED[name]
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = (
        task.draw(num, time_steps, np.random.SeedSequence(seed, spawn_key=(split,)))
        for split, num in enumerate((num_train, num_held_out, num_held_out))
    )
    return Dataset(
        x_train=x_train,
        y_train=y_train,
        x_val=x_val,
        y_val=y_val,
        x_test=x_test,
        y_test=y_test,
        name=name,
        task=task.task,
        num_outputs=task.num_outputs,
        image_shape=None,
        baseline=task.baseline(time_steps),
        baseline_answer=task.baseline_answer,
    )


def _one_hot(tokens: np.ndarray, num_symbols: int, /) -> np.ndarray:
    return np.eye(num_symbols, dtype=np.float32)[tokens]


def _check_sizes(task: str, num: int, time_steps: int, /, *, at_least: int) -> None:
    if num < 1 or time_steps < at_least:
        raise UserValueError(
            f"{task} needs num >= 1 and time_steps >= {at_least}, "
            f"got num={num} and time_steps={time_steps}"
        )
