"""Handwritten digits that come with scikit-learn: real data without a network."""

import numpy as np

from gradstab.data.dataset import Dataset, class_entropy
from gradstab.data.permutation import permutation

SPLIT = (1297, 200, 300)  # training, validation, test


def digits() -> Dataset:
    """1,797 images of 8 x 8 pixels in ten classes, scaled from 0..16 to [0, 1].

    1,297 are for training, 200 for validation and 300 for the test: a fixed split in
    which every class has its share to within one example. It is random over the
    writers, so it measures no generalisation to a new writer.

    References:
        Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI
        machine learning repository; the test part of it, as scikit-learn embeds it.

    >>> data = digits()
    >>> len(data.x_train), len(data.x_val), len(data.x_test), data.num_outputs
    (1297, 200, 300, 10)
    """
    # It takes longer to import than all else here together.
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = stratified_order(y)
    x = (x[order] / 16).astype(np.float32)
    y = y[order].astype(np.int32)
    train, val, _ = np.cumsum(SPLIT)
    return Dataset(
        x_train=x[:train],
        y_train=y[:train],
        x_val=x[train:val],
        y_val=y[train:val],
        x_test=x[val:],
        y_test=y[val:],
        name="digits",
        task="classification",
        num_outputs=10,
        image_shape=(8, 8),
        baseline=class_entropy(y[:train]),
        baseline_answer="the class frequencies of the training set",
    )


def stratified_order(labels: np.ndarray, /, *, seed: int = 0) -> np.ndarray:
    """A random order in which every stretch has its share of every class.

    The k-th example of a class of n, in random order, stands at (k + 1/2) / n of the
    way, so the examples of a class are equally spaced.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> [int(label) for label in labels[stratified_order(labels)]]
    [0, 1, 0, 0, 1, 0]
    """
    order = permutation(len(labels), seed=seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")
