"""From findings and identities to one verdict."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from gradstab.gradcheck.differences.own_precision import LOST
from gradstab.gradcheck.differences.points import AS_GIVEN
from gradstab.gradcheck.differences.verdict import AGREES, DIFFERS
from gradstab.gradcheck.findings import (
    BODY,
    RANGE,
    ROUNDING,
    Finding,
    GradCheck,
    Verdict,
)
from gradstab.gradcheck.story import Story

# What a rule that accuses itself does.
_WORDS = {
    ROUNDING: "{} rule loses its digits",
    RANGE: "{} rule is not finite, where f is,",
}

_BODY_DIFFERS = "differs from its own body, and the differences of f cannot tell"


def conclude(story: Story, /, *, notes: tuple[str, ...], **fields) -> GradCheck:
    """The verdict that all findings together support.

    A rule is wrong if any oracle but its own body says so: many a rule is written
    because its body has no good derivative. But one that is not finite where that of
    its body is was not written for that. It is right if one that knows the
    derivative agrees, at the resolution asked for, with nothing against it.

    Args:
        story: what was found.
        notes: what the reader should know.
        **fields: the other fields of the result.
    """
    found = tuple(sorted(_settled(story.findings), key=_severity, reverse=True))
    best = _best(found)
    vague = [g for g in best if g.state != AGREES]
    wrong = [g for g in found if g.state == DIFFERS]
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
        resolution=max((g.resolution for g in best), default=np.inf),
        verdict=verdict,
        reason=reason,
        identities=story.identities,
        locations=story.locations,
        moved=story.moved,
        outside=story.outside,
        notes=(*_elsewhere(wrong, story), *notes),
        figures=story.figures[0] if story.figures else None,
        **fields,
    )


def unsettled(found: Iterable[Finding], /, *, settling: tuple = (AGREES,)) -> bool:
    """Whether a rule is neither accused nor acquitted by the findings.

    Args:
        found: of every leaf, mode and oracle.
        settling: the states that acquit.
    """
    return all(g.state != DIFFERS for g in found) and any(
        g.state not in settling for g in _best(found)
    )


def named(found: Iterable[Finding], /) -> str:
    """The leaves of some findings, in words."""
    names = list(dict.fromkeys(g.leaf for g in found))
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _best(found) -> list[Finding]:
    """For every leaf and mode the finding that says most about the derivative."""
    best = {}
    for g in found:
        if g.proves:
            key = g.leaf, g.mode
            best[key] = min(best.get(key, g), g, key=_doubt)
    return list(best.values())


def _doubt(finding):
    return finding.state != AGREES, finding.resolution


def _settled(found):
    """The findings, those of a rule's own body only as far as they may accuse."""
    found = tuple(found)
    acquitted = {(g.leaf, g.mode) for g in found if g.proves and g.state == AGREES}
    for g in found:
        if g.oracle != BODY or g.state != DIFFERS or np.isinf(g.error):
            yield g
        elif (g.leaf, g.mode) not in acquitted:
            yield dataclasses.replace(g, state=_BODY_DIFFERS)


def _accusations(wrong):
    """One sentence per kind of accusation at the point given, and one elsewhere."""
    groups = {}
    for g in wrong:
        kind = g.oracle if g.oracle in _WORDS else ""
        groups.setdefault((kind, g.point == AS_GIVEN), []).append(g)
    for (kind, given), group in groups.items():
        modes = " and ".join(sorted({g.mode for g in group}))
        rule = _WORDS.get(kind, "wrong {} derivative").format(modes)
        points = "" if given else f", {_listed(g.point for g in group)}"
        yield f"{rule} in {named(group)}{points}"


def _elsewhere(wrong, story):
    """What to know of an accusation that does not concern the point given."""
    if story.broken or not wrong or any(g.point == AS_GIVEN for g in wrong):
        return
    yield 'nothing is wrong at the point given: at="given" looks only there'
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


def _severity(finding):
    fine = finding.state in (AGREES, LOST)
    return finding.state == DIFFERS, not fine, finding.proves, finding.resolution
