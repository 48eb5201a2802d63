"""Text of files and of strangers, made fit for a terminal; not for users."""

import re

# What moves the cursor, changes the terminal or the direction of reading; a lone
# surrogate cannot be written at all. A line's end and a tab are harmless.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, /) -> str:
    r"""The text with its control characters spelt out.

    >>> print(printable("blocks\x1b]0;title\x07"))
    blocks\x1b]0;title\x07
    """
    return _CONTROL.sub(_spelt, text)


def one_line(text, /, *, length: int = 300) -> str:
    r"""The same in one line, cut to a length.

    >>> one_line("a\n  b")
    'a b'
    """
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= length else f"{line[: length - 4]} ..."


def _spelt(match):
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
