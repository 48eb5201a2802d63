"""How the documentation is built: without a network, and without running a program.

sphinx-build -W -b html docs site
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent.parent))

import gradstab

project = "gradstab"
author = "the developers of gradstab"
copyright = author
release = version = gradstab.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_design",
]
exclude_patterns = ["_build"]

# The notebooks in the repository are executed; .ci/run executes their sources.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_typehints = "none"  # the docstrings say shapes and units
autodoc_member_order = "bysource"
autosummary_generate = False  # each room is one page
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "gradstab"
html_static_path = ["_static"]
html_css_files = ["gradstab.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_start": ["navbar-logo"],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
ALONE = "first_minute", "coming_from", "results", "contributing", "changelog"
html_sidebars = {page: [] for page in ALONE}  # nothing lies below them


def setup(app):
    """Formulas as MathML, which browsers show by themselves: no scripts, no network."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("builder-inited", write_reference)
    app.connect("builder-inited", copy_notebooks)


def _inline(translator, node):
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node, block):
    # Browsers stretch brackets by themselves.
    formula = re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", node.astext())
    try:
        return latex2mathml.tex2mathml(formula, as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s: %s", formula, error, location=node)
        return formula


# Rooms that users import from; the records are what they get back.
ROOMS = (
    "testing",
    "watch",
    "training",
    "clipping",
    "scaling",
    "initializers",
    "models",
    "data",
    "plots",
    "theory",
    "records",
    "errors",
)


def write_reference(app):
    """A page for every room in ``docs/api``: its public names, each with its text."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    places = {}  # where an object is described; rooms show those of the top level too
    for room, names in public_names().items():
        module = importlib.import_module(room)
        own, listed, constants = [], [], []
        for name in names:
            value = getattr(module, name)
            if not callable(value):
                constants.append((name, value))
                continue
            place = places.setdefault(id(value), f"{room}.{name}")
            listed.append(place)
            if place == f"{room}.{name}":
                own.append((name, value))
        text = "\n".join(_page(room, listed, own, constants))
        page = folder / f"{room}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def copy_notebooks(app):
    """The executed notebooks, beside the pages; those that did not change stay."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for notebook in (Path(app.srcdir).parent / "notebooks").glob("*.ipynb"):
        copy, text = folder / notebook.name, notebook.read_text()
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)


def public_names():
    """The names of the top level and of the rooms, in the order of their pages."""
    top = [n for n in dir(gradstab) if n[0] != "_" and not _is_room(n)]
    found = {"gradstab": top}
    for name in ROOMS:
        module = importlib.import_module(f"gradstab.{name}")
        found[module.__name__] = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__.startswith(module.__name__)
        ]
    return found


def _is_room(name):
    return inspect.ismodule(getattr(gradstab, name))


def _page(room, listed, own, constants):
    yield from (room, "=" * len(room), "", f".. automodule:: {room}", "")
    yield from (".. currentmodule:: None", "")
    yield from (".. autosummary::", "   :nosignatures:", "")
    yield from (f"   ~{name}" for name in listed)
    yield from ("", f".. currentmodule:: {room}", "")
    for name, value in own:
        if inspect.isclass(value):
            yield from (f".. autoclass:: {name}", "   :members:", "")
        else:
            yield from (f".. autofunction:: {name}", "")
    for name, value in constants:
        yield from (f".. py:data:: {name}", "")
        members = value if hasattr(value, "__iter__") else [value]
        members = ", ".join(f"``{_key(member)}``" for member in members)
        yield from (f"   {members}", "")


def _key(member):
    return getattr(member, "name", member)
