"""Which half of the mutants may be looked at while the checker is being built.

The hash of a mutant's name decides, so that all shapes and dtypes of one mistake lie in
one half, and nobody chooses. This rule was committed before the checker had judged any
mutant of the corpus. The frozen half is run to report, not to tune: its misses lead to
no change without a new mistake in the tuned half that shows the same.
"""

import hashlib

HALVES = ("tuned", "frozen")


def half(name: str, /) -> str:
    """The half to which the mutant of this name belongs.

    >>> half("02 tanh: one in a thousand"), half("01 norm: half")
    ('tuned', 'frozen')
    """
    return HALVES[hashlib.sha256(name.encode()).digest()[0] % 2]
