"""Are the gradients right? Finite differences that know their own noise."""

from gradstab.gradcheck.checker import check
from gradstab.gradcheck.findings import (
    Finding,
    GradCheck,
    Identity,
    Location,
    Verdict,
)

__all__ = ["Finding", "GradCheck", "Identity", "Location", "Verdict", "check"]
