"""What a comparison of gradients may say of a layer."""

import enum


class Sameness(enum.StrEnum):
    """What a comparison says of a layer."""

    BITWISE = "bitwise equal"
    """Every batch has the same bits in both."""
    SAME = "same within noise"
    """No difference is seen, and one as large as the noise between batches would be."""
    DIFFERS = "differs"
    """The difference is more than its own noise, or one of the two is not finite."""
    UNKNOWN = "cannot tell"
    """No difference is seen, and one as large as the noise could hide."""
