"""Compiled programs on the disk: found by another process, and never in the way."""

import json
import os
import subprocess
import sys

HITS = """
import json
import jax
from gradstab import use_compilation_cache
folder = use_compilation_cache()
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3))
print(json.dumps([folder, found.count("/jax/compilation_cache/cache_hits")]))
"""


def ran(script, **environment):
    """What a new process prints, as JSON."""
    inherited = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_another_process_finds_what_was_compiled(tmp_path):
    folder, before = ran(HITS, XDG_CACHE_HOME=str(tmp_path))
    again, hits = ran(HITS, XDG_CACHE_HOME=str(tmp_path))
    assert before == 0
    assert hits > 0
    assert again == folder
    assert folder.startswith(str(tmp_path / "gradstab"))


def test_what_the_user_has_chosen_stays(tmp_path):
    mine = str(tmp_path / "mine")
    given = {"JAX_COMPILATION_CACHE_DIR": mine, "XDG_CACHE_HOME": str(tmp_path)}
    assert ran(HITS, **given) == [mine, 0]
    off = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XDG_CACHE_HOME": str(tmp_path)}
    assert ran(HITS, **off) == [None, 0]
    assert not (tmp_path / "gradstab").exists()


def test_where_nothing_can_be_written_there_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    assert ran(HITS, XDG_CACHE_HOME=str(tmp_path / "file")) == [None, 0]
