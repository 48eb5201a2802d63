"""A room imports only rooms on lower floors."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import gradstab
from gradstab.gradcheck.states import Answer, Outcome

ROOT = pathlib.Path(gradstab.__file__).parent
FLOORS = (
    ("errors",),
    ("_attempt",),
    ("_meshes", "_rules", "_source_info", "_text"),
    ("_compat", "_console", "_json"),
    (
        "_tree",
        "_compilation_cache",
        "_files",
        "_drawing",
        "_memory",
        "_progress",
        "_model_options",
        "_checked",
    ),
    ("records",),
    ("initializers", "clipping", "data", "program"),
    ("network",),
    ("spectra", "theory", "gradcheck", "watch", "diagnosis", "report"),
    ("analysis", "calibration", "training", "plots", "scaling"),
    ("models", "remedies", "demo"),
    ("testing", "cli"),
    ("__init__", "__main__"),
)
# The rooms inside of `gradcheck`; what is not named is on the floor of `checker`.
CHECKER_FLOORS = (
    ("subject",),
    ("findings", "figures", "curves", "states"),
    ("differences",),
    ("laws", "places"),
    ("checker",),
    ("audits",),
    ("__init__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def _room(path):
    """The room of a file: its package, or its own name on the top level."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(source):
    """Dotted names of the modules of gradstab that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            # Of `from gradstab import x`, x is the room.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "gradstab")


def _upward(room, source):
    """The rooms on the same or a higher floor that a source imports."""
    rooms = {name.split(".")[1] for name in _imports(source) if "." in name}
    return {r for r in rooms - {room} if r in FLOOR and FLOOR[r] >= FLOOR[room]}


def _sources():
    return [(path, path.read_text()) for path in sorted(ROOT.rglob("*.py"))]


def test_every_file_has_its_floor():
    assert {_room(path) for path, _ in _sources()} <= FLOOR.keys()


def test_no_room_imports_its_own_floor_or_a_higher_one():
    wrong = {
        str(path.relative_to(ROOT)): upward
        for path, source in _sources()
        if (upward := _upward(_room(path), source))
    }
    assert not wrong


def test_the_checkers_own_rooms_import_downwards_too():
    floor = {room: n for n, rooms in enumerate(CHECKER_FLOORS) for room in rooms}
    wrong = []
    for path in sorted((ROOT / "gradcheck").rglob("*.py")):
        own = path.relative_to(ROOT / "gradcheck").parts[0].removesuffix(".py")
        names = {n for n in _imports(path.read_text()) if ".gradcheck." in n}
        for room in {name.split(".")[2] for name in names} - {own}:
            if floor.get(room, 4) > floor.get(own, 4):
                wrong.append((str(path), room))
    assert not wrong


def test_models_and_analysers_know_nothing_of_each_other():
    analysers = {"network", "spectra", "report", "analysis", "gradcheck"}
    for path, source in _sources():
        rooms = {name.split(".")[1] for name in _imports(source) if "." in name}
        if _room(path) == "models":
            assert not rooms & analysers, path
        if _room(path) in analysers:
            assert "models" not in rooms, path


def test_an_import_of_a_higher_floor_is_seen():
    """The check itself: it must see each way of writing an import."""
    for source in (
        "from gradstab.analysis import analyze",
        "from gradstab import analysis",
        "import gradstab.analysis",
        "def f():\n    from gradstab import analysis as a",
    ):
        assert _upward("network", source) == {"analysis"}
    assert not _upward("analysis", "from gradstab.network import find_layers")


# Where equations may be evaluated one by one, and primitives known by their names.
_PROGRAM = ("program", "_compat", "_meshes", "_rules")


def _uses(pattern, *but):
    """The lines outside of some rooms that hold what a pattern matches."""
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, source in _sources()
        if _room(path) not in but
        for line in source.splitlines()
        if re.search(pattern, line)
    ]


def test_a_program_is_walked_in_one_place():
    loop = r"\w*env\w*\.update\(zip\(eqn\.outvars"
    (found,) = _uses(loop)
    assert found.startswith("program/walk.py")
    assert not _uses(r"atom\.val if", "program")


def test_primitives_are_known_in_one_place():
    assert not _uses(r"\.primitive\b", *_PROGRAM)


# The command shows a `gradstab.errors.UserError` in a line; whatever else is raised, it
# reports as a mistake in gradstab.
_OF_USERS = ("ValueError", "TypeError", "LookupError", "KeyError", "IndexError")
_OF_USERS += ("AttributeError", "ImportError", "ModuleNotFoundError", "MemoryError")


def test_what_is_said_to_users_is_of_a_class():
    raised = "|".join(_OF_USERS)
    assert not _uses(rf"\braise ({raised})\b")
    assert not _uses(rf"^class \w+\(({raised})\)")


def test_json_is_written_and_read_in_one_place():
    assert not _uses(r"\b(import json|from json|json\.(dump|load)s?\()", "_json")
    assert not _uses(r"[\"']-?Infinity[\"']", "_json")


def test_tables_bars_and_pages_have_one_style():
    assert not _uses(r"\bbox\.[A-Z]|\.export_html\(|TerminalTheme\(", "_console")
    assert not _uses(r"\bProgress\(|find_spec\(.ipywidgets", "_progress")


def test_arrays_of_a_layer_are_cut_out_in_one_place():
    """Elsewhere a layer is asked for what it ran with."""
    uses = _uses(r"layer_slice\(")
    assert {line.partition(":")[0] for line in uses} == {
        "network/replay.py",
        "network/runs.py",
    }


SENTENCES = {member.value for kind in (Outcome, Answer) for member in kind}


def _compared_by_sentence(source):
    """The lines that compare a state with words, or look one up by them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [
                n for side in (node.left, *node.comparators) for n in ast.walk(side)
            ]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        words = {n.value for n in parts if isinstance(n, ast.Constant)}
        texts = any(isinstance(word, str) for word in words)
        state = any(isinstance(n, ast.Attribute) and n.attr == "state" for n in parts)
        if words & SENTENCES or (state and texts and isinstance(node, ast.Compare)):
            yield node.lineno if hasattr(node, "lineno") else node.value.lineno


def test_states_of_findings_are_compared_by_member():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, source in _sources()
        if _room(path) in ("gradcheck", "testing", "cli")
        for line in _compared_by_sentence(source)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        'g.state == "agrees"',
        '"noise" in g.state',
        '("x", "not defined") != moved',
        'answer in ("wrong", "right")',
        '{"differs": "red"}[state]',
        'match state:\n    case "differs":\n        pass',
    ],
)
def test_a_comparison_by_sentence_is_seen(source):
    assert list(_compared_by_sentence(source))
    assert not list(_compared_by_sentence("g.state == Outcome.AGREES"))


# What catches such errors catches those of our own code too.
WIDE = {
    "BaseException",
    "Exception",
    "AttributeError",
    "NameError",
    "RuntimeError",
    "LookupError",
}
# Where whatever was raised is passed on: to another thread, or to the user.
PASSED_ON = {
    ("_attempt.py", "attempt"),
    ("cli/__init__.py", "main"),
    ("data/download.py", "_read"),
    ("training/checkpoint_files.py", "_write"),
}


def _tuples(source):
    """The names that stand for tuples in a source, each with its members."""
    return {
        node.targets[0].id: node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Tuple)
    }


def _caught(expression, tuples):
    """The names of the classes that a handler catches."""
    if expression is None:
        return {"BaseException"}
    if isinstance(expression, ast.Tuple):
        return set().union(*(_caught(part, tuples) for part in expression.elts))
    if isinstance(expression, ast.Starred):
        return _caught(expression.value, tuples)
    name = ast.unparse(expression)
    return _caught(tuples[name], tuples) if name in tuples else {name}


def _raises_again(handler):
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _wide_handlers(source, tuples):
    """The functions that catch more than they can expect, and do not raise it again."""
    tree, homes = ast.parse(source), {}
    for node in ast.walk(tree):  # functions inside of others come later
        if isinstance(node, ast.Module | ast.FunctionDef):
            home = getattr(node, "name", "")
            homes |= {n: home for n in ast.walk(node) if isinstance(n, ast.Try)}
    for node, home in homes.items():
        for handler in node.handlers:
            wide = WIDE & _caught(handler.type, tuples)
            if wide and not _raises_again(handler):
                yield home


def test_whatever_may_be_raised_is_caught_around_the_users_code_only():
    tuples = {}
    for _, source in _sources():
        tuples |= _tuples(source)
    wide = {
        (str(path.relative_to(ROOT)), name)
        for path, source in _sources()
        if "except" in source
        for name in _wide_handlers(source, tuples)
    }
    assert wide == PASSED_ON


@pytest.mark.parametrize(
    "handler",
    [
        "except:",
        "except Exception:",
        "except BaseException as error:",
        "except (TypeError, AttributeError):",
        "except UNTRIED:",
    ],
)
def test_a_handler_of_whatever_may_be_raised_is_seen(handler):
    tuples = _tuples("OURS = (TypeError, RuntimeError)\nUNTRIED = (KeyError, *OURS)")
    source = "def f():\n    try:\n        g()\n    {}\n        {}"
    assert list(_wide_handlers(source.format(handler, "pass"), tuples)) == ["f"]
    assert not list(_wide_handlers(source.format(handler, "raise"), tuples))
    narrow = source.format("except (TypeError, ValueError):", "pass")
    assert not list(_wide_handlers(narrow, tuples))


def test_records_are_made_in_one_way():
    assert not _uses("register_dataclass", "records")
    # JAX takes a subclass of a tuple for a leaf.
    assert len(_uses("register_pytree_node", "records")) == 1


def test_nothing_is_hidden_in_records():
    assert not _uses(r"__dict__(\[|\.setdefault)")


def test_no_file_is_longer_than_four_hundred_lines():
    long = {path.name for path, source in _sources() if source.count("\n") > 400}
    assert not long


def _dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("gradstab", *parts)).removesuffix(".__init__")


def _modules():
    """Each file's dotted name and what it imports at the top, rooms apart."""
    for path, source in _sources():
        yield _dotted(path), set(_imports(source))


def test_files_inside_a_room_import_each_other_without_cycles():
    graph = {}
    known = {name for name, _ in _modules()}
    for name, imported in _modules():
        targets = {t if t in known else t.rpartition(".")[0] for t in imported}
        graph[name] = {t for t in targets if t in known and t.count(".") >= 2}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for target in graph[name]:
            visit(target)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


PUBLIC = (
    "analysis",
    "calibration",
    "clipping",
    "data",
    "gradcheck",
    "initializers",
    "models",
    "plots",
    "records",
    "report",
    "testing",
    "theory",
    "training",
    "watch",
)


@pytest.mark.parametrize("room", PUBLIC)
def test_a_room_completes_to_what_is_for_users(room):
    """No submodules, no `np`: what its ``__init__`` imports from it, all of that."""
    module = importlib.import_module(f"gradstab.{room}")
    source = pathlib.Path(module.__file__).read_text()
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)]
    nodes = [n for n in nodes if n.module.startswith(f"gradstab.{room}.")]
    imported = {alias.asname or alias.name for n in nodes for alias in n.names}
    assert set(dir(module)) == set(module.__all__) == imported
    for name in dir(module):
        assert not inspect.ismodule(getattr(module, name)), name


def test_a_star_import_brings_the_public_names_of_a_room():
    found = {}
    exec("from gradstab.plots import *", found)
    assert {"exponents", "heat_map", "phase_diagram", "spectra"} <= found.keys()
    assert "np" not in found


def test_every_file_of_tests_has_a_name_of_its_own():
    """Pytest imports two of one name as one module, and then collects neither."""
    tests = pathlib.Path(__file__).parent
    names = [path.name for path in tests.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
