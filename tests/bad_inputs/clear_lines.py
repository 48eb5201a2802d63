"""What a clear line is."""

import contextlib
import pathlib
import traceback

import gradstab
from gradstab.errors import UserError

PACKAGE = pathlib.Path(gradstab.__file__).parent


def assert_clear(error, *fragments):
    """One line that gradstab wrote, with everything that it has to name."""
    text = str(error)
    assert "\n" not in text, text
    assert len(text) < 1200, text
    assert text.isprintable(), ascii(text)
    for fragment in fragments:
        assert fragment in text, text
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert PACKAGE in pathlib.Path(last.filename).parents, last
    assert isinstance(error, UserError | OSError), type(error)


@contextlib.contextmanager
def refused(kinds, *fragments):
    """The context raises one of these, clearly."""
    try:
        yield
    except kinds as error:
        assert_clear(error, *fragments)
    else:
        raise AssertionError("nothing was said")
