"""Names of layers, from the dotted paths of the parameters they own."""

import collections


def base_names(contracted, owned, /) -> list[str]:
    """The module of each block: the outermost one that holds no other block.

    Args:
        contracted: for each block the dotted paths of the parameters that it
            multiplies the data with; they say where the block lies.
        owned: for each block those of all parameters that it uses; they do so where
            it multiplies with none.

    >>> base_names([["a.fc.w"], ["b.up.w"], ["b.down.w"]], [[], [], []])
    ['a', 'b.up', 'b.down']
    >>> base_names([["hidden.0"], ["hidden.1"], ["head"]], [[], [], []])
    ['hidden.0', 'hidden.1', 'head']
    """
    homes = [c or o for c, o in zip(contracted, owned, strict=True)]
    narrow = [_module(paths) or "+".join(_top_level(paths)) for paths in homes]
    uses = collections.Counter(narrow)
    narrow = [
        # A list of arrays has no modules; there the arrays' own paths are the names.
        paths[0] if uses[name] > 1 and len(paths) == 1 else name
        for name, paths in zip(narrow, homes, strict=True)
    ]
    inside = collections.Counter(p for name in narrow for p in _prefixes(name))
    return [_outermost(name, inside) or "(no parameters)" for name in narrow]


def layer_name(base, step, stack_paths, /) -> str:
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
    stack = _module(stack_paths)
    if not _within(base, stack):
        return f"{base}.{step}"
    rest = base.removeprefix(stack).lstrip(".")
    return ".".join(filter(None, [stack, str(step), rest]))


def distinct(names, /) -> list[str]:
    """The names, with the second use of one marked ``name@2`` and so on.

    >>> distinct(["cell", "cell", "head"])
    ['cell', 'cell@2', 'head']
    """
    seen, result = collections.Counter(), []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}@{seen[name]}")
    return result


def _outermost(name, inside):
    """The shortest prefix of the name that holds no other block."""
    return next((p for p in _prefixes(name) if inside[p] == 1), name)


def _prefixes(name):
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _within(name, module):
    return module != "" and f"{name}.".startswith(f"{module}.")


def _module(paths):
    """The longest path of modules that all parameters share."""
    modules = [path.split(".")[:-1] for path in paths]
    shared = []
    for parts in zip(*modules, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _top_level(paths):
    tops = list(dict.fromkeys(path.split(".")[0] for path in paths))
    return tops if len(tops) <= 3 else [*tops[:2], f"{len(tops) - 2} more"]
