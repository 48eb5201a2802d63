"""Settings of every test: strict promotion, key reuse, warnings as errors."""

import gc
import os
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compile what they test, and leave nothing in their user's folders.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import jax
import pytest

# Loaded all the same; but several modules of one name cannot be searched for examples.
collect_ignore_glob = ["conftest.py", "*/conftest.py", "*/*_program.py"]


@pytest.fixture(autouse=True)
def strict_jax():
    """Every implicit promotion and every reused key is an error."""
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_key_reuse(True),
    ):
        yield


@pytest.fixture(autouse=True)
def own_programs(request):
    """What a test has patched is not compiled into what other tests use."""
    finding = sys.modules.get("gradstab.network.finding")
    patched = finding is not None and "monkeypatch" in request.fixturenames
    if patched:
        finding.NETWORKS.clear()
    yield
    if patched:
        finding.NETWORKS.clear()


def pytest_addoption(parser):
    """A fair sample of many tests: ``--part 2/3`` runs every third, by its name."""
    parser.addoption("--part", default="1/1", metavar="K/N", help="the K-th of N parts")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keep the tests of the part that is wanted; all parts together are all tests.

    Of many cases of one kind a fifth is quick, and the others are slow.
    """
    for item in items:
        many = hasattr(item, "callspec") and item.get_closest_marker("cases")
        if many and _number(item) % 5:
            item.add_marker(pytest.mark.slow)
    part, num_parts = map(int, config.getoption("--part").split("/"))
    chosen = {True: [], False: []}
    for item in items:
        chosen[_number(item) % num_parts == part % num_parts].append(item)
    items[:] = chosen[True]
    config.hook.pytest_deselected(items=chosen[False])


def _number(item):
    """The same for all tests of one case, which share what they compute of it."""
    case = item.callspec.id if hasattr(item, "callspec") else item.nodeid
    return zlib.crc32(case.encode())


def pytest_configure(config):
    """Quick tests compile fast, not well; slow ones compile as users do."""
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)
        if jax.__version_info__ < (0, 11) and _SIMPLE not in _flags():
            # Halves the time of compiling; later versions have no such flag. It is for
            # the workers, which are started with it: here XLA has read its flags.
            os.environ["XLA_FLAGS"] = f"{_flags()} {_SIMPLE}"


_SIMPLE = "--xla_cpu_use_fusion_emitters=false"


def _flags():
    return os.environ.get("XLA_FLAGS", "")


def pytest_collection_finish(session):
    """Look for garbage more rarely, and not among what is loaded already.

    Tracing makes many objects that live as long as the tests: a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 5)


@pytest.fixture(scope="module")
def quick_compiler():
    """Compile fast in the slow part too: for files of small programs that run once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
