"""The record of a data set, and its views as vectors, images and sequences."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gradstab.data.permutation import permutation
from gradstab.errors import UserValueError
from gradstab.records import record, static

_INPUTS = ("x_train", "x_val", "x_test")


@record(eq=False)
class Dataset:
    r"""Training, validation and test examples, and what a model of them must give.

    A pytree: `jax.device_put(data)` has its arrays on the device. `task` says what the
    targets are and which loss `baseline` is in:

    ========================= ====================== ============================
    task                      ``y``                  loss
    ========================= ====================== ============================
    'classification'          int32 ``(n,)``         cross-entropy, nats
    'sequence-classification' int32 ``(n, time)``    the same, mean over the time
    'regression'              float32 ``(n, width)`` squared error, mean
    ========================= ====================== ============================

    `baseline` is the loss of the best answer that does not look at the input (or
    remembers none of it), which `baseline_answer` says in words: a model that has
    learnt something is below it.

    The views (`flat`, `images`, `sequence`, `rows`, `pixels`, `permuted`, `take`) are
    data sets with the same examples in the same order.

    >>> from gradstab.data import load
    >>> data = load("digits")
    >>> data.x_train.shape, data.images().x_train.shape, data.rows().x_train.shape
    ((1297, 64), (1297, 8, 8, 1), (1297, 8, 8))
    """

    x_train: np.ndarray  # (train, *input_shape), float32; images are within [0, 1]
    y_train: np.ndarray  # (train, ...), see the table
    x_val: np.ndarray  # (val, *input_shape)
    y_val: np.ndarray
    x_test: np.ndarray  # (test, *input_shape)
    y_test: np.ndarray
    name: str = static()
    task: str = static()
    num_outputs: int = static()  # classes, or the width of a regression's target
    image_shape: tuple[int, int] | None = static()  # rows, columns; None: no images
    baseline: float = static()
    baseline_answer: str = static()

    def __repr__(self) -> str:
        # In a tree that was mapped the arrays may be anything.
        shapes = [getattr(getattr(self, name), "shape", None) for name in _INPUTS]
        sizes = ", ".join(
            f"{shape[0] if shape else '?'} {part}"
            for shape, part in zip(
                shapes, ("training", "validation", "test"), strict=True
            )
        )
        example = "x".join(map(str, (shapes[0] or ())[1:])) or "scalar"
        return (
            f"<Dataset {self.name}: {self.task}, {self.num_outputs} outputs, "
            f"{sizes} examples of {example}>"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.x_train.shape[1:]

    def flat(self) -> "Dataset":
        """Every example as one vector: ``x`` of shape ``(n, features)``."""
        return self._with_x(_flat)

    def images(self) -> "Dataset":
        """Every example as a one-channel image: ``(n, rows, columns, 1)``.

        Raises:
            ValueError: the data set is not of images.
        """
        shape = (*self._need_images("images()"), 1)
        return self._with_x(lambda x: x.reshape(len(x), *shape))

    def sequence(self, time_steps: int, /) -> "Dataset":
        r"""Every image as a sequence of pieces: ``(n, time_steps, pixels per step)``.

        The pixels, row by row, are padded with zeros at the end to
        :math:`T \lceil P / T \rceil` of them and cut into :math:`T` equal pieces. Of
        28 x 28 pixels, ``time_steps=28`` gives the rows, 784 the pixels one by one, 100
        a hundred pieces of 8 of which the last two are zero. A number of steps that
        leaves much to pad ends in steps that are all zero.

        Args:
            time_steps: the number of pieces, at least 1.

        Raises:
            ValueError: the data set is not of images, or ``time_steps < 1``.

        References:
            Le, Jaitly and Hinton (2015), A simple way to initialize recurrent networks
            of rectified linear units, section 4.2 (pixel by pixel MNIST).

        >>> from gradstab.data import load
        >>> load("digits").sequence(10).x_train.shape  # 64 pixels, padded to 70
        (1297, 10, 7)
        """
        self._need_images(f"sequence({time_steps})")
        if time_steps < 1:
            raise UserValueError(f"sequence() needs time_steps >= 1, got {time_steps}")
        return replace(self._with_x(lambda x: _pieces(x, time_steps)), image_shape=None)

    def rows(self) -> "Dataset":
        """Every image as the sequence of its rows: ``(n, rows, columns)``."""
        return self.sequence(self._need_images("rows()")[0])

    def pixels(self) -> "Dataset":
        """Every image as the sequence of its pixels: ``(n, rows * columns, 1)``."""
        return self.sequence(math.prod(self._need_images("pixels()")))

    def permuted(self, seed: int, /) -> "Dataset":
        """The pixels of all images in one random order, drawn from ``seed``.

        ``permuted(0).pixels()`` is permuted sequential MNIST: neighbours in the image
        are far apart in time.

        Raises:
            ValueError: the data set is not of images.

        References:
            Le, Jaitly and Hinton (2015), section 4.2.
        """
        height, width = self._need_images("permuted()")
        order = permutation(height * width, seed=seed)
        return self._with_x(lambda x: _flat(x)[:, order].reshape(x.shape))

    def take(self, num_train: int, /) -> "Dataset":
        """The first ``num_train`` training examples; validation and test whole.

        Raises:
            ValueError: there are not so many, or fewer than one is asked for.
        """
        if not 1 <= num_train <= len(self.x_train):
            raise UserValueError(
                f"take({num_train}): {self.name} has {len(self.x_train)} training "
                "examples; give a number from 1 to that"
            )
        return replace(
            self, x_train=self.x_train[:num_train], y_train=self.y_train[:num_train]
        )

    def _with_x(self, view: Callable[[np.ndarray], np.ndarray], /) -> "Dataset":
        return replace(
            self,
            x_train=view(self.x_train),
            x_val=view(self.x_val),
            x_test=view(self.x_test),
        )

    def _need_images(self, view: str, /) -> tuple[int, int]:
        if self.image_shape is None:
            raise UserValueError(
                f"{view} needs images, but an example of {self.name} here is of shape "
                f"{self.input_shape} and no image. A sequence is cut once, from a "
                "data set as loaded: load('mnist').rows(), not .rows().sequence(100)"
            )
        return self.image_shape


def _flat(x: np.ndarray, /) -> np.ndarray:
    # Not reshape(len(x), -1): that fails on a split without examples.
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _pieces(x: np.ndarray, time_steps: int, /) -> np.ndarray:
    pixels = _flat(x)
    piece = -(-pixels.shape[1] // time_steps)
    missing = time_steps * piece - pixels.shape[1]
    return np.pad(pixels, ((0, 0), (0, missing))).reshape(len(x), time_steps, piece)


def class_entropy(labels: np.ndarray, /) -> float:
    """The entropy of the classes' frequencies in nats: the loss of always saying them.

    >>> round(class_entropy(np.array([0, 1, 0, 1])), 4)  # ln 2
    0.6931
    """
    _, counts = np.unique(labels, return_counts=True)
    frequencies = counts / len(labels)
    return float(-np.sum(frequencies * np.log(frequencies)))
