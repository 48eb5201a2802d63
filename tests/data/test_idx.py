"""Reading IDX files, whole and damaged."""

import gzip
import struct

import chex
import numpy as np
import pytest

from gradstab.data import read_idx
from gradstab.data.idx import check_sum


def encode_idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


ARRAY = (np.arange(2 * 3 * 300) % 251).reshape(2, 3, 300).astype(np.uint8)
CONTENT = encode_idx(ARRAY)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_idx_file_reads_as_written_whatever_its_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(CONTENT))
    array = read_idx(tmp_path / name)
    chex.assert_trees_all_equal(array, ARRAY)
    assert array.dtype == np.uint8


@pytest.mark.parametrize("shape", [(0,), (5,), (1, 2, 3, 4)])
def test_the_rank_is_the_one_in_the_header(tmp_path, shape):
    array = np.zeros(shape, np.uint8)
    (tmp_path / "file").write_bytes(encode_idx(array))
    chex.assert_shape(read_idx(tmp_path / "file"), shape)


DAMAGED = {
    "another format": (b"<html>not found</html>", "no IDX file.*<htm"),
    "floats": (b"\0\0\x0d" + CONTENT[3:], "no IDX file of unsigned bytes"),
    "empty": (b"", "no IDX file"),
    "cut in the header": (CONTENT[:9], "cut short within its header of 16 bytes"),
    "cut in the data": (CONTENT[:-1], r"1799 bytes.*\(2, 3, 300\), 1800 bytes"),
    "a byte too many": (CONTENT + b"\0", r"1801 bytes.*1800 bytes"),
    "gzip cut short": (gzip.compress(CONTENT)[:-20], "damaged gzip data"),
    "gzip with a flipped byte": (
        gzip.compress(CONTENT)[:40] + b"\xff\xff" + gzip.compress(CONTENT)[42:],
        "damaged gzip data",
    ),
    "gzip's first bytes only": (b"\x1f\x8b", "damaged gzip data"),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, content, reason):
    (tmp_path / "train-images").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        read_idx(tmp_path / "train-images")
    assert str(tmp_path / "train-images") in str(error.value)


def test_a_file_that_is_not_there_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_idx(tmp_path / "nothing")


def test_one_changed_bit_changes_the_checksum():
    # FIPS 180-4, the example message "abc".
    digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    check_sum(b"abc", digest, "a file")
    with pytest.raises(ValueError, match=r"a file is not the published.*expected ba78"):
        check_sum(b"abb", digest, "a file")
