"""Words made fit for a terminal, and those that stand in a source; not for users."""

import ast
import functools
import inspect
import itertools
import sys
import unicodedata

_BREAKS = "\n\r\t\u2028\u2029"
# Control characters, format (bidirectional ones), and what cannot be encoded.
_HIDDEN = ("Cc", "Cf", "Cs")


def printable(words: str, /) -> str:
    r"""The words in one line, without what a terminal would obey instead of printing.

    Names come from models and files of others: an escape in one could set the title of
    a window, and one that writes from right to left could swap what is read.

    >>> printable("a\x1b]0;title\x07b"), printable("two\nlines"), printable("h₁ é")
    ('a]0;titleb', 'two lines', 'h₁ é')
    """
    line = "".join(" " if c in _BREAKS else c for c in str(words))
    return "".join(c for c in line if unicodedata.category(c) not in _HIDDEN)


def printable_lines(words: str, /) -> str:
    r"""The same for several lines, which stay lines.

    >>> printable_lines("two\n  \x1blines")
    'two\n  lines'
    """
    return "\n".join(map(printable, str(words).split("\n")))


def one_line(words, /, *, length: int = 300) -> str:
    r"""The same, without spaces that only lay it out, and cut to a length.

    >>> one_line("a\n  b")
    'a b'
    """
    line = printable(" ".join(str(words).split()))
    return line if len(line) <= length else f"{line[: length - 4]} ..."


@functools.cache
def field_texts(kind: type, /) -> dict[str, str]:
    """The strings below the fields of a class, in its source, by field."""
    body = _classes(sys.modules[kind.__module__])[kind.__name__].body
    return {
        node.target.id: " ".join(str(text.value.value).split())
        for node, text in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


@functools.cache
def _classes(module):
    body = ast.parse(inspect.getsource(module)).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}
