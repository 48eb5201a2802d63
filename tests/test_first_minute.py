"""The first minute of a new user, as the documentation has it."""

import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

import gradstab as gs

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "first_minute.md").read_text()
(MINE,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
(CONSOLE,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
OWN, TRAIN, RESUME, CHECKPOINT = re.findall(r"\$ gradstab (.*)", CONSOLE)
COMMAND = "import sys; from gradstab.cli import main; sys.exit(main())"


def _started(line, folder):
    command = [sys.executable, "-c", COMMAND, *shlex.split(line)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def _done(line, folder):
    process = _started(line, folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_install_analyze_train_kill_resume_and_analyze_again(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    assert "verdict: " in _done(OWN, tmp_path)
    assert len(gs.load(tmp_path / "mine.json").layers) == 12

    run = tmp_path / "results" / "train-1"
    process = _started(TRAIN, tmp_path)
    began = time.monotonic()
    while not list(run.glob("checkpoints/[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "result.json").exists()

    assert "steps: 3000" in _done(RESUME, tmp_path)
    out = _done(CHECKPOINT, tmp_path)
    assert "verdict: " in out
    assert (tmp_path / "results" / "analyze-1" / "report.json").exists()


@pytest.mark.slow
def test_a_rule_of_a_file_is_checked(tmp_path):
    (rules,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "rules.py").write_text(rules)
    assert "PASS" in _done("check rules:cases", tmp_path)
    wrong = rules.replace("jnp.tanh(primals[0]) *", "jnp.tanh(primals[0]) ** 2 *")
    (tmp_path / "rules.py").write_text(wrong)
    process = _started("check rules:cases", tmp_path)
    assert "FAIL" in process.communicate(timeout=300)[0]
    assert process.returncode == 1
