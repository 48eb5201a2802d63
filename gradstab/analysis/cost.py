"""What an analysis will cost, before it starts."""

import functools
import math
import time
from typing import NamedTuple

import numpy as np

from gradstab import _tree
from gradstab.spectra import num_workers, one_blas_thread

# Seconds to compile the programs of one kind of layer; only their order counts here.
_COMPILE = 1.0

# Products with a Jacobian that is not written out.
_PRODUCTS = 300


class Cost(NamedTuple):
    """An estimate, good to a factor of about three.

    Attributes:
        seconds: of the whole analysis.
        num_bytes: of the arrays that it holds at its peak.
    """

    seconds: float
    num_bytes: float

    def __str__(self) -> str:
        return f"about {self.seconds:.2g} s, {self.num_bytes / 2**30:.2g} GiB"


def estimate_cost(subject, wanted, limits, /) -> Cost:
    r"""Time and memory of an analysis, from the shapes of its layers.

    A Jacobian of sides :math:`p \le q` that is written out takes about
    :math:`2 p^2 q + 4 p^3 / 3` operations for its Gram matrix and the eigenvalues of
    that; by products some hundred times :math:`2 p q`. The speed of the machine is
    measured by one small decomposition. Memory is that of the parameters, twice, of the
    data that enter and leave all layers, and of the Jacobians at work, which
    ``max_bytes`` bounds.

    Args:
        subject: from `find_subject`.
        wanted: for every layer whether its Jacobian is computed.
        limits: of the analysis.

    Returns:
        The estimate. Cost: some milliseconds, once per process.
    """
    network, itemsize = subject.network, 8 if subject.wide else 4
    num = network.num_examples
    operations = work = entries = 0.0
    for place, want in zip(network.layers, wanted, strict=True):
        rows, columns = math.prod(place.out_shape), sum(map(math.prod, place.in_shapes))
        entries += columns + 2 * rows
        small, large = sorted((rows / num, columns / num))
        if want and small:
            operations += min(limits.examples, num) * _operations(small, large, limits)
            size = small * large * itemsize * min(limits.examples, num)
            work = max(work, min(size, limits.max_bytes))
    leaves = _tree.floating_leaves(subject.target.params)
    held = itemsize * (entries + 2 * sum(np.size(leaf) for leaf in leaves))
    seconds = _COMPILE * (1 + len(network.blocks)) + operations / _speed()
    return Cost(seconds, held + 2 * work)


def _operations(small, large, limits):
    few = limits.top_k is not None and small > max(8 * limits.top_k, 128)
    if small > limits.max_dense or few:
        return 2 * _PRODUCTS * small * large
    return 2 * small**2 * large + 4 / 3 * small**3


@functools.cache
def _speed():
    """Operations per second of small decompositions on all cores."""
    size = 192
    matrix = np.random.default_rng(0).standard_normal((size, size))
    with one_blas_thread():
        np.linalg.eigvalsh(matrix @ matrix.T)
        began = time.perf_counter()
        np.linalg.eigvalsh(matrix @ matrix.T)
        seconds = time.perf_counter() - began
    return (2 + 4 / 3) * size**3 / seconds * num_workers()
