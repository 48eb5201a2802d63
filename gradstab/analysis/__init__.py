"""From a model and a batch to a report."""

from gradstab.analysis.analyze import analyze

__all__ = ["analyze"]
