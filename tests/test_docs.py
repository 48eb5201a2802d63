"""What the documentation shows runs, and what it links to is there."""

import importlib.util
import inspect
import pathlib
import re

import jax
import pytest

import gradstab as gs

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONF, REFERENCE = ((DOCS / n).read_text() for n in ("conf.py", "reference.md"))
PAGES = sorted(DOCS.glob("*.md"))
# Blocks of a page are run one after the other, but for those that stand side by side.
APART = ("coming_from",)


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def programs():
    for page in PAGES:
        found = blocks(page.read_text())
        if page.stem not in APART:
            found = ["\n".join(found)] if found else []
        for number, program in enumerate(found):
            yield pytest.param(program, id=f"{page.stem}-{number}")


def test_programs_are_found_in_the_documentation():
    assert len(list(programs())) >= 14
    assert blocks("a\n```python\nb\n```\n```\nc\n```\n") == ["b\n"]


@pytest.mark.slow
@pytest.mark.parametrize("program", [*programs()])
def test_a_program_of_the_documentation_runs(program, tmp_path, monkeypatch, capsys):
    for package in re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        exec(compile(program, "docs", "exec"), {})
    out = capsys.readouterr().out
    for said in re.findall(r"^print\(.*# (\w+(?: exponential)?)", program, re.M):
        assert said.removeprefix("Verdict.") in out or said in ("a", "standard")


def links(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def missing(page):
    """The links of a page whose file or heading is not there."""
    for target in links(page):
        name, _, heading = target.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (heading and heading not in headings(path)):
            yield target


def headings(path):
    """As GitHub and MyST name them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize(
    "page",
    [*PAGES, *ROOT.glob("*.md"), ROOT / "experiments" / "RESULTS.md"],
    ids=lambda page: page.stem,
)
def test_no_link_is_dead(page):
    assert list(missing(page)) == []


def test_a_dead_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Head\n[a](page.md) [b](no.md) [c](#head) [d](#no) [e](x:y)\n")
    assert list(missing(page)) == ["no.md", "#no"]


def test_every_page_is_reached_from_the_first_one():
    reached, new = set(), {"index"}
    while new:
        reached |= new
        text = "".join((DOCS / f"{name}.md").read_text() for name in new)
        trees = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
        listed = {line for tree in trees for line in tree.splitlines()}
        new = {page.stem for page in PAGES} & listed - reached
    assert reached == {page.stem for page in PAGES}
    notebooks = {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    gallery = (DOCS / "gallery.md").read_text()
    assert [name for name in notebooks if f"notebooks/{name}\n" not in gallery] == []


def test_every_room_has_a_page_in_the_reference():
    (rooms,) = re.findall(r"^ROOMS = \((.*?)^\)", CONF, re.DOTALL | re.MULTILINE)
    described = set(re.findall(r"\w+", rooms))
    public = {name for name in dir(gs) if inspect.ismodule(getattr(gs, name))}
    assert public <= described
    listed = re.findall(r"^api/gradstab\.(\w+)$", REFERENCE, re.MULTILINE)
    assert set(listed) == described
