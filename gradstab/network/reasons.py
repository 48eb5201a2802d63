"""Why a layer holds products that a reader would take for several layers."""

from gradstab import _compat
from gradstab.network.flow import CONTRACTIONS

_FEW = 3  # a gate beside its value is one layer to everyone


def why_joined(name, block, paths, /, *, alone) -> str:
    """Why a layer could not be cut, in words; empty if nobody would ask.

    Nobody asks why the products of one module, such as a residual block, are one layer,
    unless that module is a list.

    Args:
        name: of the layer.
        block: the function it computes.
        paths: dotted paths of the parameter leaves that it multiplies the data with.
        alone: whether it is the only layer of its network.
    """
    modules = list(dict.fromkeys(map(_module, paths)))
    items = {m.removeprefix(name).lstrip(".").split(".")[0] for m in modules}
    is_list = sum(item.isdigit() for item in items) >= _FEW
    if not is_list and (len(modules) < _FEW or not (alone or "+" in name)):
        return ""
    listed = ", ".join(modules[:6]) + (", ..." if len(modules) > 6 else "")
    inside = [
        eqn.primitive.name
        for eqn in block.eqns
        if eqn.primitive.name not in CONTRACTIONS
        and _compat.contains(eqn, CONTRACTIONS)
    ]
    if inside:
        return (
            f"one layer: the products with {listed} lie inside a {inside[0]} that "
            "cannot be entered"
        )
    return (
        f"one layer: skips or branches pass every point between the products with "
        f"{listed}; boundaries= parts them"
    )


def _module(path):
    """The module of a parameter; an array in a list stands for itself."""
    module, _, last = path.rpartition(".")
    return path if last.isdigit() or not module else module
