"""Names of layers as they are read: without what all of them share."""

import itertools
import re
from collections.abc import Collection

_SEPARATOR = re.compile(r"/~/|\.|/")


def shared_prefix(names: Collection[str], /) -> str:
    r"""The modules that the names of all layers begin with, the separator included.

    Empty where a name would begin with a number without it, or nothing would be left.

    >>> shared_prefix(["params.vit.embed", "params.vit.blocks.0"])
    'params.vit.'
    >>> shared_prefix(["mlp/~/linear_0", "mlp/~/linear_1"])
    'mlp/~/'
    >>> shared_prefix(["blocks.0", "blocks.1"])
    ''
    """
    names = list(names)
    if len(names) < 2:
        return ""
    columns = zip(*names, strict=False)
    equal = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    common = "".join(column[0] for column in equal)
    ends = [found.end() for found in _SEPARATOR.finditer(common)]
    for end in reversed(ends):
        if not any(name[end:][:1].isdigit() or not name[end:] for name in names):
            return common[:end]
    return ""


def short_names(names: Collection[str], /) -> list[str]:
    """The names without the modules that all of them share."""
    prefix = shared_prefix(names)
    return [name.removeprefix(prefix) for name in names]
