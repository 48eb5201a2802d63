"""MNIST's files: found, verified, downloaded. No test here touches the network."""

import errno
import gzip
import hashlib
import io
import os
import struct
import urllib.error
import urllib.request
from pathlib import Path

import chex
import numpy as np
import pytest

from gradstab.data import data_folder, load
from gradstab.data.mnist import SOURCES, Source

NUM_TRAIN, NUM_TEST = 5010, 7  # the last 5,000 are for validation
MIRRORS = ("https://one.invalid/", "https://two.invalid/")


def make_files():
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (NUM_TRAIN, 3, 2)),
        "train-labels-idx1-ubyte": rng.integers(0, 10, NUM_TRAIN),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (NUM_TEST, 3, 2)),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, NUM_TEST),
    }


def encode_idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


ARRAYS = make_files()
PLAIN = {file: encode_idx(array) for file, array in ARRAYS.items()}
PACKED = {file: gzip.compress(content) for file, content in PLAIN.items()}


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch):
    """MNIST is these small files, and nothing answers at any address."""
    checksums = {f: f"sha256:{hashlib.sha256(c).hexdigest()}" for f, c in PLAIN.items()}
    monkeypatch.setitem(SOURCES, "mnist", Source(MIRRORS, checksums))
    monkeypatch.delenv("GRADSTAB_DATA_DIR", raising=False)
    serve(monkeypatch, {})


def serve(monkeypatch, pages):
    """Let `pages`, content or exception by address, be all of the network."""
    asked = []

    def urlopen(address, timeout):
        assert timeout > 0
        asked.append(address)
        page = pages.get(address, urllib.error.URLError("no network"))
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, Response) else Response(page)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


class Response(io.BytesIO):
    """An answer with a body, and a length that may promise more than there is."""

    def __init__(self, content, length=None, error_at_end=None):
        super().__init__(content)
        self.headers = {"Content-Length": str(length or len(content))}
        self.error_at_end = error_at_end

    def read1(self, size=-1):
        chunk = super().read1(size)
        if not chunk and self.error_at_end is not None:
            raise self.error_at_end
        return chunk


def write(folder, contents, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / (file + suffix)).write_bytes(content)


def at_mirror(mirror, contents=PACKED):
    return {f"{mirror}{file}.gz": content for file, content in contents.items()}


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", [".", "mnist"])
@pytest.mark.parametrize(("contents", "suffix"), [(PLAIN, ""), (PACKED, ".gz")])
def test_files_plain_or_gzipped_are_found_in_both_places(
    tmp_path, folder, contents, suffix
):
    write(tmp_path / folder, contents, suffix)
    data = load("mnist", data_dir=tmp_path)
    images = ARRAYS["train-images-idx3-ubyte"].reshape(NUM_TRAIN, 6)
    # Division by 255 in float32 errs by half a unit in the last place of 1: 2^-24.
    chex.assert_trees_all_close(data.x_train, (images[:10] / 255), atol=2.0**-24)
    chex.assert_trees_all_close(data.x_val, (images[10:] / 255), atol=2.0**-24)
    assert data.y_train.tolist() == ARRAYS["train-labels-idx1-ubyte"][:10].tolist()
    assert data.y_val.tolist() == ARRAYS["train-labels-idx1-ubyte"][10:].tolist()
    assert data.y_test.tolist() == ARRAYS["t10k-labels-idx1-ubyte"].tolist()
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)
    assert (data.image_shape, data.x_train.max() <= 1) == ((3, 2), True)


def test_the_folder_is_the_argument_then_the_environment_then_a_cache(
    tmp_path, monkeypatch
):
    assert data_folder() == Path.home() / ".cache" / "gradstab"
    monkeypatch.setenv("GRADSTAB_DATA_DIR", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder("~/here") == Path.home() / "here"
    write(tmp_path, PLAIN)
    assert len(load("mnist").x_test) == NUM_TEST


def test_the_subfolder_of_the_data_set_comes_first(tmp_path):
    write(tmp_path / "mnist", PLAIN)
    write(tmp_path, {file: b"another data set's" for file in PLAIN})
    assert len(load("mnist", data_dir=tmp_path).x_test) == NUM_TEST


def test_a_folder_with_another_known_data_set_is_no_obstacle(tmp_path, monkeypatch):
    other = {file: content[:-1] + b"\x07" for file, content in PLAIN.items()}
    known = {f: f"md5:{hashlib.md5(c).hexdigest()}" for f, c in other.items()}
    monkeypatch.setitem(SOURCES, "fashion-mnist", Source(MIRRORS, known))
    write(tmp_path, other)
    serve(monkeypatch, at_mirror(MIRRORS[0]))
    chex.assert_equal(load("mnist", data_dir=tmp_path).name, "mnist")
    assert files_in(tmp_path / "mnist") == sorted(f"{file}.gz" for file in PLAIN)
    chex.assert_equal(load("fashion-mnist", data_dir=tmp_path).name, "fashion-mnist")


@pytest.mark.parametrize("folder", [".", "mnist"])
@pytest.mark.parametrize("file", PLAIN)
def test_one_changed_pixel_or_label_is_an_error_that_names_the_file(
    tmp_path, file, folder
):
    changed = PLAIN[file][:-1] + bytes([PLAIN[file][-1] ^ 1])
    write(tmp_path / folder, PLAIN | {file: changed})
    with pytest.raises(ValueError, match="not the published file") as error:
        load("mnist", data_dir=tmp_path)
    assert str(tmp_path / folder / file) in str(error.value)
    assert str(tmp_path / "mnist") in str(error.value)
    assert "elete it" in str(error.value)


def test_a_truncated_file_is_an_error_that_says_so(tmp_path):
    file = "train-images-idx3-ubyte"
    write(tmp_path / "mnist", PACKED | {file: PACKED[file][:1000]}, ".gz")
    with pytest.raises(ValueError, match=rf"{file}\.gz is damaged gzip data.*Delete"):
        load("mnist", data_dir=tmp_path)


def test_what_is_missing_is_downloaded_once(tmp_path, monkeypatch):
    asked = serve(monkeypatch, at_mirror(MIRRORS[0]))
    there = "t10k-labels-idx1-ubyte"
    write(tmp_path, {there: PLAIN[there]})
    first = load("mnist", data_dir=tmp_path)
    assert len(asked) == 3
    missing = sorted(f"{file}.gz" for file in PLAIN if file != there)
    assert files_in(tmp_path / "mnist") == missing
    chex.assert_trees_all_equal(load("mnist", data_dir=tmp_path), first)
    assert len(asked) == 3


BAD_ANSWERS = {
    "no answer": urllib.error.URLError("no route"),
    "a refusal": urllib.error.HTTPError("", 403, "Forbidden", None, None),  # pyright: ignore
    "time is up": TimeoutError("timed out"),
    "an html page": b"<html>log in first</html>",
    "another file": PACKED["t10k-images-idx3-ubyte"],
    "half of the file": PACKED["train-images-idx3-ubyte"][:5000],
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_bad_mirror_is_passed_over_for_the_next(tmp_path, monkeypatch, answer):
    bad = {f"{MIRRORS[0]}train-images-idx3-ubyte.gz": answer}
    asked = serve(monkeypatch, at_mirror(MIRRORS[1]) | bad)
    assert len(load("mnist", data_dir=tmp_path).x_test) == NUM_TEST
    assert asked[1] == f"{MIRRORS[1]}train-images-idx3-ubyte.gz"


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    tmp_path, monkeypatch, answer
):
    bad = {f"{mirror}train-images-idx3-ubyte.gz": answer for mirror in MIRRORS}
    serve(monkeypatch, at_mirror(MIRRORS[0]) | bad)
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", data_dir=tmp_path)
    message = str(error.value)
    for part in ("train-images-idx3-ubyte", str(tmp_path / "mnist"), *MIRRORS,
                 "by hand", "data_dir", "GRADSTAB_DATA_DIR"):  # fmt: skip
        assert part in message
    assert files_in(tmp_path) == []


def test_a_connection_that_breaks_off_is_reported_with_the_bytes_that_came(
    tmp_path, monkeypatch
):
    file = "train-images-idx3-ubyte"
    page = Response(PACKED[file][:100], length=len(PACKED[file]))
    serve(monkeypatch, {f"{MIRRORS[0]}{file}.gz": page})
    reason = f"only 100 of {len(PACKED[file])} bytes came"
    with pytest.raises(FileNotFoundError, match=reason):
        load("mnist", data_dir=tmp_path)


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    file = "train-images-idx3-ubyte"
    page = Response(PACKED[file][:100], 1000, error_at_end=KeyboardInterrupt())
    serve(monkeypatch, {f"{MIRRORS[0]}{file}.gz": page})
    with pytest.raises(KeyboardInterrupt):
        load("mnist", data_dir=tmp_path)
    assert files_in(tmp_path) == []


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serve(monkeypatch, at_mirror(MIRRORS[0]))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileNotFoundError, match="No space left"):
        load("mnist", data_dir=tmp_path)
    assert files_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    serve(monkeypatch, at_mirror(MIRRORS[0]))
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(FileNotFoundError, match=r"taken.*data_dir"):
        load("mnist", data_dir=tmp_path / "taken")


def test_nothing_is_asked_for_when_downloading_is_switched_off(tmp_path, monkeypatch):
    asked = serve(monkeypatch, at_mirror(MIRRORS[0]))
    with pytest.raises(FileNotFoundError, match="switched off"):
        load("mnist", data_dir=tmp_path, may_download=False)
    assert asked == []
