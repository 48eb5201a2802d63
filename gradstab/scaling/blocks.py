"""Blocks of residual networks: what each adds, and which scheme of depth that is."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstab.scaling.causes import NEAR, NORMALISING, is_near
from gradstab.scaling.schemes import BRANCH_POWERS, DEPTH_SCHEMES
from gradstab.scaling.slopes import Slope, fit

# What the update of one of L blocks may do to the stream, so that all add up to 1.
_WANTED = -1.0
_NUMBER = re.compile(r"^(.*?)(?:(?<=[./_])|^)(\d+)(?=[./_]|$)")
_PLACE = re.compile(r"^(.*?)(?:(?<=[./_])|^)(first|middle|last)(?=[./_]|$)")


class BlockSlopes(NamedTuple):
    """How the blocks of a stack go with the depth.

    Attributes:
        name: of the stack.
        added: of what the first block adds to the data that enter it, at the start; the
            first, because the data have not grown there.
        effects: for each weight, in the first, the middle and the last block, its name
            and the slope of what its first update does to what its block adds.
    """

    name: str
    added: Slope
    effects: tuple[tuple[str, Slope], ...]

    @property
    def effect(self) -> float:
        """The median of the slopes of the effects; NaN if there are none."""
        known = [s.value for _, s in self.effects if not math.isnan(s.value)]
        return float(np.median(known)) if known else math.nan


def layers_before(names: Sequence[str], /) -> tuple[int | None, ...]:
    """For each layer that ends a block the number of the layer before the block.

    Args:
        names: of the layers, in depth order; a block is all with one first number.

    >>> layers_before(["embed", "blocks.0.a", "blocks.0.b", "blocks.1.a", "head"])
    (None, None, 0, 2, None)
    """
    found: list[int | None] = [None] * len(names)
    begin = 0
    for i, name in enumerate(names):
        block = _block(name)
        if i and block != _block(names[i - 1]):
            begin = i
        ends = i + 1 == len(names) or block != _block(names[i + 1])
        if block and ends and begin:
            found[i] = begin - 1
    return tuple(found)


def is_first(name: str, /) -> bool:
    """Whether a row is of the first block of a stack whose length goes with depth."""
    place = _PLACE.match(name)
    return place is not None and place.group(2) == "first"


def _block(name: str) -> str | None:
    match = _NUMBER.match(name)
    return match and match.group(0)


def block_slopes(
    sizes: Sequence[int],
    layers: Sequence[str],
    added: np.ndarray,
    parameters: Sequence[tuple[str, bool]],
    relative: np.ndarray,
    /,
) -> tuple[BlockSlopes, ...]:
    """The slopes of all stacks whose length goes with the depth.

    Args:
        sizes: depths.
        layers: names of the rows of layers.
        added: (sizes, seeds, layers), what blocks add at the start.
        parameters: of each row of parameters its name, and whether it is a product.
        relative: (sizes, seeds, parameters), the effect of the first update on the
            result of that product, over the result.
    """
    ends = {}
    for number, name in enumerate(layers):
        place = _PLACE.match(name)
        if place and not np.isnan(added[..., number]).any():
            ends[place.group(0)] = number
    found = []
    for prefix, number in ends.items():
        stack = _PLACE.sub(r"\1", prefix).rstrip("./_")
        if not prefix.endswith("first"):
            continue
        rows = [
            (name, i, ends[place.group(0)])
            for i, (name, is_product) in enumerate(parameters)
            if is_product
            and (place := _PLACE.match(name))
            and place.group(0) in ends
            and place.group(1) == _PLACE.sub(r"\1", prefix)
        ]
        effects = tuple(
            (name, fit(np.array(sizes), relative[..., i] * added[..., end]))
            for name, i, end in rows
        )
        own = fit(np.array(sizes), added[..., number])
        found.append(BlockSlopes(stack or prefix, own, effects))
    return tuple(found)


def depth_schemes_like(
    blocks: Sequence[BlockSlopes], *, normalises: bool
) -> tuple[tuple[str, str], ...]:
    """The parametrisations of depth that slopes fit, with their optimisers.

    What a block adds must have the power of the scheme; and what its updates do to it
    the power -1, but for the standard scheme, in which they add up to what they may.
    """
    kinds = NORMALISING if normalises else ("sgd",)
    fits = [one for one in DEPTH_SCHEMES if blocks and _fits(one, blocks)]
    return tuple((scheme, kind) for scheme in fits for kind in kinds)


def _fits(scheme: str, blocks: Sequence[BlockSlopes]) -> bool:
    if not all(is_near(one.added, BRANCH_POWERS[scheme]) for one in blocks):
        return False
    return scheme == "standard" or all(map(_has_its_rates, blocks))


def _has_its_rates(one: BlockSlopes) -> bool:
    # Of one weight the slope may be off by more: there are few of them.
    return abs(one.effect - _WANTED) <= NEAR


def sentences(
    blocks: Sequence[BlockSlopes], schemes: Sequence[tuple[str, str]], /
) -> list[str]:
    """What the slopes of blocks say, in words."""
    if not blocks:
        return []
    if schemes:
        kinds = ", ".join(kind for name, kind in schemes if name == schemes[0][0])
        names = " and ".join(dict.fromkeys(name for name, _ in schemes))
        return [f"the blocks go with the depth as those of {names} ({kinds}) do"]
    return [_of_no_scheme(one) for one in blocks]


def _of_no_scheme(one: BlockSlopes) -> str:
    what = f"{one.name}: what a block adds goes as depth^{one.added}"
    like = [s for s in DEPTH_SCHEMES if is_near(one.added, BRANCH_POWERS[s])]
    if not like:
        return f"{what}, which is that of no parametrisation known"
    if math.isnan(one.effect):
        return f"{what}, as in {like[0]}; nothing is known of its updates"
    if _has_its_rates(one):
        return f"{what}, as in {like[0]}"
    return (
        f"{what}, as in {like[0]}, but what its updates do to that goes as "
        f"depth^{one.effect:+.2f}, and not as depth^{_WANTED:g}: multiply its learning "
        f"rates by depth^{_half(_WANTED - one.effect):g}"
    )


def _half(power: float) -> float:
    half = round(2 * power) / 2
    return half if abs(half - power) < 0.2 and half else round(power, 2)
