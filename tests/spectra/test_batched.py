"""Decompositions of several matrices, also where two of them run at a time."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra.batched import qr

TWO = """
import jax, numpy as np
from gradstab.spectra.batched import qr
given = [np.random.default_rng(i).normal(size=(16, 400, 40)) for i in range(2)]
with jax.enable_x64(True):
    both = jax.jit(lambda a, b: (qr(a), qr(b)))
    for _ in range(30):
        jax.block_until_ready(both(*given))
print("done")
"""


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_batch_is_decomposed_as_its_matrices_are(wrap):
    matrices = jax.random.normal(jax.random.key(0), (3, 5, 2))
    q, r = wrap(qr)(matrices)
    each = [jnp.linalg.qr(matrix) for matrix in matrices]
    np.testing.assert_allclose(q, jnp.stack([one[0] for one in each]), atol=1e-6)
    np.testing.assert_allclose(r, jnp.stack([one[1] for one in each]), atol=1e-6)


@pytest.mark.slow  # a process of its own: with jax's own batches it may never end
def test_two_at_a_time_come_to_an_end():
    command = [sys.executable, "-c", TWO]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip() == "done", done.stderr
