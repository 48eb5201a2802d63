"""Custom rules, right and wrong, and what the tests of the checker try on them."""

import functools

import jax
import numpy as np
import pytest

import gradstab.gradcheck

# Each part of a check that is asked about alone has tests of its own.
quick = functools.partial(gradstab.gradcheck.check, transformations=False, locate=False)
at_given = functools.partial(
    gradstab.gradcheck.check, at="given", transformations=False
)
compared = functools.partial(at_given, locate=False)


def with_vjp(f, bwd):
    """f with the gradients ``bwd(args, w)``."""
    rule = jax.custom_vjp(lambda *args: f(*args))
    rule.defvjp(lambda *args: (f(*args), args), bwd)
    return rule


def wrong_vjp(f, wrong, **options):
    """f with the gradients that ``wrong(args, w, true gradients)`` makes."""

    def bwd(args, w):
        return wrong(args, w, jax.vjp(f, *args)[1](w))

    rule = jax.custom_vjp(f)
    rule.defvjp(lambda *args: (f(*args), args), bwd, **options)
    return rule


def wrong_jvp(f, wrong):
    """f with the tangent that ``wrong(true tangent)`` makes."""
    rule = jax.custom_jvp(f)
    rule.defjvp(lambda x, v: (f(*x), wrong(jax.jvp(f, x, v)[1])))
    return rule


def normal(seed, *shape):
    """Standard normal numbers of float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def mostly_slow(cases, *quick):
    """The cases by name for `pytest.mark.parametrize`, all but some of them slow."""
    slow = pytest.mark.slow
    marks = {name: () if name in quick else slow for name in cases}
    return [pytest.param(c, id=n, marks=marks[n]) for n, c in cases.items()]
