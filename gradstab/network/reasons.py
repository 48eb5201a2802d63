"""Why a layer holds products that a reader would take for several layers."""

import re
from collections.abc import Sequence

from gradstab import _compat
from gradstab.network import naming
from gradstab.network.flow import CONTRACTIONS
from gradstab.program import primitives

_FEW = 3  # a gate beside its value is one layer to everyone
_SHORT = 80


def why_joined(name: str, block, paths: Sequence[str], /, *, alone) -> str:
    """Why a layer could not be cut, in words; empty if nobody would ask.

    Nobody asks why the products of one module, such as a residual block, are one layer,
    unless that module is a list.

    Args:
        name: of the layer.
        block: the function it computes.
        paths: dotted paths of the parameter leaves that it multiplies the data with.
        alone: whether it is the only layer of its network.
    """
    if not seems_many(name, paths, alone=alone):
        return ""
    modules = list(dict.fromkeys(map(module, paths)))
    inside = [
        primitives.name_of(eqn)
        for eqn in block.eqns
        if not primitives.is_a(eqn, primitives.Kind.CONTRACTION)
        and _compat.contains(eqn, CONTRACTIONS)
    ]
    listed = naming.summary(modules)
    if inside:
        return (
            f"one layer: the products with {listed} lie inside a {inside[0]} that "
            "cannot be entered"
        )
    return (
        f"one layer: skips or branches pass every point between the products with "
        f'{listed}; boundaries=r"{expression(modules)}" parts them'
    )


def seems_many(name: str, paths: Sequence[str], /, *, alone) -> bool:
    """Whether a reader would take the products of a layer for several layers.

    Args:
        name: of the layer.
        paths: dotted paths of the parameter leaves that it multiplies the data with.
        alone: whether it is the only layer of its network.
    """
    modules = list(dict.fromkeys(map(module, paths)))
    if is_list(name, modules):
        return True
    return len(modules) >= _FEW and (alone or "+" in name)


def is_list(name: str, modules, /) -> bool:
    """Whether the module of this name is a list, and holds several of these."""
    items = {m.removeprefix(name).lstrip(".").split(".")[0] for m in modules}
    return sum(item.isdigit() for item in items) >= _FEW


def module(path, /) -> str:
    """The module of a parameter; an array in a list stands for itself."""
    found, _, last = path.rpartition(".")
    return path if last.isdigit() or not found else found


def expression(modules, /) -> str:
    r"""A regular expression for `find_layers` by which each of these is a layer.

    >>> expression(["down.0", "down.1", "mid", "up.0"])
    'down\\.\\d+|mid|up\\.\\d+'
    """
    numbered = (re.sub(r"\d+", r"\\d+", re.escape(m)) for m in modules)
    found = "|".join(dict.fromkeys(numbered))
    shared = naming.shared_module(modules)
    if len(found) <= _SHORT or not shared:
        return found
    return rf"{re.escape(shared)}\.[^.]+"
