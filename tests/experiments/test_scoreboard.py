"""The scoreboard counts rows, and loses none of them when one experiment fails."""

import json

import pytest

from experiments import _results, born_dead, forget_gates, scoreboard
from experiments._claims import claim

BOTH = ("forget_gates", "born_dead")


@pytest.fixture
def measured(monkeypatch):
    """Two experiments that measure nothing: what they claim is given."""
    for module, row, value in ((forget_gates, "16", 1.0), (born_dead, "18", 2.0)):
        found = [claim(row, v, value, source="s", within=0.1, row=row) for v in (1, 1)]
        monkeypatch.setattr(module, "run", lambda config: {})
        monkeypatch.setattr(module, "claims", lambda _, arrays, found=found: found)


def run(*names):
    config = scoreboard.Config(only=names, seed=0)
    return scoreboard.summary(scoreboard.run(config), config)


@pytest.mark.usefixtures("measured")
def test_a_row_holds_if_all_its_claims_do():
    assert "1 of 2 rows hold" in run(*BOTH)
    assert "1 of 1 rows hold" in run("forget_gates")
    assert "0 of 1 rows hold" in run("born_dead")


@pytest.mark.usefixtures("measured")
def test_an_experiment_that_fails_does_not_end_the_others(monkeypatch):
    def fails(config):
        raise FloatingPointError("no network")

    monkeypatch.setattr(born_dead, "run", fails)
    text = run("born_dead", "forget_gates")
    assert "1 of 1 rows hold" in text
    assert "born_dead did not end: FloatingPointError: no network" in text


@pytest.mark.usefixtures("measured")
def test_what_was_measured_is_kept_in_files(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        scoreboard.main(scoreboard.Config(only=BOTH))
    assert ended.value.code == 1
    (folder,) = (tmp_path / "results").iterdir()
    lines = (folder / "claims.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == list(BOTH)
    assert "1 of 2 rows hold" in (folder / "table.md").read_text()
    assert "born_dead: 0 of 2 claims held" in capsys.readouterr().err


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("ends", [True, False])
def test_a_table_with_a_gap_is_not_written(ends, monkeypatch, tmp_path, capsys):
    def fails(config):
        raise FloatingPointError("no network")

    monkeypatch.chdir(tmp_path)
    if not ends:
        monkeypatch.setattr(born_dead, "run", fails)
    written = []
    monkeypatch.setattr(_results, "write", lambda *given: written.append(given))
    with pytest.raises(SystemExit):
        scoreboard.main(scoreboard.Config(only=BOTH, write=True))
    assert [name for name, _ in written] == ["scoreboard"] * ends
    assert ("not written" in capsys.readouterr().err) is not ends
