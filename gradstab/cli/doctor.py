"""``gradstab doctor``."""

import importlib.metadata
import os
import pathlib
import platform
import sys

from rich.table import Table

from gradstab import _memory
from gradstab.cli.options import Doctor
from gradstab.cli.output import console
from gradstab.data.catalogue import data_folder

_PACKAGES = ("gradstab", "jax", "jaxlib", "flax", "optax", "chex", "numpy", "scipy")
_MORE = ("orbax-checkpoint", "matplotlib", "rich", "tyro", "scikit-learn")
_EXTRAS = (
    "tensorboardX",
    "tensorboard",
    "wandb",
    "equinox",
    "dm-haiku",
    "torch",
    "ipywidgets",
)


def run(options: Doctor, /) -> int:
    """Print what there is; returns 1 if something that is needed is missing."""
    screen = console()
    table = Table(show_header=False, box=None, pad_edge=False)
    missing = []
    for name in (*_PACKAGES, *_MORE):
        version = _version(name)
        missing += [name] * (version is None)
        table.add_row(name, version or "missing")
    table.add_row("extras", _extras())
    for name, value in _machine(options):
        table.add_row(name, value)
    screen.print(table, markup=False)
    if missing:
        screen.print(f"missing: pip install {' '.join(missing)}", markup=False)
    return int(bool(missing))


def _version(name: str):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras():
    return ", ".join(f"{name} {_version(name) or 'not installed'}" for name in _EXTRAS)


def _machine(options: Doctor):
    # Imported here: what is missing above is to be said before it raises.
    import jax

    from gradstab._compilation_cache import use_compilation_cache

    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield "cores", str(len(os.sched_getaffinity(0)) if _affinity() else os.cpu_count())
    yield "memory at hand", f"{_memory.memory_at_hand() / 2**30:.3g} GiB"
    for device in jax.devices():
        yield f"device {device.id}", f"{device.platform}: {device.device_kind}"
    wide = jax.default_backend() != "tpu"
    yield "float64", "yes, by context" if wide else "no: analyses run in float32"
    flags = ("jax_enable_x64", "jax_default_matmul_precision", "jax_debug_nans")
    yield "flags", ", ".join(f"{f}={getattr(jax.config, f, None)}" for f in flags)
    yield (
        "compilation cache",
        use_compilation_cache() or "off",
    )
    folder = data_folder(options.data_dir)
    yield "data folder", f"{folder}: {_data_files(folder)}"
    yield "results", f"{pathlib.Path('results').absolute()}: {_writable()}"


def _affinity():
    return hasattr(os, "sched_getaffinity")


def _data_files(folder: pathlib.Path):
    if not folder.is_dir():
        return "does not exist; digits needs no files, mnist is downloaded to it"
    found = sorted(path.name for path in folder.rglob("*.gz"))
    return ", ".join(found) if found else "no files of MNIST; they are downloaded to it"


def _writable():
    place = pathlib.Path("results")
    place = place if place.exists() else pathlib.Path(".")
    return "can be written to" if os.access(place, os.W_OK) else "CANNOT be written to"
