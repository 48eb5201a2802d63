"""From findings and identities to one verdict."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from gradstab.gradcheck.differences.points import AS_GIVEN
from gradstab.gradcheck.findings import (
    BODY,
    RANGE,
    ROUNDING,
    Finding,
    GradCheck,
    Verdict,
)
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.story import Story

# What a rule that accuses itself does.
_WORDS = {
    ROUNDING: "{} rule loses its digits",
    RANGE: "{} rule is not finite, where f is,",
}

_STRAIGHT_THROUGH = (
    "the rule says more than f, which moves in stairs: if that is meant, as in a "
    "straight-through estimator, say by expect= what its derivative should be"
)
# In the names of leaves of derivatives: ``args[0], forward over reverse``.
_SECOND = " over "

# Relative to the larger of what f's differences say and their noise.
_MUCH = 0.1
# So many outputs are too many to be named.
_FEW = 3

# What acquits a rule where f may have a kink.
RIGHT_AT_KINKS = (Outcome.AGREES, Outcome.KINK)


def conclude(story: Story, /, *, notes: tuple = (), **fields) -> GradCheck:
    """The verdict that all findings together support.

    A rule is wrong if any oracle but its own body says so: many a rule is written
    because its body has no good derivative. But one that is not finite where that of
    its body is was not written for that. It is right if one that knows the
    derivative agrees, at the resolution asked for, with nothing against it. A law that
    holds to this resolution only limits what the verdict claims.

    Args:
        story: what was found.
        notes: what the reader should know, so far.
        **fields: the other fields of the result.
    """
    found = tuple(sorted(settled(story.findings), key=_severity, reverse=True))
    best = _best(found)
    resolutions = [g.resolution for g in best]
    accepted = _accepted(story.identities, fields["rtol"])
    vague = [g for g in best if not g.agrees]
    wrong = [g for g in found if g.differs]
    if wrong or story.broken:
        verdict = Verdict.FAIL
        reason = "; ".join([*_accusations(wrong), *_broken(story.broken)])
    elif story.trouble or vague:
        verdict = Verdict.INCONCLUSIVE
        reason = story.trouble or f"{vague[0].state} ({named(vague)})"
    else:
        verdict, reason = Verdict.PASS, ""
    return GradCheck(
        findings=found,
        resolution=max(*resolutions, *accepted) if resolutions else np.inf,
        verdict=verdict,
        reason=reason,
        identities=story.identities,
        locations=story.locations if verdict is Verdict.FAIL else (),
        moved=story.moved,
        outside=story.outside,
        figures=story.figures[0] if story.figures else None,
        notes=(*_elsewhere(wrong, found, story), *notes, *_on_purpose(best, found)),
        **fields,
    )


def _accepted(laws, rtol: float | None) -> Iterator[float]:
    """By how much laws do not hold: what is accepted of them was not told apart."""
    yield 0.0
    for law in laws:
        if law.holds and law.error <= rtol:
            yield law.error


def _on_purpose(best, found) -> tuple[str, ...]:
    """A note for the author of a straight-through estimator."""
    differ_from_body = {
        (g.leaf, g.mode): g.state == Outcome.BODY_DIFFERS
        for g in found
        if g.oracle == BODY
    }
    stairs = [g for g in best if g.state == Outcome.STAIRS]
    meant = any(
        differ_from_body.get((g.leaf, g.mode), _differs_much(g)) for g in stairs
    )
    return (_STRAIGHT_THROUGH,) * meant


def _differs_much(finding: Finding) -> bool:
    """Whether the rule is no derivative of stairs, however little they tell."""
    return bool(np.isfinite(finding.error) and finding.error > _MUCH)


def unsettled(
    found: Iterable[Finding], /, *, settling: tuple = (Outcome.AGREES,)
) -> bool:
    """Whether a rule is neither accused nor acquitted by the findings.

    Args:
        found: of every leaf, mode and oracle.
        settling: the states that acquit.
    """
    return all(not g.differs for g in found) and any(
        g.state not in settling for g in _best(found)
    )


def named(found: Iterable[Finding], /) -> str:
    """The leaves of some findings, in words."""
    names = list(dict.fromkeys(g.leaf for g in found))
    # A leaf of a derivative has a comma inside.
    separator = "; " if any(_SECOND in name for name in names) else ", "
    return separator.join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _best(found) -> list[Finding]:
    """For every leaf and mode the finding that says most about the derivative."""
    best = {}
    for g in found:
        if g.proves:
            key = g.leaf, g.mode
            best[key] = min(best.get(key, g), g, key=_doubt)
    return list(best.values())


def _doubt(finding: Finding):
    return not finding.agrees, finding.resolution


def settled(found: Iterable[Finding], /) -> Iterator[Finding]:
    """The findings, those of a rule's own body only as far as they may accuse."""
    found = tuple(found)
    acquitted = {(g.leaf, g.mode) for g in found if g.proves and g.agrees}
    for g in found:
        if g.oracle != BODY or not g.differs or np.isinf(g.error):
            yield g
        elif (g.leaf, g.mode) not in acquitted:
            yield dataclasses.replace(g, state=Outcome.BODY_DIFFERS)


def _accusations(wrong):
    """One sentence per kind of accusation at the point given, and one elsewhere."""
    groups = {}
    for g in wrong:
        kind = g.oracle if g.oracle in _WORDS else ""
        key = kind, g.point == AS_GIVEN, _SECOND in g.leaf
        groups.setdefault(key, []).append(g)
    for (kind, given, second), group in groups.items():
        modes = " and ".join(sorted({g.mode for g in group}))
        points = "" if given else f", {_listed(g.point for g in group)}"
        if second:  # of a derivative: the leaf says in which modes
            modes, group = "second", sorted(group, key=lambda g: g.leaf)
        outputs = list(dict.fromkeys(name for g in group for name in g.output))
        if all(g.output for g in group) and len(outputs) < _FEW:
            points = f" of {' and '.join(outputs)}{points}"
        rule = _WORDS.get(kind, "wrong {} derivative").format(modes)
        yield f"{rule} in {named(group)}{points}"


def _elsewhere(wrong, found, story: Story):
    """What to know of an accusation that does not concern the point given."""
    if story.broken or not wrong or any(g.point == AS_GIVEN for g in wrong):
        return
    there = [g for g in found if g.point == AS_GIVEN and g.proves]
    leaves, judged = {g.leaf for g in there}, {(g.leaf, g.mode) for g in there}
    open_ = [g for g in wrong if g.leaf in leaves and (g.leaf, g.mode) not in judged]
    if open_:
        modes = " and ".join(sorted({g.mode for g in open_}))
        what = f"the {modes} derivative in {named(open_)} was not judged"
    else:
        what = "nothing is wrong"
    yield f'{what} at the point given: at="given" looks only there'
    if lost := [words for _, words in story.outside]:
        yield f"f may be defined only where {_listed(lost)}, as at the point given"


def _listed(words) -> str:
    """Every word once, the last after an and."""
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} and {last}" if first else last


def _broken(laws):
    for law in laws:
        of = f" ({law.leaf})" if law.leaf else ""
        detail = f": {law.detail}" if law.detail else ""
        yield f"broken law: {law.name}{of}{detail}"


def _severity(finding: Finding):
    fine = finding.state in (Outcome.AGREES, Outcome.LOST)
    return finding.differs, not fine, finding.proves, finding.resolution
