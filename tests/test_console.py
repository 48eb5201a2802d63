"""What a notebook shows of a record: once, in a monospaced font, on any page."""

import builtins
import re
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from rich.text import Text

import gradstab as gs
from gradstab import _console
from gradstab._text import printable


@pytest.fixture
def kernel(monkeypatch):
    """What a notebook displays beside the value of the cell."""

    class ZMQInteractiveShell:
        pass

    displayed = []
    module = types.ModuleType("IPython.display")
    module.display = lambda *items, **options: displayed.extend(items)
    package = types.ModuleType("IPython")
    package.display = module
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(
        builtins, "get_ipython", lambda: ZMQInteractiveShell(), raising=False
    )
    return displayed


def double(x):
    return jnp.maximum(x, 0) * 2


@pytest.fixture(scope="module")
def records():
    w, x = jnp.eye(3), jnp.ones((2, 3))
    report = gs.analyze(lambda w, x: jnp.tanh(x @ w), w, x)
    options = {"at": "given", "transformations": False}
    check = gs.check(jnp.tanh, np.linspace(-1, 1, 5), **options)
    return {
        "report": report,
        "check": check,
        "audit": gs.audit(lambda x: jnp.sum(jax_relu(x)), jnp.arange(1.0, 4.0)),
    }


def jax_relu(x):
    import jax

    return jax.nn.relu(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "check", "audit"])
def test_a_notebook_shows_a_record_once(kernel, capsys, records, name):
    html = records[name]._repr_html_()
    assert kernel == []
    assert capsys.readouterr().out == ""
    assert re.match(r"<pre[^>]*font-family:[^>]*monospace", html)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "check", "audit"])
def test_a_record_that_is_printed_in_a_notebook_is_text(kernel, capsys, records, name):
    records[name].show()
    assert kernel == []
    assert len(capsys.readouterr().out) > 20


@pytest.mark.slow
def test_the_html_of_an_audit_says_what_the_audit_says(records):
    html = records["audit"]._repr_html_()
    words = re.sub("<[^>]*>", "", html)
    assert "PASS" in words
    assert "relu" in words


def luminance(colour):
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    rgb = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


@pytest.mark.parametrize(
    "style",
    ["red", "bold red", "green", "yellow", "magenta", "cyan", "blue", "dim", "white"],
)
def test_every_colour_is_readable_on_a_white_and_on_a_dark_page(style):
    html = _console.html(lambda console: console.print(Text("words", style=style)))
    colours = re.findall(r"(?<![-\w])color: (#\w{6})", html)
    assert colours
    for colour in colours:
        for page in ("#ffffff", "#111111"):
            bright, dark = sorted(map(luminance, (colour, page)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) > 3, colour


def test_words_without_a_style_have_the_colour_of_the_page():
    html = _console.html(lambda console: console.print(Text("words")))
    assert "color" not in html


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x200B])
def test_no_control_character_is_printed(code):
    shown = printable(f"a{chr(code)}b")
    assert shown in ("ab", "a b")
    assert shown.isprintable()
