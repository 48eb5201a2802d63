"""What the stages of a check leave behind, put together by addition."""

import dataclasses

from gradstab.gradcheck.figures import Figures
from gradstab.gradcheck.findings import Finding, Identity, Location
from gradstab.gradcheck.states import Answer


@dataclasses.dataclass(frozen=True)
class Story:
    """All that was found so far.

    Attributes:
        findings: of every leaf, mode, oracle and point.
        identities: the laws that were tried.
        locations: where rules are wrong.
        moved: how the point was moved, and what came of it.
        outside: of points at which rules are wrong, what the point given has and they
            have not.
        notes: what the reader should know.
        trouble: why nothing could be looked at; empty if it could.
        figures: those of the textbooks.
    """

    findings: tuple[Finding, ...] = ()
    identities: tuple[Identity, ...] = ()
    locations: tuple[Location, ...] = ()
    moved: tuple[tuple[str, Answer], ...] = ()
    outside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    trouble: str = ""
    figures: tuple[Figures, ...] = ()

    def __add__(self, other: "Story") -> "Story":
        both = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
        }
        troubles = dict.fromkeys(filter(None, (self.trouble, other.trouble)))
        return dataclasses.replace(Story(**both), trouble="; ".join(troubles))

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that accuse."""
        return tuple(g for g in self.findings if g.differs)

    @property
    def broken(self) -> tuple[Identity, ...]:
        """The laws that do not hold."""
        return tuple(law for law in self.identities if not law.holds)

    @property
    def failed(self) -> bool:
        """Whether anything was found that is wrong."""
        return bool(self.wrong or self.broken)
