"""The search for planted mistakes, without the check around it."""

import numpy as np

from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.places.localize import hint, locate
from gradstab.gradcheck.subject.problem import MODES, problem


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
