"""A small network with everything that a run has to keep, and data for it."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import clipping


class Network(nnx.Module):
    """Dense, batch normalisation, dropout, dense: statistics and random keys."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


# One object, so that all tests share one compiled step.
OPTIMIZER = optax.chain(
    clipping.recorded(clipping.clip_by_global_norm(0.5)),
    optax.sgd(0.1, momentum=0.9),
)


@pytest.fixture
def network():
    return Network(nnx.Rngs(0))


@pytest.fixture
def optimizer():
    return OPTIMIZER


@pytest.fixture(scope="session")
def blobs():
    """Three clouds of 16 points in four dimensions, well apart: ``(x, y)``."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3, dtype=np.int32), 16)
    centres = 4 * np.eye(3, 4, dtype=np.float32)
    return centres[y] + rng.standard_normal((48, 4)).astype(np.float32), y


@pytest.fixture
def settings(blobs, optimizer):
    """Of a short run: 22 steps in dispatches of 4, the last one shorter."""
    return {
        "optimizer": optimizer,
        "num_steps": 22,
        "batch_size": 8,
        "steps_per_dispatch": 4,
        "progress": False,
    }


@pytest.fixture
def arrays():
    """A function: every array of a state, with random keys as numbers."""

    def of(state):
        def plain(leaf):
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

        return jax.tree.map(plain, state)

    return of
