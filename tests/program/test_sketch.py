"""What a sketch says of a program is part of what tells programs apart."""

import jax
import jax.numpy as jnp

from gradstab.program.canonical import key_of
from gradstab.program.sketch import Opened, mark_of, sketched


def _sketch(first):
    closed = jax.make_jaxpr(lambda x, w: jnp.tanh(x @ w))(jnp.eye(3), jnp.eye(3))

    def run(*values):
        return sketched(closed, values, Opened(), first=first)

    return jax.make_jaxpr(run)(jnp.eye(3), jnp.eye(3))


def test_programs_whose_equations_have_other_numbers_are_others():
    # Their layers would be looked for at the numbers of another program.
    assert [mark_of(eqn) for eqn in _sketch(5).jaxpr.eqns] == [5, 6]
    assert key_of(_sketch(5)) == key_of(_sketch(5))
    assert key_of(_sketch(5)) != key_of(_sketch(6))
