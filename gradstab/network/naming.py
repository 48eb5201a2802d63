"""Names of layers, from the dotted paths of the parameters they own.

Haiku parts its modules by slashes, ``mlp/~/linear_0``, where ``~`` stands for the
constructor; such paths keep their spelling, and both separators part modules here.
"""

import collections
import re
from collections.abc import Sequence

_SEPARATOR = re.compile(r"\.|/~/|/")


def base_names(contracted, owned, /) -> list[str]:
    """The module of each block: the outermost one that holds no other block.

    A block that shares every module with another block is named by its parts in their
    common module. Parameters that are one bare array are called ``params``.

    Args:
        contracted: for each block the dotted paths of the parameters that it
            multiplies the data with; they say where the block lies.
        owned: for each block those of all parameters that it uses; they do so where
            it multiplies with none.

    >>> base_names([["a.fc.w"], ["b.up.w"], ["b.down.w"]], [[], [], []])
    ['a', 'b.up', 'b.down']
    >>> base_names([["hidden.0"], ["hidden.1"], ["head"]], [[], [], []])
    ['hidden.0', 'hidden.1', 'head']
    >>> base_names([["b.q.w"], ["b.up.w", "b.down.w"]], [[], []])
    ['b.q', 'b.up+down']
    >>> base_names([[""], []], [[""], []])
    ['params', '(no parameters)']
    """
    homes = [tuple(c or o) for c, o in zip(contracted, owned, strict=True)]
    holders = collections.defaultdict(set)
    for home in homes:
        for path in home:
            for prefix in _prefixes(path):
                holders[prefix].add(home)
    return [_joined(home, holders) or _unnamed(home) for home in homes]


def layer_name(base: str, step, stack_paths, /) -> str:
    """The name of a layer.

    Args:
        base: the module of its block.
        step: its iteration in a scan over layers, or None.
        stack_paths: dotted paths of all parameters that the scan runs over.

    Returns:
        The module; in a scan with the iteration after the part that the scan shares.

    >>> layer_name("head", None, [])
    'head'
    >>> layer_name("blocks", 3, ["blocks.dense.kernel", "blocks.dense.bias"])
    'blocks.3'
    >>> layer_name("blocks.mlp", 3, ["blocks.mlp.up.kernel", "blocks.norm.scale"])
    'blocks.3.mlp'
    """
    if step is None:
        return base
    stack = shared_module(stack_paths)
    if stack not in _prefixes(base):
        return f"{base}.{step}"
    rest = base.removeprefix(stack).lstrip("./~")
    return ".".join(filter(None, [stack, str(step), rest]))


def distinct(names: Sequence[str], /) -> list[str]:
    """The names, with the second use of one marked ``name@2`` and so on.

    >>> distinct(["cell", "cell", "head"])
    ['cell', 'cell@2', 'head']
    """
    seen, result = collections.Counter(), []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}@{seen[name]}")
    return result


def part_of(module: str, path: str, /) -> str:
    """The part of a module that a path within it lies in.

    >>> part_of("net.blocks", "net.blocks.0.attention.query")
    'net.blocks.0'
    """
    return next((p for p in _prefixes(path) if len(p) > len(module)), path)


def summary(names: Sequence[str], /) -> str:
    """Many names in few words: the modules that hold them, and how many each holds.

    >>> summary(["down.0", "down.1", "mid", "up.0"])
    'down (2), mid, up.0'
    >>> summary(["net.a", "net.b.x", "net.b.y", "net.b.z"])
    'net.a, net.b (3)'
    >>> summary([f"net.{i}.w" for i in range(9)])
    'net (9)'
    """
    shared = shared_module(names)
    groups = collections.defaultdict(list)
    for name in names:
        inside = [p for p in _prefixes(name) if len(p) > len(shared)]
        groups[inside[0]].append(name)
    if len(groups) > 4:
        if shared:
            return f"{shared} ({len(names)})"
        groups, more = dict(list(groups.items())[:3]), len(groups) - 3
    else:
        more = 0
    found = [k if len(v) > 1 else v[0] for k, v in groups.items()]
    counts = [f" ({len(v)})" if len(v) > 1 else "" for v in groups.values()]
    listed = ", ".join(f"{n}{c}" for n, c in zip(found, counts, strict=True))
    return f"{listed} and {more} more" if more else listed


def _unnamed(home: tuple):
    """What to call a block whose parameters have no module: a bare array, or none."""
    return "params" if home else "(no parameters)"


def _joined(home: tuple, holders):
    """The outermost modules that hold what this block has and no other, as one name."""
    parts = list(dict.fromkeys(_outermost(path, holders) for path in home))
    if len(parts) < 2:
        return "".join(parts)
    shared = shared_module(parts)
    parts = [part.removeprefix(shared).lstrip("./~") for part in parts]
    if len(parts) > 3:
        parts = [*parts[:2], f"{len(parts) - 2} more"]
    return ".".join(filter(None, [shared, "+".join(parts)]))


def _outermost(path: str, holders):
    """The shortest prefix that is held by the same blocks as the whole path."""
    return next(p for p in _prefixes(path) if holders[p] == holders[path])


def _prefixes(path: str):
    """The modules of a path from the outermost to the path itself.

    >>> _prefixes("net.mlp/~/linear_0.w")
    ['net', 'net.mlp', 'net.mlp/~/linear_0', 'net.mlp/~/linear_0.w']
    """
    ends = [found.start() for found in _SEPARATOR.finditer(path)]
    return [*(path[:end] for end in ends), path]


def shared_module(paths: Sequence[str], /) -> str:
    """The longest path of modules that all parameters share."""
    chains = [_prefixes(path)[:-1] for path in paths]
    shared = ""
    for prefixes in zip(*chains, strict=False):
        if len(set(prefixes)) > 1:
            break
        shared = prefixes[0]
    return shared
