"""The IDX file format, plain or gzipped, and checksums of what is inside."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
UBYTE = 0x08  # the type code of unsigned bytes, the third byte of a file


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
    path = Path(path)
    return decode_idx(gunzipped(path.read_bytes(), path), path)


def gunzipped(content: bytes, source: Path | str, /) -> bytes:
    """The content, decompressed if it is gzipped; ``source`` is named in the error."""
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{source} is damaged gzip data: {error}") from error


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
    if len(content) < 4 or content[:3] != bytes([0, 0, UBYTE]):
        raise ValueError(
            f"{source} is no IDX file of unsigned bytes: it begins with "
            f"{content[:4]!r}, expected {bytes([0, 0, UBYTE])!r} and the rank"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"{source} is cut short within its header of {header} bytes")
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{source} holds {len(content) - header} bytes of data, but its header "
            f"announces shape {shape}, {math.prod(shape)} bytes: "
            "it is cut short or damaged"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


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
        raise ValueError(
            f"{source} is not the published file: the {algorithm} of its decompressed "
            f"content is {found}, expected {digest}"
        )
