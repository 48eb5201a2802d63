"""Are the gradients right? Finite differences that know their own noise."""

from gradstab.gradcheck.audit import audit
from gradstab.gradcheck.audited import Audit, Rule
from gradstab.gradcheck.checker import check
from gradstab.gradcheck.findings import (
    Finding,
    GradCheck,
    Identity,
    Location,
    Verdict,
)

__all__ = [
    "Audit",
    "Finding",
    "GradCheck",
    "Identity",
    "Location",
    "Rule",
    "Verdict",
    "audit",
    "check",
]
