"""The IDX file format, plain or gzipped, and checksums of what is inside."""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from gradstab import _files
from gradstab._text import one_line
from gradstab.errors import UserValueError

GZIP_MAGIC = b"\x1f\x8b"
UBYTE = 0x08  # the type code of unsigned bytes, the third byte of a file
_MAGIC = bytes([0, 0, UBYTE])


def read_idx(path: Path | str, /) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, plain or gzipped.

    The file says itself which of the two it is, whatever its name.

    Args:
        path: the file.

    Returns:
        uint8 array of the shape that the file's header gives.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or it is cut short or damaged.

    References:
        LeCun, Cortes and Burges (1998), The MNIST database: the IDX file format.
    """
    path = _files.as_path(path, "path")
    content = _read(path)
    try:
        # As many bytes as the header announces, and one to see that there are more.
        start = gunzipped(content, path, most=4 + 4 * 255)
        # Nothing is compressed to less than a thousandth.
        most = min(_length(start, path), 1100 * len(content) + 1100)
        return decode_idx(gunzipped(content, path, most=most), path)
    except MemoryError as error:
        raise UserValueError(
            f"{path} announces more than there is memory for"
        ) from error


def read_file(path: Path, /, *, most: int) -> bytes:
    """The content of a file that is no longer than it can be.

    Raises:
        ValueError: it is longer.
        OSError: it cannot be read.
    """
    content = _read(path, most + 1)
    if len(content) > most:
        raise UserValueError(f"{path} is longer than the {most} bytes that it can have")
    return content


def _read(path, most=-1):
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        reason = _files.reason(error)
        raise type(error)(f"{path} cannot be read: {reason}") from error


def gunzipped(content: bytes, source: Path | str, /, *, most: int) -> bytes:
    """The content, decompressed if it is gzipped; ``source`` is named in the error.

    Args:
        content: the bytes of a file.
        source: what to name in an error.
        most: bytes of the result; one more is given if there are more.

    Raises:
        ValueError: the data are damaged.
    """
    if not content.startswith(GZIP_MAGIC):
        return content[: most + 1]
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserValueError(
            f"{source} is damaged gzip data: {one_line(error)}"
        ) from error


def announced_size(content: bytes, /) -> int:
    """Bytes of the content once decompressed, as gzipped data say in their last four.

    >>> announced_size(gzip.compress(b"abc")), announced_size(b"abc")
    (3, 3)
    """
    if not content.startswith(GZIP_MAGIC):
        return len(content)
    return int.from_bytes(content[-4:], "little")


def _length(start, source):
    """Bytes of a file of which this is the start."""
    header, shape = _header(start, source)
    return header + math.prod(shape)


def decode_idx(content: bytes, source: Path | str, /) -> np.ndarray:
    r"""The array in the content of an IDX file of unsigned bytes.

    Two zero bytes, the type code 8, the rank, one big-endian 32-bit length per axis,
    then the bytes of the array, last axis fastest.

    Args:
        content: decompressed.
        source: what to name in an error.

    Raises:
        ValueError: the content is not of this form.

    >>> decode_idx(b"\0\0\x08\x01\0\0\0\x03abc", "labels")
    array([97, 98, 99], dtype=uint8)
    """
    header, shape = _header(content, source)
    if len(content) - header != math.prod(shape):
        raise UserValueError(
            f"{source} holds {len(content) - header} bytes of data, but its header "
            f"announces shape {shape}, {math.prod(shape)} bytes: "
            "it is cut short or damaged"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _header(content, source):
    """Its length, and the shape that it announces."""
    if 0 < len(content) < 4 and content == _MAGIC[: len(content)]:
        raise UserValueError(f"{source} is cut short: it has {len(content)} bytes")
    if content[:3] != _MAGIC:
        raise UserValueError(
            f"{source} is no IDX file of unsigned bytes: it begins with "
            f"{content[:4]!r}, expected {_MAGIC!r} and the rank"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserValueError(
            f"{source} is cut short within its header of {header} bytes"
        )
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if len(shape) > 64:
        raise UserValueError(
            f"{source} is damaged: its header announces rank {len(shape)}"
        )
    return header, shape


def check_sum(content: bytes, expected: str, source: Path | str, /) -> None:
    """Raise unless the content is the expected one.

    Args:
        content: decompressed.
        expected: the algorithm and the digest, as in ``'md5:900150983cd2...'``.
        source: what to name in the error.

    Raises:
        ValueError: another content, with both digests.

    >>> check_sum(b"abc", "md5:900150983cd24fb0d6963f7d28e17f72", "a file")
    """
    algorithm, digest = expected.split(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != digest:
        raise UserValueError(
            f"{source} is not the published file: the {algorithm} of its decompressed "
            f"content is {found}, expected {digest}"
        )
