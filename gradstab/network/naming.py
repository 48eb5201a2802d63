"""Names of layers, from the dotted paths of the parameters they own."""

import collections


def base_names(contracted, owned, /) -> list[str]:
    """The module of each block.

    That is the path shared by all the parameters it owns, unless another block lies
    in there too; then the path shared by those it multiplies the data with.

    Args:
        contracted: for each block the dotted paths of the parameters that it
            multiplies the data with.
        owned: for each block those of all parameters that it uses.

    >>> base_names([["a.fc.w"], ["b.w"]], [["a.fc.w", "a.norm.scale"], ["b.w", "c.w"]])
    ['a', 'b']
    >>> base_names([["hidden.0"], ["hidden.1"]], [["hidden.0"], ["hidden.1"]])
    ['hidden.0', 'hidden.1']
    """
    narrow = [_module(c) or "+".join(_top_level(c)) for c in contracted]
    narrow = [
        # A list of arrays has no modules; there the arrays' own paths are the names.
        paths[0] if narrow.count(name) > 1 and len(paths) == 1 else name
        for name, paths in zip(narrow, contracted, strict=True)
    ]
    names = []
    for i, paths in enumerate(owned):
        wide = _module(paths)
        others = [name for j, name in enumerate(narrow) if j != i]
        alone = wide and not any(f"{name}.".startswith(f"{wide}.") for name in others)
        names.append(wide if alone else narrow[i] or wide or "(no parameters)")
    return names


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
    >>> layer_name("blocks.mlp", 3, ["blocks.mlp.up.kernel", "blocks.norm.scale"])
    'blocks.3.mlp'
    """
    if step is None:
        return base
    stack = _module(stack_paths)
    rest = base.removeprefix(stack).lstrip(".") if stack else ""
    return ".".join(filter(None, [stack or base, str(step), rest]))


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
