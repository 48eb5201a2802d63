"""Which layers are looked at closely, and how closely."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradstab._checked import whole_number
from gradstab.errors import UserKeyError, UserValueError
from gradstab.report.names import short_names
from gradstab.spectra import checked_place


class Limits(NamedTuple):
    """How much of the Jacobians is computed; see `analyze`."""

    examples: int
    top_k: int | None
    max_dense: int
    max_bytes: float
    spectra_on: str = "auto"


def checked_limits(
    examples: int,
    top_k: int | None,
    max_dense: int,
    max_bytes: float,
    spectra_on: str = "auto",
    /,
) -> Limits:
    """The limits of an analysis.

    Raises:
        ValueError: if one of them is below what makes sense.
    """
    whole_number(examples, "examples", least=1)
    if top_k is not None:
        whole_number(top_k, "top_k", least=1)
    whole_number(max_dense, "max_dense")
    if whole_number(max_bytes, "max_bytes") < 2**20:
        raise UserValueError(
            f"max_bytes must be at least 2**20, one MiB, got {max_bytes}"
        )
    place = checked_place(spectra_on)
    return Limits(examples, top_k, max_dense, max_bytes, place)


def select_layers(names: Sequence[str], which, /) -> list[bool]:
    r"""Which layers' Jacobians are wanted.

    Args:
        names: of all layers.
        which: None for all; a regular expression, matched as a whole; or a sequence of
            names and of positions from the input. Names may be without the modules that
            all of them share, as the table of a report shows them.

    Raises:
        KeyError: for a name or a position that there is not.
        ValueError: for an expression that matches no layer.

    Examples:
        >>> select_layers(["stem", "blocks.0", "blocks.1"], r"blocks\.\d+")
        [False, True, True]
        >>> select_layers(["stem", "blocks.0", "blocks.1"], ["stem", -1])
        [True, False, True]
        >>> select_layers(["net.stem", "net.head"], ["stem"])
        [True, False]
    """
    if which is None:
        return [True] * len(names)
    listed = f"this network has: {', '.join(names)}"
    if isinstance(which, str):
        try:
            pattern = re.compile(which)
        except re.error as error:
            text = f"layers={which!r} is no regular expression: {error}; {listed}"
            raise UserValueError(text) from error
        found = [
            any(pattern.fullmatch(spelling) is not None for spelling in spellings)
            for spellings in zip(names, short_names(names), strict=True)
        ]
        if not any(found):
            raise UserValueError(f"layers={which!r} matches no layer; {listed}")
        return found
    if isinstance(which, (bytes, dict)) or not isinstance(which, Iterable):
        raise UserValueError(
            "layers must be names and positions, a regular expression or None, got "
            f"{which!r}"
        )
    positions: dict = {i: i % len(names) for i in range(-len(names), len(names))}
    positions |= dict(zip(short_names(names), range(len(names)), strict=True))
    positions |= dict(zip(names, range(len(names)), strict=True))
    for item in which:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise UserValueError(f"layers must be names or positions, got {item!r}")
        if item not in positions:
            raise UserKeyError(f"there is no layer {item!r}; {listed}")
    chosen = {positions[item] for item in which}
    return [i in chosen for i in range(len(names))]
