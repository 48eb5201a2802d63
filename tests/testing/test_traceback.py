"""A failing assertion shows the line of the test, and none of gradstab's."""

pytest_plugins = ["pytester"]

TEST = """
import jax, jax.numpy as jnp
from gradstab.testing import assert_grads, check_grads, check_vjp

@jax.custom_jvp
def wrong(x):
    return jnp.sin(x)

wrong.defjvp(lambda primals, tangents: (jnp.sin(*primals), 2 * tangents[0]))

def test_own():
    assert_grads(wrong, 1.0)

def test_drop_in():
    check_grads(wrong, (1.0,), order=1)

def test_vjp():
    check_vjp(jnp.sin, lambda x: (jnp.sin(x), lambda w: (2 * w,)), (1.0,))
"""


def test_only_the_line_of_the_test_is_shown(pytester):
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-p", "no:xdist", "-o", "addopts=")
    result.assert_outcomes(failed=3)
    shown = result.stdout.str()
    assert "assert_grads(wrong, 1.0)" in shown
    for file in ("assertions.py:", "drop_in.py:", "checker.py:"):
        assert file not in shown
