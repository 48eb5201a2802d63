"""Names of entries of arguments and outputs."""

import numpy as np

from gradstab.gradcheck.subject.arguments import AS_PAIR
from gradstab.gradcheck.subject.problem import Problem


def output_name(problem: Problem, flat: int, /, *, whole: bool = False) -> str:
    """An entry of the outputs, counted through all of them; empty if it is the only.

    Args:
        problem: whose outputs.
        flat: the number of the entry.
        whole: of a complex output name the number, and not which part of it.

    >>> from gradstab.gradcheck.subject.problem import problem
    >>> f = lambda x: {"loss": x[0], "twice": 2 * x}
    >>> task = problem(f, (np.ones(3),))
    >>> output_name(task, 0), output_name(task, 2)
    ("['loss']", "['twice'][1]")
    >>> task = problem(lambda x: 2j * x, (np.ones(3),))
    >>> output_name(task, 2), output_name(task, 2, whole=True)
    ('real(output[1])', '[1]')
    """
    number, inside = output_of(problem, flat)
    name, shape = problem.output_names[number], problem.outputs[number].shape
    part = ""
    if name.endswith(AS_PAIR):
        name, shape = name.removesuffix(AS_PAIR), shape[:-1]
        part, inside = ("real", "imag")[inside % 2], inside // 2
    index = entry_name(index_of(inside, shape))
    if sum(y.size for y in problem.outputs) == 1 and name == "output":
        return ""
    if part and not whole:
        return f"{part}({name}{index})"
    return f"{name.removeprefix('output')}{index}"


def output_of(problem: Problem, flat: int, /) -> tuple[int, int]:
    """The number of the output to which an entry belongs, and its number in there."""
    ends = np.cumsum([y.size for y in problem.outputs])
    number = int(np.searchsorted(ends, flat, side="right"))
    return number, int(flat - ends[number] + problem.outputs[number].size)


def entry_name(index, /) -> str:
    """An index as it is written behind a name; nothing for the only entry."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def index_of(flat: int, shape, /) -> tuple[int, ...]:
    """The index of the entry of that number.

    >>> index_of(4, (2, 3))
    (1, 1)
    """
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()
