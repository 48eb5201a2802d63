"""Fetching one file, so that either all of it is there and right, or none of it."""

import contextlib
import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from gradstab import _files
from gradstab._progress import progress
from gradstab._text import one_line
from gradstab.errors import UserValueError

TIMEOUT = 30  # seconds, in each of which periods LEAST bytes must come
LEAST = 1 << 14  # bytes
LIMIT = 900  # seconds for the whole file, from one mirror
CHUNK = 1 << 16  # bytes between two movements of the bar


class DownloadError(OSError):
    """No mirror gave the file; the message lists what each one did."""


def download(
    mirrors: Iterable[str],
    path: Path,
    /,
    *,
    verify: Callable[[bytes, str], object],
    most: int,
    encrypted: bool = False,
) -> None:
    """Fetch the file ``path.name`` to ``path`` from the first mirror that has it whole.

    The content is verified before anything is written, and written under another name
    that is then changed, so an interruption leaves no part of a file at ``path``. A
    mirror that sends more than ``most`` bytes, fewer than `LEAST` in `TIMEOUT` seconds,
    or longer than `LIMIT` seconds is given up. A progress bar goes to standard error.

    Args:
        mirrors: addresses of folders, ending in a slash.
        path: where to; its folder is made if need be.
        verify: called with the bytes and what to call them; raises ValueError on wrong
            ones.
        most: bytes that the file may have.
        encrypted: pass over mirrors, and refuse redirections, that are not https, as
            where `verify` is no proof against forgery.

    Raises:
        DownloadError: no mirror answered with the right content.
        OSError: the folder cannot be written.
    """
    failures = []
    for mirror in mirrors:
        address = mirror + path.name
        try:
            content = _fetch(address, most, encrypted)
            verify(content, "what came")
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{one_line(address)}: {_reason(error)}")
        else:
            _files.make_folder(path.parent)
            _files.write(path, content, overwrite=True)
            return
    raise DownloadError("; ".join(failures) or "there is no mirror of it")


def _reason(error):
    text = one_line(error, length=200)
    if isinstance(error, TimeoutError) and text == "timed out":
        return f"no answer in {TIMEOUT} s"
    return text or type(error).__name__


def _fetch(address: str, most: int, encrypted: bool, /) -> bytes:
    if encrypted and not address.startswith("https:"):
        raise UserValueError(
            "not asked: it is not https, and the checksum is a weak one"
        )
    shown = progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        line=lambda task: f"{task.description}, {task.completed / 2**20:.1f} MiB",
        wanted=True,
        description=address.rpartition("/")[2],
        total=None,
    )
    begun, content = time.monotonic(), bytearray()
    with _Reader(address, encrypted) as reader, shown as update:
        period, before = begun, 0
        while True:
            now = time.monotonic()
            if now - begun > LIMIT:
                raise TimeoutError(f"not all of it came in {LIMIT} s")
            if now - period >= TIMEOUT:
                came = len(content) - before
                if came < LEAST:
                    raise TimeoutError(f"only {came} bytes came in {TIMEOUT} s")
                period, before = now, len(content)
            chunk = reader.next(period + TIMEOUT - now)
            if chunk == b"":
                break
            content += chunk or b""
            if max(len(content), reader.length or 0) > most:
                raise UserValueError(
                    f"it is longer than the {most} bytes that it can have"
                )
            update(completed=len(content), total=reader.length)
    if reader.length is not None and len(content) != reader.length:
        raise UserValueError(f"only {len(content)} of {reader.length} bytes came")
    return bytes(content)


class _Reader:
    """Reads in a thread: nothing of what a mirror does can hold up its reader."""

    def __init__(self, address, encrypted):
        self.length: int | None = None
        self._address, self._encrypted = address, encrypted
        self._came: queue.Queue = queue.Queue(maxsize=64)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()

    def next(self, seconds):
        """What has come; nothing if it did not in time, and empty at the end."""
        try:
            found = self._came.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def _read(self):
        try:
            with _open(self._address, self._encrypted) as response:
                length = response.headers.get("Content-Length")
                self.length = int(length) if length else None
                while True:
                    # Not `read`, which waits until all of the chunk is there.
                    chunk = response.read1(CHUNK)
                    self._put(chunk)
                    if not chunk:
                        return
        except BaseException as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            self._put(error)

    def _put(self, item):
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._came.put(item, timeout=0.1)
                return


class _Encrypted(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https:"):
            raise UserValueError("it redirects to an address that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address, encrypted):
    if not encrypted:
        return urllib.request.urlopen(address, timeout=TIMEOUT)
    opener = urllib.request.build_opener(_Encrypted)
    return opener.open(address, timeout=TIMEOUT)
