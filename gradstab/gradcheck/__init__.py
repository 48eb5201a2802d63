"""Are the gradients right? Finite differences that know their own noise.

A check goes through `checker`, which runs its `stages`: the function is traced once
into a problem (`subject`), measured by finite differences (`differences`), held against
what needs none (`laws`), and, where it is wrong, taken apart entry by entry (`places`).
Each stage adds to a `story`, of which `conclusion` makes a verdict: a `GradCheck`
(`findings`, shown by `views`). `audits` finds the rules inside of a program.
"""

from gradstab.gradcheck.audits.audit import audit
from gradstab.gradcheck.audits.audited import Audit, Rule
from gradstab.gradcheck.checker import check
from gradstab.gradcheck.findings import (
    Finding,
    GradCheck,
    Identity,
    Location,
    Verdict,
)
from gradstab.gradcheck.states import Answer, Outcome

__all__ = [
    "Answer",
    "Audit",
    "Finding",
    "GradCheck",
    "Identity",
    "Location",
    "Outcome",
    "Rule",
    "Verdict",
    "audit",
    "check",
]


def __dir__():
    return __all__
