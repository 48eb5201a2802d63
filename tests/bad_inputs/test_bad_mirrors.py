"""Mirrors that answer wrongly, slowly, for ever or not at all."""

import contextlib
import gzip
import hashlib
import http.server
import os
import threading
import time

import pytest
from clear_lines import assert_clear
from test_bad_data_files import NAMES, PLAIN

from gradstab.data import download, load
from gradstab.data.mnist import SOURCES, Source

pytestmark = pytest.mark.cases

PACKED = {name: gzip.compress(content, mtime=0) for name, content in PLAIN.items()}
IMAGES = NAMES[0]


def send(handler, content, *, status=200, length=None, **headers):
    handler.send_response(status)
    handler.send_header(
        "Content-Length", str(len(content) if length is None else length)
    )
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def drip(handler, content):
    send(handler, b"", length=len(content))
    for byte in content:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


def slow_head(handler):
    for byte in b"HTTP/1.0 200 OK\r\n" + b"X-Header: yes\r\n" * 50:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def raw(text):
    return lambda handler, content: handler.wfile.write(text)


BOMB = gzip.compress(bytes(30_000_000), 9)
ANSWERS = {
    "not found": (lambda h, c: h.send_error(404), "HTTP Error 404"),
    "forbidden": (lambda h, c: h.send_error(403), "HTTP Error 403"),
    "broken": (lambda h, c: h.send_error(500), "HTTP Error 500"),
    "evil reason": (lambda h, c: h.send_error(500, "\x1b]0;pwned"), "HTTP Error 500"),
    "html": (lambda h, c: send(h, b"<html>log in</html>"), "no IDX file"),
    "nothing": (lambda h, c: send(h, b""), "no IDX file"),
    "half": (lambda h, c: send(h, c[:99], length=len(c)), "only 99 of"),
    "cut": (lambda h, c: send(h, c[:99]), "damaged gzip data"),
    "one bit": (
        lambda h, c: send(h, c[:50] + bytes([c[50] ^ 1]) + c[51:]),
        "what came is",
    ),
    "another file": (
        lambda h, c: send(h, PACKED[NAMES[1]]),
        "what came is not the published file: the sha256",
    ),
    "too long": (lambda h, c: send(h, c + bytes(1 << 20)), "longer than the"),
    "endless": (lambda h, c: endless(h), "longer than the"),
    "said too long": (lambda h, c: send(h, c, length=1 << 40), "longer than the"),
    "bad length": (lambda h, c: send(h, c, length="many"), "invalid literal"),
    "negative length": (lambda h, c: send(h, c, length=-5), ""),
    "bomb": (lambda h, c: send(h, BOMB), "announces 30000000 bytes"),
    "lying bomb": (
        lambda h, c: send(h, BOMB[:-4] + b"\1\0\0\0"),
        "its content is longer than",
    ),
    "drip": (drip, "bytes came in 0.4 s"),
    "slow head": (lambda h, c: slow_head(h), "only 0 bytes came in 0.4 s"),
    "stall": (lambda h, c: time.sleep(2), ""),
    "hang up": (lambda h, c: None, "Remote end closed"),
    "no http": (raw(b"SSH-2.0-OpenSSH\r\n"), "SSH-2.0"),
    "evil line": (raw(b"\x1b]0;pwned\r\n\r\n"), ""),
    "to a file": (
        lambda h, c: send(h, b"", status=302, Location="file:///etc/passwd"),
        "not allowed",
    ),
    "loop": (lambda h, c: send(h, b"", status=302, Location=h.path), "redirect"),
}


@pytest.fixture
def server():
    """A server with one answer, that of its attribute."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            name = self.path.rpartition("/")[2].removesuffix(".gz")
            bad = self.path.startswith("/bad/") and name == IMAGES
            with contextlib.suppress(OSError):  # the other side has given up
                (web.answer if bad else send)(self, PACKED[name])

        def log_message(self, *_):
            pass

    asked = []
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads, web.block_on_close = True, False
    web.asked, web.root = asked, f"http://127.0.0.1:{web.server_port}"
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield web
    web.shutdown()
    web.server_close()


def publish(monkeypatch, *mirrors, algorithm="sha256"):
    sums = {
        name: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        for name, content in PLAIN.items()
    }
    sizes = {name: len(content) for name, content in PLAIN.items()}
    monkeypatch.setitem(SOURCES, "mnist", Source(mirrors, sums, sizes))
    monkeypatch.setattr(download, "TIMEOUT", 0.4)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_a_bad_mirror_is_given_up_for_the_next_or_told(
    server, tmp_path, monkeypatch, answer, said
):
    server.answer = answer
    bad, good = f"{server.root}/bad/", f"{server.root}/good/"
    publish(monkeypatch, bad)
    begun = time.monotonic()
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", data_dir=tmp_path)
    assert time.monotonic() - begun < 10
    assert_clear(error.value, f"{bad}{IMAGES}.gz: ", said, "by hand")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    publish(monkeypatch, bad, good)
    assert len(load("mnist", data_dir=tmp_path).x_train) == 10
    assert f"/good/{IMAGES}.gz" in server.asked


def test_a_whole_download_has_an_end(server, tmp_path, monkeypatch):
    """A mirror that is just quick enough in every period, but never done."""

    def steady(handler, content):
        send(handler, b"", length=len(content))
        for byte in content:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.01)

    server.answer = steady
    publish(monkeypatch, f"{server.root}/bad/")
    monkeypatch.setattr(download, "LEAST", 1)
    monkeypatch.setattr(download, "LIMIT", 1)
    with pytest.raises(FileNotFoundError, match="not all of it came in 1 s"):
        load("mnist", data_dir=tmp_path)


WEAK = "is not https, and the checksum is a weak one"


def test_a_weak_checksum_is_taken_from_https_only(server, tmp_path, monkeypatch):
    publish(monkeypatch, f"{server.root}/good/", algorithm="md5")
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", data_dir=tmp_path)
    assert_clear(error.value, WEAK)
    assert server.asked == []
    handler = download._Encrypted()
    with pytest.raises(ValueError, match="redirects to an address that is not https"):
        handler.redirect_request(None, None, 302, "", {}, f"{server.root}/good/")


def test_all_published_files_have_a_mirror_that_vouches_for_them():
    for source in SOURCES.values():
        for file in source.checksums:
            secure = [m for m in source.mirrors if m.startswith("https:")]
            assert secure if source.is_weak(file) else source.mirrors


ADDRESSES = ("", "nowhere", "http://", "http://127.0.0.1:1/", "gopher://x/",
             "http://[bad/", "http://a b/")  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES, ids=ascii)
def test_an_address_that_is_none_is_told(tmp_path, monkeypatch, address):
    publish(monkeypatch, address)
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", data_dir=tmp_path)
    assert_clear(error.value, IMAGES)


def test_an_interrupt_is_not_held_up_by_a_mirror(server, tmp_path, monkeypatch):
    def interrupted(self, seconds):
        raise KeyboardInterrupt

    server.answer = lambda h, c: time.sleep(2)
    publish(monkeypatch, f"{server.root}/bad/")
    monkeypatch.setattr(download._Reader, "next", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load("mnist", data_dir=tmp_path)
    assert time.monotonic() - begun < 1.5
    assert os.listdir(tmp_path) == []
