"""What a run says when it goes on although something of it is damaged."""

import warnings


class DamageWarning(UserWarning):
    """Something of a run is damaged or lost, and it goes on all the same."""


def warn(text: str, /) -> None:
    """Say so in one line."""
    # Not `warnings.warn`, which adds a line of source.
    warnings.warn_explicit(text, DamageWarning, "gradstab", 1)
