"""Settings of every test: strict promotion, key reuse, warnings as errors."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_jax():
    """Every implicit promotion and every reused key is an error."""
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_key_reuse(True),
    ):
        yield


@pytest.fixture(scope="module")
def quick_compiler():
    """Compile fast, not well: for files whose programs are small and run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
