"""What a check may say of a rule, and of a point: each member is its sentence.

Reports and files show the sentences; code compares members.
"""

import enum


class Outcome(enum.StrEnum):
    """What was found when a rule was compared with an oracle."""

    AGREES = "agrees"
    DIFFERS = "differs"
    SLIGHT = "differs by less than was asked for, and by too much to pass"
    KINK = "f has a kink, and the rule lies between its one-sided slopes"

    # The oracle sees too little.
    HIDDEN = "noise hides smaller errors"
    VANISHES = "the derivative does not stand out from the noise"
    OVERSHADOWED = "the derivative of an output is too small beside those of the others"
    UNDEFINED = "f is not finite on both sides of the point, at any step"
    STAIRS = "f moves in stairs: it rounds inside, or it is saturated"
    UNBOUNDED = "the rule is not finite, and f is too steep to say more"
    HELD = (
        "no entry can be moved: each is infinite, or at a border of where f is defined"
    )
    NO_TRUTH = "the oracle's derivative is not finite"

    # An error was seen, and is not held against the rule.
    UNCONFIRMED = "differed along one set of directions and not along another"
    UNPLACED = "differs along random directions, and no entry of it is wrong"
    BODY_DIFFERS = "differs from its own body, and the differences of f cannot tell"
    TRUNCATED = "f iterates, and stops too far from its limit to tell"
    NOT_CONVERGED = "f iterates, and does not come near a limit there"
    LOST = "loses digits that f loses too"


class Answer(enum.StrEnum):
    """What came of a moved point."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"
    NOT_DEFINED = "not defined"
    NOT_CONVERGED = "not converged"
