"""Decompositions of several matrices in one program.

jaxlib's LAPACK kernels share a batch out over the pool of threads that they run in, and
wait for it (jaxlib 0.10 to 0.12). Where two of them run at a time on two cores, each
holds one thread and waits for the other's: the program never ends. A kernel of a single
matrix shares nothing out.
"""

import jax
import jax.numpy as jnp
from jax import lax


def qr(matrices: jax.Array, /):
    """`jax.numpy.linalg.qr` of (num, n, k) matrices, on a CPU one after the other."""
    return lax.platform_dependent(
        matrices,
        cpu=lambda each: lax.map(jnp.linalg.qr, each),
        default=jnp.linalg.qr,
    )
