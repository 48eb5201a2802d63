"""Files of MNIST and of the IDX format that are damaged, cut, swapped or hostile."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from clear_lines import refused

from gradstab.data import load, read_idx
from gradstab.data.mnist import SOURCES, Source

pytestmark = pytest.mark.cases

NAMES = tuple(SOURCES["mnist"].checksums)
IMAGES, LABELS = NAMES[:2]


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


MIRROR = "https://one.invalid/"
RNG = np.random.default_rng(0)
PLAIN = {
    name: idx(RNG.integers(0, 10, (5010, 3, 2) if "images" in name else 5010))
    for name in NAMES
}
GOOD = PLAIN[LABELS]


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch):
    sums = {n: f"sha256:{hashlib.sha256(c).hexdigest()}" for n, c in PLAIN.items()}
    sizes = {name: len(content) for name, content in PLAIN.items()}
    monkeypatch.setitem(SOURCES, "mnist", Source((MIRROR,), sums, sizes))


BOMB = gzip.compress(bytes(40_000_000), 9)
DAMAGED = {
    "empty": (b"", "no IDX file of unsigned bytes"),
    "two bytes": (b"\0\0", "is cut short: it has 2 bytes"),
    "three bytes": (GOOD[:3], "is cut short: it has 3 bytes"),
    "header cut": (GOOD[:6], "is cut short within its header of 8 bytes"),
    "body cut": (GOOD[:-1], "it is cut short or damaged"),
    "body long": (GOOD + b"\0", "longer than the 5018 bytes"),
    "one bit": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "not the published file: the sha"),
    "other type": (b"\0\0\x0d" + GOOD[3:], "no IDX file of unsigned bytes"),
    "html": (b"<html>log in</html>", "no IDX file of unsigned bytes"),
    "a pickle": (b"\x80\x04\x95\x10", "no IDX file of unsigned bytes"),
    "escape": (b"\x1b]0;pwned\x07", "no IDX file of unsigned bytes"),
    "huge shape": (b"\0\0\x08\x03" + b"\xff" * 12, "it is cut short or damaged"),
    "rank 255": (b"\0\0\x08\xff" + b"\xff" * 1020, "announces rank 255"),
    "images": (PLAIN[IMAGES], "longer than the 5018 bytes"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "is damaged gzip data"),
    "gzip head": (gzip.compress(GOOD)[:9], "is damaged gzip data"),
    "gzip magic": (b"\x1f\x8b", "is damaged gzip data"),
    "gzip bit": (gzip.compress(GOOD)[:40] + b"\xff" + gzip.compress(GOOD)[41:],
                 "is damaged gzip data"),
    "gzip tail": (gzip.compress(GOOD) + b"junk", "is damaged gzip data"),
    "gzip sum": (gzip.compress(GOOD)[:-8] + b"\0" * 4 + gzip.compress(GOOD)[-4:],
                 "is damaged gzip data"),
    "gzip twice": (gzip.compress(gzip.compress(GOOD)), "no IDX file"),
    "gzip bomb": (BOMB, "longer than the 5018 bytes"),
    "small bomb": (gzip.compress(bytes(4_000_000), 9), "announces 4000000 bytes"),
    "lying bomb": (gzip.compress(bytes(4_000_000), 9)[:-4] + b"\x01\0\0\0",
                   "its content is longer than 5018 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("folder", [".", "mnist"])
@pytest.mark.parametrize(("content", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_mnist_is_named_with_what_to_do(
    tmp_path, folder, content, said
):
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, plain in PLAIN.items():
        (tmp_path / folder / name).write_bytes(content if name == LABELS else plain)
    path = tmp_path / folder / LABELS
    with refused(ValueError, str(path), said, "elete it"):
        load("mnist", data_dir=tmp_path)


def test_a_file_that_is_a_folder_or_cannot_be_read_is_named(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
    with refused(FileNotFoundError, IMAGES, str(tmp_path), "GRADSTAB_DATA_DIR"):
        load("mnist", data_dir=tmp_path, may_download=False)


IDX = {
    name: (content, said)
    for name, (content, said) in DAMAGED.items()
    if name not in ("one bit", "images", "body long", "gzip bomb", "lying bomb")
} | {
    "body long": (GOOD + b"\0", "cut short or damaged"),
    "gzip bomb": (gzip.compress(GOOD + bytes(40_000_000)), "cut short or damaged"),
    "small bomb": (gzip.compress(bytes(4_000_000)), "no IDX file"),
    "announced": (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "cut short"),
}


@pytest.mark.parametrize(("content", "said"), IDX.values(), ids=IDX)
def test_a_damaged_idx_file_is_named(tmp_path, content, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    with refused(ValueError, str(path), said):
        read_idx(path)


def test_a_missing_idx_file_is_named(tmp_path):
    with refused(FileNotFoundError, f"{tmp_path / 'none'} cannot be read: No such"):
        read_idx(tmp_path / "none")
    with refused(OSError, f"{tmp_path} cannot be read: Is a directory"):
        read_idx(tmp_path)


def test_a_whole_file_is_read_plain_or_gzipped(tmp_path):
    for content in (GOOD, gzip.compress(GOOD)):
        (tmp_path / "file").write_bytes(content)
        assert read_idx(tmp_path / "file").tolist() == list(GOOD[8:])
