"""Programs that are shared by all functions equal to them."""

import jax
import jax.numpy as jnp

from gradstab.program.shared import PROGRAMS, SharedProgram


def scaled(scope, factor):
    def function(x):
        with jax.named_scope(scope):
            return factor * jnp.sin(x)

    return SharedProgram(function)


def test_what_a_scope_is_called_does_not_matter():
    PROGRAMS.clear()  # it may be full, and then as many stay
    x = jnp.arange(3.0)
    first = scaled("blocks", jnp.arange(3.0))(x)
    count = len(PROGRAMS)
    again = scaled("head", jnp.arange(3.0) + 1)(x)
    assert len(PROGRAMS) == count
    assert bool(jnp.allclose(again - first, jnp.sin(x)))


def test_what_is_computed_does():
    PROGRAMS.clear()  # it may be full
    x = jnp.arange(3.0)
    scaled("blocks", jnp.arange(3.0))(x)
    count = len(PROGRAMS)
    SharedProgram(lambda x: jnp.cos(x) * jnp.arange(3.0))(x)
    assert len(PROGRAMS) == count + 1
