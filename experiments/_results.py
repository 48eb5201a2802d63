"""The tables of ``experiments/RESULTS.md``, each between two marks with its name."""

import pathlib
import re

RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"


def write(name: str, text: str, /, *, command: str | None = None) -> None:
    """Put a table between its marks, in place of the one before.

    A table that has no marks yet gets a section of its own, at the end.

    Args:
        name: of the table; the module that makes it.
        text: the table, in Markdown.
        command: that made it; it is put above the table.

    Raises:
        ValueError: if one of the marks is there twice, or without the other.
    """
    start, end = marks(name)
    before = RESULTS.read_text()
    counts = before.count(start), before.count(end)
    if counts == (0, 0):
        before = f"{before.rstrip()}\n\n## `{name}`\n\n{start}\n{end}\n"
    elif counts != (1, 1) or before.index(start) > before.index(end):
        raise ValueError(
            f"{RESULTS.name} has {counts[0]} times {start} and {counts[1]} times "
            f"{end}; one of each is wanted, in this order."
        )
    above = f"`{command}`:\n\n" if command else ""
    between = re.compile(f"{re.escape(start)}\n.*?{re.escape(end)}", re.DOTALL)
    table = f"{start}\n{above}{text.strip()}\n{end}"
    RESULTS.write_text(between.sub(lambda _: table, before))


def marks(name: str, /) -> tuple[str, str]:
    """The lines before and after a table.

    >>> marks("verdicts")
    ('<!-- verdicts -->', '<!-- end of verdicts -->')
    """
    return f"<!-- {name} -->", f"<!-- end of {name} -->"
