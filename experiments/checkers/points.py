"""Where the operations of the corpus are checked: random arrays of three shapes.

Tiny shapes show what a reduction over one or two entries hides, odd ones the edges of
blocks, large ones what a tolerance that grows with the size lets through.
"""

import functools
import zlib
from collections.abc import Callable

import numpy as np

LENGTH = {"tiny": 3, "odd": 37, "large": 20_000}
ROWS = {"tiny": (2, 3), "odd": (5, 7), "large": (96, 128)}
SQUARE = {"tiny": 2, "odd": 7, "large": 48}
SEQUENCE = {"tiny": (3, 2), "odd": (7, 5), "large": (64, 16)}
IMAGE = {"tiny": (4, 4), "odd": (7, 5), "large": (32, 24)}


def generator(shape: str, name: str = "") -> np.random.Generator:
    """The random numbers of one shape; the same in every process."""
    return np.random.default_rng(zlib.crc32(f"{shape} {name}".encode()))


def normals(make_shapes: Callable, shape: str) -> tuple[np.ndarray, ...]:
    """One standard normal array for each of the shapes that ``make_shapes`` names."""
    rng = generator(shape)
    return tuple(rng.standard_normal(size) for size in make_shapes(shape))


def point(make_shapes: Callable) -> Callable[[str], tuple]:
    """A function from a shape's name to normal arrays."""
    return functools.partial(normals, make_shapes)


vector = point(lambda s: [LENGTH[s]])
vectors = point(lambda s: [LENGTH[s]] * 2)
rows = point(lambda s: [ROWS[s]])
two_rows = point(lambda s: [ROWS[s]] * 2)
square = point(lambda s: [(SQUARE[s],) * 2])
sequence = point(lambda s: [SEQUENCE[s]] * 3)
rows_and_scale = point(lambda s: [ROWS[s], ROWS[s][1:]])
rows_scale_shift = point(lambda s: [ROWS[s], ROWS[s][1:], ROWS[s][1:]])
square_rows_and_scale = point(lambda s: [(SQUARE[s],) * 2, (SQUARE[s],)])
dense = point(lambda s: [ROWS[s], (ROWS[s][1], ROWS[s][0] + 1), (ROWS[s][0] + 1,)])
square_dense = point(lambda s: [ROWS[s], ROWS[s][1:] * 2])
batch = point(lambda s: [(2, *SEQUENCE[s]), SEQUENCE[s][1:], SEQUENCE[s][1:]])


def positive(shape: str) -> tuple[np.ndarray]:
    """Rows of numbers between 0.2 and 2."""
    return (generator(shape).uniform(0.2, 2.0, ROWS[shape]),)


def negative_vector(shape: str) -> tuple[np.ndarray]:
    """A vector of numbers between -3 and -0.1."""
    return (generator(shape).uniform(-3.0, -0.1, LENGTH[shape]),)


def labelled(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and a label for each row."""
    rng, size = generator(shape), ROWS[shape]
    return rng.standard_normal(size), rng.integers(0, size[1], size[0])


def targets(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and weights of the classes that do not sum to one."""
    rng, size = generator(shape), ROWS[shape]
    return rng.standard_normal(size), rng.uniform(0.2, 2.0, size)


def probabilities(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities away from the border, and targets of 0 and 1."""
    rng, size = generator(shape), ROWS[shape]
    return rng.uniform(0.1, 0.9, size), rng.integers(0, 2, size)


def repeated_ids(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """A table, and twice as many ids as rows: each is met about twice."""
    rng, (m, n) = generator(shape), ROWS[shape]
    ids = rng.integers(0, m, 2 * m)
    ids[-1] = ids[0]
    return rng.standard_normal((m, n)), ids


def repeated_ids_of_rows(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and an id for each, of which the last two are equal."""
    rng, (m, n) = generator(shape), ROWS[shape]
    ids = rng.integers(0, m, m)
    ids[-1] = ids[0]
    return rng.standard_normal((m, n)), ids


def ids_beyond(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """A table, and ids of which two are out of bounds."""
    rng, (m, n) = generator(shape), ROWS[shape]
    ids = rng.integers(0, m, m)
    ids[0], ids[-1] = m + 3, m
    return rng.standard_normal((m, n)), ids


def positive_definite(shape: str) -> tuple[np.ndarray]:
    """A well-conditioned symmetric matrix."""
    n = SQUARE[shape]
    a = generator(shape).standard_normal((n, n)) / np.sqrt(n)
    return (a @ a.T + np.eye(n),)


def system(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """A well-conditioned matrix and two right-hand sides."""
    rng, n = generator(shape), SQUARE[shape]
    a = rng.standard_normal((n, n)) / (2 * np.sqrt(n)) + np.eye(n)
    return a, rng.standard_normal((n, 2))
