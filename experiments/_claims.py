"""What somebody published, and what is measured here."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Claim:
    """One published number beside the one measured here.

    Attributes:
        text: what is claimed, with the size at which it is.
        source: who published it, and where.
        published: the number expected.
        measured: the number found.
        low: the least measured value that agrees.
        high: the largest one.
        error: standard error of the measured value; NaN if it has none.
        row: its row of the scoreboard, if it has one.
    """

    text: str
    source: str
    published: float
    measured: float
    low: float
    high: float
    error: float = math.nan
    row: str = ""

    @property
    def held(self) -> bool:
        """Whether the measured value lies where it must; NaN never does."""
        return bool(self.low <= self.measured <= self.high)


def claim(
    text,
    measured,
    published,
    /,
    *,
    source,
    within=None,
    relative=None,
    between=None,
    error=math.nan,
    row="",
) -> Claim:
    """A claim with its tolerance in one of three forms.

    Args:
        text: what is claimed.
        measured: the number found.
        published: the number expected.
        source: who published it.
        within: the largest difference that agrees.
        relative: the same, as a share of the published number.
        between: the least and the largest value that agree.
        error: standard error of the measured value.
        row: of the scoreboard.

    Returns:
        The claim; it has held or not.

    >>> claim("slope", 1.98, 2, source="Taylor", within=0.1).held
    True
    >>> claim("slope", 1.98, 2, source="Taylor", relative=0.001).held
    False
    """
    if sum(form is not None for form in (within, relative, between)) != 1:
        raise TypeError("give one of within, relative and between.")
    if between is None:
        width = within if within is not None else relative * abs(published)
        between = published - width, published + width
    low, high = map(float, between)
    numbers = float(published), float(measured), low, high
    return Claim(text, source, *numbers, float(error), row)


def table(claims, /) -> str:
    """The claims as a table in Markdown, with a last line that counts them."""
    lines = [
        "| row | claim | source | published | measured | accepted | held |",
        "|---|---|---|---|---|---|---|",
        *map(_line, claims),
    ]
    held = sum(c.held for c in claims)
    return "\n".join([*lines, "", f"{held} of {len(claims)} held"])


def _line(c):
    measured = f"{c.measured:.5g}"
    if not math.isnan(c.error):
        measured += f" ± {c.error:.2g}"
    accepted = f"{c.low:.5g} .. {c.high:.5g}"
    cells = c.row, c.text, c.source, f"{c.published:.5g}", measured, accepted
    return f"| {' | '.join(cells)} | {'yes' if c.held else '**no**'} |"
