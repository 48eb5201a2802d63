"""``gradstab check``: what it prints, writes and returns."""

import json
import pathlib
import shlex

import pytest

from gradstab.cli import main

CASES = """
import jax
import jax.numpy as jnp

QUICK = {"at": "given", "transformations": False, "locate": False}
wrong = jax.custom_jvp(jnp.tanh)
wrong.defjvp(lambda x, v: (jnp.tanh(*x), 0.9 * (1 - jnp.tanh(x[0]) ** 2) * v[0]))
x = jnp.linspace(-1, 1, 3)

def right():
    return {"sine": (jnp.sin, (x,), QUICK), "product": (jnp.multiply, (x, x), QUICK)}

def one_wrong():
    return right() | {"tanh off": (wrong, (x,), QUICK)}

def seeded():
    return {"sine": (jnp.sin, (x,), QUICK | {"seed": 7})}

def unseen():
    return {"saturated": (lambda x: jax.nn.sigmoid(x + 40), (x,), QUICK)}

def all_kinds():
    return one_wrong() | unseen()

def one_slow():
    import time
    import numpy as np

    def sleeps(x):
        time.sleep(0.02)
        return np.sin(x)

    def slow(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(sleeps, like, x, vmap_method="sequential")

    slow = jax.custom_jvp(slow)
    slow.defjvp(lambda x, v: (slow(*x), jnp.cos(x[0]) * v[0]))
    return {"slow": (slow, (x,), QUICK)} | right()

def no_cases():
    return [jnp.sin]

def no_arguments():
    return {"sine": (jnp.sin, x)}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_cases(tmp_path, monkeypatch, quick_compiler):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"cases_of_{abs(hash(tmp_path))}"
    pathlib.Path(f"{name}.py").write_text(CASES)
    return name


@pytest.fixture
def run(in_a_folder_with_cases, capsys):
    def run(function, options=""):
        target = f"{in_a_folder_with_cases}:{function}"
        status = main(shlex.split(f"check {target} {options}"))
        return status, capsys.readouterr()

    return run


@pytest.mark.slow
def test_right_derivatives_are_listed_with_their_resolution(run):
    status, captured = run("right")
    assert status == 0
    rows = [line.split() for line in captured.out.splitlines() if "PASS" in line]
    assert [row[0] for row in rows] == ["sine", "product"]
    assert all(float(row[2]) < 1e-6 for row in rows)


def test_a_wrong_derivative_is_described_and_exits_with_one(run):
    status, captured = run("one_wrong")
    assert status == 1
    assert "tanh off: FAIL: wrong forward and reverse derivative" in captured.out
    assert captured.out.count("PASS") == 2


def test_what_cannot_be_seen_exits_with_two_if_strict(run):
    assert run("unseen")[0] == 0
    status, captured = run("unseen", "--strict")
    assert status == 2
    assert "saturated: INCONCLUSIVE" in captured.out
    assert not captured.err


@pytest.mark.slow
def test_a_wrong_derivative_counts_more_than_an_unseen_one(run):
    assert run("all_kinds", "--strict")[0] == 1


@pytest.mark.slow
def test_cases_are_chosen_by_name(run):
    status, captured = run("all_kinds", "--only 'sat*' product")
    assert status == 0
    assert "sine" not in captured.out
    assert "saturated" in captured.out


@pytest.mark.slow
def test_the_file_holds_every_finding_and_is_not_overwritten(run):
    assert run("all_kinds", "--json new/out.json --only 'tanh*' saturated")[0] == 1
    written = json.loads(pathlib.Path("new/out.json").read_text())
    assert written["schema"] == 1
    verdicts = {name: case["verdict"] for name, case in written["cases"].items()}
    assert verdicts == {"tanh off": "FAIL", "saturated": "INCONCLUSIVE"}
    finding = written["cases"]["tanh off"]["findings"][0]
    assert finding["state"] == "differs"
    assert finding["error"] == pytest.approx(0.1, rel=1e-6)
    status, captured = run("right", "--json new/out.json")
    assert status == 2
    assert "new/out.json exists" in captured.err
    assert run("right", "--json new/out.json --overwrite --only sine")[0] == 0


@pytest.mark.slow
def test_options_of_the_command_reach_the_check_and_those_of_a_case_win(run):
    assert run("right", "--rtol 1e-16 --strict --only sine")[0] == 2
    run("right", "--seed 3 --json out.json --only sine")
    cases = json.loads(pathlib.Path("out.json").read_text())["cases"]
    assert cases["sine"]["seed"] == 3
    run("seeded", "--seed 3 --json seeded.json")
    cases = json.loads(pathlib.Path("seeded.json").read_text())["cases"]
    assert cases["sine"]["seed"] == 7


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("no_cases", "", "must return {name: (f, args)}"),
        ("no_arguments", "", "must return {name: (f, args)}"),
        ("right", "--only cosine", "has: sine, product"),
        ("nothing", "", "has no 'nothing'"),
    ],
)
def test_bad_input_is_named_with_what_is_known(run, function, options, message):
    status, captured = run(function, options)
    assert status == 2
    assert message in captured.err


BROKEN = """
import sys

import jax
import jax.numpy as jnp

QUICK = {"at": "given", "transformations": False, "locate": False}
x = jnp.linspace(-1, 1, 3)
short = jax.custom_vjp(jnp.multiply)
short.defvjp(lambda x, y: (x * y, (x, y)), lambda r, w: (w * r[1],))
wrong = jax.custom_jvp(jnp.tanh)
wrong.defjvp(lambda x, v: (jnp.tanh(*x), 0.9 * (1 - jnp.tanh(x[0]) ** 2) * v[0]))
sine = jnp.sin, (x,), QUICK

def explodes(x):
    raise RuntimeError("out of order\\nsecond line")

def leaves(x):
    sys.exit("gone")

def unfinished(x):
    raise KeyboardInterrupt

RAISING = {
    "short": (short, (x, x), QUICK),
    "argmax": (jnp.argmax, (x,), QUICK),
    "unknown option": (jnp.sin, (x,), {"tol": 1}),
    "bad option": (jnp.sin, (x,), {"rtol": 2.0}),
    "explodes": (explodes, (x,), QUICK),
    "leaves": (leaves, (x,), QUICK),
    "no case": (jnp.sin, x),
    "few": (jnp.multiply, (x,), QUICK),
}

for name, case in RAISING.items():
    key = name.replace(" ", "_")
    globals()[key] = lambda name=name, case=case: {
        "first": sine, name: case, "last": sine
    }

def with_a_wrong_one():
    return {"explodes": RAISING["explodes"], "tanh off": (wrong, (x,), QUICK)}

def interrupted():
    return {"first": sine, "stop": (unfinished, (x,), QUICK), "last": sine}

def unable():
    return 1 / 0

def flat():
    return {"flat": (lambda x: jax.nn.sigmoid(x + 40), (x,), QUICK)}

def flat_and_raising():
    return flat() | {"explodes": RAISING["explodes"]}
"""


@pytest.fixture
def broken(run):
    pathlib.Path(f"broken_{pathlib.Path.cwd().name}.py").write_text(BROKEN)
    module = f"broken_{pathlib.Path.cwd().name}"

    def broken(function, options=""):
        return main(shlex.split(f"check {module}:{function} {options}"))

    return broken


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("short", "raised TypeError: Custom VJP bwd rule must"),
        ("argmax", "raised ValueError: nothing to check"),
        ("unknown option", "raised TypeError: check() got an unexpected keyword"),
        ("bad option", "raised ValueError: rtol must be a number above 0 below 1"),
        ("explodes", "raised RuntimeError: out of order"),
        ("leaves", "raised SystemExit: gone"),
        ("no case", "raised TypeError: a case is (f, args)"),
        ("few", "raised TypeError: "),
    ],
)
def test_a_case_that_raises_is_a_row_and_the_others_are_checked(
    broken, capsys, case, message
):
    status = broken(case.replace(" ", "_"), "--json out.json")
    captured = capsys.readouterr()
    assert status == 3
    rows = [line for line in captured.out.splitlines() if "ERROR  " in line]
    assert len(rows) == 1
    assert rows[0].strip().startswith(case)
    assert captured.out.count("PASS") == 2
    assert "Traceback" not in captured.out + captured.err
    written = json.loads(pathlib.Path("out.json").read_text())["cases"]
    verdicts = {name: case["verdict"] for name, case in written.items()}
    assert verdicts == {"first": "PASS", case: "ERROR", "last": "PASS"}
    assert written[case]["reason"].startswith(message)
    assert "Traceback" in written[case]["traceback"]
    assert f"{case}: ERROR: {written[case]['reason']}" in captured.out


def test_the_traceback_is_printed_where_it_is_asked_for(broken, capsys):
    assert broken("explodes", "--verbose") == 3
    captured = capsys.readouterr()
    assert 'raise RuntimeError("out of order' in captured.out


def test_a_wrong_derivative_counts_more_than_a_case_that_raises(broken, capsys):
    assert broken("with_a_wrong_one") == 1
    captured = capsys.readouterr()
    assert "explodes: ERROR: raised RuntimeError: out of order" in captured.out
    assert "tanh off: FAIL" in captured.out


def test_a_case_that_raises_counts_more_than_one_that_cannot_be_seen(broken):
    assert broken("flat_and_raising", "--strict") == 3


def test_what_was_found_before_an_interruption_is_printed_and_written(broken, capsys):
    assert broken("interrupted", "--json out.json") == 130
    captured = capsys.readouterr()
    assert captured.out.count("PASS") == 1
    assert "interrupted after 1 of 3" in captured.err
    assert list(json.loads(pathlib.Path("out.json").read_text())["cases"]) == ["first"]


def test_cases_that_cannot_be_made_are_one_line_and_a_file(broken, capsys):
    assert broken("unable", "--json out.json") == 3
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.endswith(":unable raised ZeroDivisionError: division by zero")
    written = json.loads(pathlib.Path("out.json").read_text())
    assert written["cases"] == {}
    assert "Traceback" in written["error"]["traceback"]


@pytest.mark.parametrize(
    "options", ["--only sine --only product", "--only sine product", "--only '*'"]
)
def test_every_pattern_that_is_given_counts(run, options):
    status, captured = run("right", options)
    assert status == 0
    assert captured.out.count("PASS") == 2


def test_the_help_says_what_every_exit_status_means(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 if all pass" in text


def test_the_time_is_shared_and_a_case_that_takes_longer_is_inconclusive(run):
    status, out = run("one_slow", "--max-seconds 1 --strict --json -")
    cases = json.loads(out.out)["cases"]
    assert status == 2
    assert cases["slow"]["verdict"] == "INCONCLUSIVE"
    assert "within its share of max_seconds=1" in cases["slow"]["reason"]
