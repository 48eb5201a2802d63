"""Are the gradients right? Finite differences that know their own noise."""

from gradstab.gradcheck.checker import check
from gradstab.gradcheck.verdict import Finding, GradCheck, Verdict

__all__ = ["Finding", "GradCheck", "Verdict", "check"]
