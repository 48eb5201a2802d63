"""Rules with planted mistakes, and the search for them without the check around it."""

import jax
import numpy as np

from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.places.localize import hint, locate
from gradstab.gradcheck.subject.problem import MODES, problem


def with_vjp(f, wrong):
    """f with the gradients that ``wrong(args, w, true gradients)`` makes."""
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda *args: (f(*args), args),
        lambda args, w: wrong(args, w, jax.vjp(f, *args)[1](w)),
    )
    return rule


def with_jvp(f, wrong):
    """f with the tangent that ``wrong(true tangent)`` makes."""
    rule = jax.custom_jvp(f)
    rule.defjvp(lambda x, v: (f(*x), wrong(jax.jvp(f, x, v)[1])))
    return rule


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def accusation(leaf="args[0]", mode="reverse"):
    """That this leaf is wrong, from somebody who does not know where."""
    return Finding(1.0, 0.0, 0.0, 0.0, "differs", False, leaf, mode, "differences")


def place(f, *args, leaf="args[0]", mode="reverse", seed=0, precision=None, **options):
    """Where f's rule is wrong."""
    task = problem(f, args, modes=MODES, precision=precision)
    rng = np.random.default_rng(seed)
    return locate(task, task.leaves, accusation(leaf, mode), rng, **options)


def cause(f, *args, leaf="args[0]", mode="reverse", seed=0, precision=None, **options):
    """Why f's rule is wrong."""
    task = problem(f, args, modes=MODES, precision=precision)
    rng = np.random.default_rng(seed)
    return hint(task, task.leaves, accusation(leaf, mode), rng, **options)
