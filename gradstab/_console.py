"""What people see of a record, in a terminal and in a notebook; not for users."""

import io
from collections.abc import Callable, Collection

from rich import box
from rich.console import Console
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from gradstab._text import printable
from gradstab.errors import UserTypeError

# Each has a contrast of 3 and more, which large text needs (WCAG 2.2, 1.4.3), on a
# white page and on one as dark as those of JupyterLab.
_MIDTONES = (
    (118, 118, 118),
    (220, 50, 47),
    (34, 145, 60),
    (170, 120, 0),
    (38, 122, 210),
    (200, 60, 150),
    (0, 140, 145),
    (128, 128, 128),
)
# Dim text is halfway between its colour and the background: a grey stays as it is.
_GREY = (118, 118, 118)
_THEME = TerminalTheme(_GREY, _GREY, [*_MIDTONES])

# JupyterLab's style sheet gives `pre` no font of its own.
_FORMAT = (
    "<pre style=\"font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace; "
    'white-space: pre; overflow-x: auto; line-height: normal">{code}</pre>'
)

_WIDTH = 140


def terminal(console: Console | None = None, /) -> Console:
    """The console given, or standard output, as text in notebooks too.

    Inside of a kernel rich would display every piece by itself, whatever its file is.

    Raises:
        TypeError: it is no console.
    """
    if console is None:
        return Console(force_jupyter=False)
    if not isinstance(console, Console):
        raise UserTypeError(f"console must be a rich.console.Console, got {console!r}")
    return console


def html(show: Callable[[Console], object], /) -> str:
    """What a function prints to a console as HTML, for a white page and a dark one.

    Args:
        show: prints to the `rich.console.Console` that it is given.
    """
    console = Console(
        record=True, width=_WIDTH, file=io.StringIO(), force_jupyter=False
    )
    show(console)
    return console.export_html(theme=_THEME, inline_styles=True, code_format=_FORMAT)


def table(*heads: str, right: Collection[str] = (), **options) -> Table:
    """An empty table in the one style that all have.

    Args:
        *heads: of the columns.
        right: those of columns of numbers.
        **options: what `rich.table.Table` takes.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, **options)
    for head in heads:
        made.add_column(head, justify="right" if head in right else "left")
    return made


def plain(show: Callable[[Console], object], /, *, width: int = 88) -> str:
    """What a function prints to a console as text without colours.

    Args:
        show: prints to the `rich.console.Console` that it is given.
        width: of its lines.
    """
    file = io.StringIO()
    show(Console(file=file, width=width, force_jupyter=False, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().split("\n"))


def text(words: str, style: str = "") -> Text:
    """The words as they are, in one line: markup and escapes are only characters."""
    return Text(printable(words), style=style)
