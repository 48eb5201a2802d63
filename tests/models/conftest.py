"""Models are many small programs that run once: compile them fast, not well."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
    """Two thirds of the compile time; what is computed stays the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
