"""Fetching one file, so that either all of it is there and right, or none of it."""

import http.client
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16  # bytes between two movements of the bar


class DownloadError(OSError):
    """No mirror gave the file; the message lists what each one did."""


def download(
    mirrors: Iterable[str], path: Path, /, *, verify: Callable[[bytes, str], object]
) -> None:
    """Fetch the file ``path.name`` to ``path`` from the first mirror that has it whole.

    The content is verified before anything is written, and written under another name
    that is then changed, so an interruption leaves no part of a file at ``path``. A
    progress bar goes to standard error.

    Args:
        mirrors: addresses of folders, ending in a slash.
        path: where to; its folder is made if need be.
        verify: called with the bytes and the address; raises ValueError on wrong ones.

    Raises:
        DownloadError: no mirror answered with the right content.
        OSError: the folder cannot be written.
    """
    failures = []
    for mirror in mirrors:
        address = mirror + path.name
        try:
            content = _fetch(address)
            verify(content, address)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{address}: {error}")
        else:
            _write_atomically(path, content)
            return
    raise DownloadError("; ".join(failures))


def _fetch(address: str, /) -> bytes:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with urllib.request.urlopen(address, timeout=TIMEOUT) as response, bar:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        task = bar.add_task(address.rpartition("/")[2], total=total)
        content = bytearray()
        while chunk := response.read(CHUNK):
            content += chunk
            bar.update(task, completed=len(content))
    if total is not None and len(content) != total:
        raise ValueError(f"only {len(content)} of {total} bytes came")
    return bytes(content)


def _write_atomically(path: Path, content: bytes, /) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
