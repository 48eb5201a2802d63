"""Tables of numbers beside names, in several parts where the screen is narrow."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from gradstab._console import table, text

# What is left of a name on the narrowest screens; longer ones go on in the next line.
_NAME = 8

_GAP = "..."


def beside_names(
    heads: Sequence[str],
    rows: Sequence[tuple | None],
    width: int,
    /,
    *,
    title: str,
    caption: str | None = None,
) -> Iterator[Table]:
    """Tables with all columns; each begins with the names and is no wider than that.

    Args:
        heads: of the names and of the numbers.
        rows: a name and its numbers, as they are printed; None for a gap.
        width: characters of the screen.
        title: of the first table.
        caption: below the last one.
    """
    cells = [row for row in rows if row is not None]
    padding = int(width >= 80)  # a narrow screen needs every character for the numbers
    room = max((len(str(row[0])) for row in cells), default=0)
    room = width - min(max(room, len(heads[0])), _NAME) - padding
    parts = list(_parts(heads, cells, room, 1 + padding))
    for place, columns in enumerate(parts):
        made = table(
            padding=(0, 0, 0, padding),
            title=None if place else text(title),
            title_justify="center",
            caption=text(caption) if caption and columns == parts[-1] else None,
        )
        made.add_column(heads[0], overflow="fold", min_width=min(_NAME, width // 2))
        for column in columns:
            made.add_column(heads[column], justify="right", no_wrap=True)
        for row in rows:
            chosen = [_GAP] * (1 + len(columns)) if row is None else [row[0]]
            chosen += [] if row is None else [row[column] for column in columns]
            made.add_row(*map(text, chosen))
        yield made


def _parts(
    heads: Sequence[str], cells: Sequence[tuple], room: int, between: int
) -> Iterator[list[int]]:
    """Which columns stand side by side."""
    part, left = [], room
    for column in range(1, len(heads)):
        words = [*heads[column].split("\n"), *(row[column] for row in cells)]
        need = max(map(len, words)) + between
        if part and need > left:
            yield part
            part, left = [], room
        part.append(column)
        left -= need
    yield part
