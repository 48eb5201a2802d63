"""Names of entries of arguments and outputs."""

import numpy as np


def output_name(outputs, flat: int, /) -> str:
    """An entry of the outputs, counted through all of them; empty if it is the only.

    >>> import jax
    >>> y = jax.ShapeDtypeStruct((2, 3), float)
    >>> output_name((y,), 4), output_name((y, y), 6)
    ('[1, 1]', '1, [0, 0]')
    """
    ends = np.cumsum([y.size for y in outputs])
    if ends[-1] == 1:
        return ""
    number = int(np.searchsorted(ends, flat, side="right"))
    first = ends[number] - outputs[number].size
    name = str(list(index_of(flat - first, outputs[number].shape)))
    return name if len(outputs) == 1 else f"{number}, {name}"


def index_of(flat: int, shape, /) -> tuple[int, ...]:
    """The index of the entry of that number.

    >>> index_of(4, (2, 3))
    (1, 1)
    """
    return tuple(int(i) for i in np.unravel_index(flat, shape))
