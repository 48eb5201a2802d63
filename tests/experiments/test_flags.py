"""Every flag of an experiment says what it means."""

import ast
import dataclasses
import pathlib

import pytest

from experiments import _run, clipping

FOLDER = pathlib.Path(_run.__file__).parent
# Those of the corpus are read by tyro itself, comments included.
FILES = [p for p in sorted(FOLDER.rglob("*.py")) if p.parent.name != "checkers"]


def _config(path):
    body = ast.parse(path.read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return next((c.body for c in classes if c.name == "Config"), [])


def _bare(body):
    """The fields of a class without a string below them."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and not text:
            yield ast.unparse(node.target)


@pytest.mark.parametrize("path", [*filter(_config, FILES)], ids=lambda path: path.stem)
def test_a_flag_has_a_help_of_its_own_or_means_what_it_always_does(path):
    assert not set(_bare(_config(path))) - _run.FLAGS.keys()


def test_the_string_below_a_field_goes_before_what_it_always_means():
    texts = _run.flag_texts(clipping.Config)
    assert texts["norm"] == "Threshold of the gradient's norm."
    assert texts["seed"] == f"{_run.FLAGS['seed']}."


def test_a_flag_without_a_help_is_refused():
    config = dataclasses.make_dataclass("Config", [("newly", int, 3)])
    config.__module__ = clipping.__name__
    with pytest.raises(KeyError, match="newly"):
        _run.flag_texts(config)
