"""Downloads from a local server that disconnects, stalls, and sends wrong or damaged data."""

import errno
import gzip
import hashlib
import io
import random
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spikeguard.data import DownloadError, download, downloads
from spikeguard.data.archives import extract
from spikeguard.data.by_hand import BY_HAND
from spikeguard.data.datasets import DATASETS
from spikeguard.data.downloads import SOURCES, Source

BODY = bytes(range(256)) * 4096  # 1 MiB: several reads
HALF = len(BODY) // 2
FILE = "images.gz"


class Server(ThreadingHTTPServer):
    """Serves ``files``; each request takes the next entry of ``script``, then "serve"."""

    daemon_threads = False  # server_close() waits for every handler

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script, self.asked = {FILE: BODY}, [], []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """Ignore clients that disconnect; the tests do so on purpose."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path[1:], self.headers.get("Range")))
        act = self.server.script.pop(0) if self.server.script else "serve"
        body = self.server.files.get(self.path[1:])
        if act.isdecimal() or body is None:
            self.send_error(int(act) if act.isdecimal() else 404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if act == "whole":
            start = 0  # a server that ignores Range
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            shift = 1 if act == "shift" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(body) - 1}/{len(body)}")
        if act != "unsized":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if act == "corrupt":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        self.wfile.write(rest[: len(rest) // 2] if act in ("truncate", "stall") else rest)
        if act == "stall":
            self.server.release.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.release.set()
    served.shutdown()
    served.server_close()
    thread.join(10)
    assert not thread.is_alive()


def md5(data):
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Download the one file of a toy data set; waiting times are recorded, not spent."""
    monkeypatch.setitem(SOURCES, "toy", Source("http://unused/", {FILE: md5(BODY)}, "toy/raw"))
    waits = []

    def run(**options):
        options = {"timeout": 5.0, "attempts": 3, "backoff": waits.append, **options}
        return download("toy", tmp_path, url=server.url, **options)

    run.waits, run.target = waits, tmp_path / "toy" / "raw" / FILE
    run.part = run.target.with_name(f"{FILE}.part")
    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def whole(fetch):
    return fetch.target.read_bytes() == BODY and names(fetch.target.parent) == [FILE]


def test_a_file_arrives_once_and_progress_reaches_its_end(server, fetch):
    seen = []
    assert fetch(progress=lambda done, total: seen.append((done, total))) == fetch.target.parent
    assert whole(fetch)
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    fetch()
    assert server.asked == [(FILE, None)]  # the second call asked for nothing


def test_a_truncated_transfer_resumes_where_it_stopped(server, fetch):
    server.script = ["truncate", "truncate"]
    seen = []
    fetch(progress=lambda done, total: seen.append((done, total)))
    assert whole(fetch)
    quarter = HALF + HALF // 2
    assert server.asked == [(FILE, None), (FILE, f"bytes={HALF}-"), (FILE, f"bytes={quarter}-")]
    assert fetch.waits == [1, 2]
    assert {total for _, total in seen} == {len(BODY)}


def test_a_stalled_transfer_times_out_and_resumes(server, fetch):
    server.script = ["stall"]
    fetch(timeout=0.3)
    assert whole(fetch)
    assert [asked for _, asked in server.asked] == [None, f"bytes={HALF}-"]


def test_a_server_that_ignores_range_sends_it_all_again(server, fetch):
    server.script = ["truncate", "whole"]
    fetch()
    assert whole(fetch)
    assert server.asked[1] == (FILE, f"bytes={HALF}-")


def test_another_range_than_the_requested_one_is_rejected(server, fetch):
    server.script = ["truncate", "shift"]
    fetch()
    assert whole(fetch)
    assert server.asked[1] == server.asked[2] == (FILE, f"bytes={HALF}-")


def test_a_server_that_does_not_send_the_length(server, fetch):
    server.script = ["unsized"]
    seen = []
    fetch(progress=lambda done, total: seen.append((done, total)))
    assert whole(fetch)
    assert seen[-1] == (len(BODY), None)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("truncate", f"closed after {HALF + HALF // 2} of {len(BODY)} bytes"),
        ("stall", r"stalled for 0\.3 s"),
        ("503", "the server answered 503 Service Unavailable"),
        ("429", "the server answered 429 Too Many Requests"),
    ],
)
def test_trouble_that_stays_ends_in_one_line_after_all_attempts(act, reason, server, fetch):
    server.script = [act] * 2
    with pytest.raises(DownloadError, match=rf"{reason}.*, after 2 attempts; \d+ bytes") as caught:
        fetch(timeout=0.3, attempts=2)
    message = str(caught.value)
    assert "\n" not in message
    assert server.url + FILE in message
    assert len(server.asked) == 2
    assert not fetch.target.exists()
    fetch()  # the next call resumes from the kept bytes
    assert whole(fetch)


@pytest.mark.parametrize("code", [403, 404])
def test_an_http_error_is_not_retried(code, server, fetch):
    server.script = [str(code)]
    with pytest.raises(DownloadError, match=f"the server answered {code} .*; try a mirror"):
        fetch()
    assert len(server.asked) == 1
    assert names(fetch.target.parent) == []


def test_no_server_listening_is_one_line(server, fetch, tmp_path):
    gone = Server()
    url = gone.url
    gone.server_close()
    with pytest.raises(DownloadError, match=r"refused, after 2 attempts; 0 bytes"):
        download("toy", tmp_path, url=url, attempts=2, backoff=fetch.waits.append)


def test_a_corrupt_file_is_removed_and_both_checksums_are_named(server, fetch):
    server.script = ["corrupt"]
    bad = md5(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    with pytest.raises(DownloadError, match=f"expected MD5 {md5(BODY)}, got {bad}; .*removed"):
        fetch()
    assert names(fetch.target.parent) == []
    fetch()
    assert whole(fetch)


def test_an_existing_damaged_file_is_downloaded_again(fetch):
    fetch()
    fetch.target.write_bytes(BODY[:-1])
    fetch()
    assert whole(fetch)


def test_an_interrupt_by_the_user_keeps_the_partial_file(server, fetch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=stop)
    kept = fetch.part.stat().st_size
    assert 0 < kept < len(BODY)
    assert BODY.startswith(fetch.part.read_bytes())
    fetch()
    assert whole(fetch)
    assert server.asked[1] == (FILE, f"bytes={kept}-")


@pytest.mark.parametrize(("left", "requests"), [(BODY, 1), (b"x" * len(BODY), 2)])
def test_a_part_file_that_cannot_grow(left, requests, server, fetch):
    """A complete one is only renamed; one with other bytes is deleted (416 both times)."""
    fetch.part.parent.mkdir(parents=True)
    fetch.part.write_bytes(left)
    fetch()
    assert whole(fetch)
    assert len(server.asked) == requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_is_one_line_and_not_tried_again(server, fetch):
    fetch.part.parent.mkdir(parents=True)
    fetch.part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot write .*part: No space left on device; free"):
        fetch()
    assert len(server.asked) == 1


def test_a_root_that_cannot_be_made_is_one_line(server, fetch, tmp_path):
    (tmp_path / "toy").write_text("a file where a folder should be")
    with pytest.raises(DownloadError, match=r"cannot write .*raw: .*choose another root"):
        fetch()


@pytest.mark.parametrize(
    ("name", "url", "message"),
    [
        ("digits", None, "'digits' has nothing to download; known: mnist, cifar10, cifar100"),
        ("mnist", "file:///etc", "url starts with https://"),
    ],
)
def test_wrong_use_is_named(name, url, message, tmp_path):
    with pytest.raises(DownloadError, match=message):
        download(name, tmp_path, url=url)


def test_the_pause_between_attempts_grows_and_is_bounded(monkeypatch):
    waits = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    for attempt in range(1, 8):
        downloads._pause(attempt)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("name", BY_HAND)
def test_event_data_sets_say_where_to_get_them(name, tmp_path):
    with pytest.raises(DownloadError, match=f"{name} has no lasting address; get .*https://") as e:
        download(name, tmp_path)
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_everything_but_the_digits_can_be_fetched_over_https():
    assert set(SOURCES) == set(DATASETS) - {"digits"} - set(BY_HAND)
    for source in SOURCES.values():
        assert source.url.startswith("https://")
        assert source.url.endswith("/")
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in source.files.values())


MEMBERS = {"a.bin": 5, "b.bin": 3}


def tar(*entries):
    """A gzipped tar of (name, content) pairs; a TarInfo is used as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def special(name, kind, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


GOOD = [
    special("toy-bin", tarfile.DIRTYPE),
    ("toy-bin/readme.html", b"hello"),
    ("toy-bin/b.bin", b"bbb"),
    ("toy-bin/a.bin", b"aaaaa"),
]


def test_an_archive_is_fetched_unpacked_and_removed(server, tmp_path, monkeypatch):
    body = tar(*GOOD)
    server.files["toy.tar.gz"] = body
    source = Source(server.url, {"toy.tar.gz": md5(body)}, "toy-bin", MEMBERS)
    monkeypatch.setitem(SOURCES, "toy", source)
    for _ in range(2):
        folder = download("toy", tmp_path)
        assert folder == tmp_path / "toy-bin"
        assert names(tmp_path) == ["toy-bin"]
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
            "a.bin": b"aaaaa",
            "b.bin": b"bbb",
        }
    assert len(server.asked) == 1
    (folder / "a.bin").write_bytes(b"aaa")  # a file of the wrong size is fetched again
    download("toy", tmp_path)
    assert (folder / "a.bin").read_bytes() == b"aaaaa"


def test_an_archive_without_the_wanted_file_is_one_line(server, tmp_path, monkeypatch):
    body = tar(*GOOD[:3])
    server.files["toy.tar.gz"] = body
    source = Source(server.url, {"toy.tar.gz": md5(body)}, "toy-bin", MEMBERS)
    monkeypatch.setitem(SOURCES, "toy", source)
    with pytest.raises(DownloadError, match=r"download: .*: a\.bin is not in the archive"):
        download("toy", tmp_path)


def test_a_full_disk_while_unpacking_is_one_line(server, tmp_path, monkeypatch):
    body = tar(*GOOD)
    server.files["toy.tar.gz"] = body
    source = Source(server.url, {"toy.tar.gz": md5(body)}, "toy-bin", MEMBERS)
    monkeypatch.setitem(SOURCES, "toy", source)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spikeguard.data.archives.shutil.copyfileobj", full)
    with pytest.raises(DownloadError, match=r"cannot write .*toy-bin: No space left"):
        download("toy", tmp_path)
    assert names(tmp_path / "toy-bin") == []


WICKED = {
    "link": ([special("toy-bin/a.bin", tarfile.SYMTYPE, "b.bin", 5)], "rejected: toy-bin/a.bin"),
    "hard link": ([special("toy-bin/a.bin", tarfile.LNKTYPE, "toy-bin/b.bin", 5)], "rejected"),
    "device": ([special("toy-bin/a.bin", tarfile.CHRTYPE, "", 5)], "rejected"),
    "bomb": ([("toy-bin/a.bin", b"a" * 5000)], "regular file of 5 bytes, got .* with 5000"),
    "escape": ([("../a.bin", b"aaaaa"), ("/elsewhere/toy-bin/a.bin", b"aaaaa")], "a.bin is not in"),
    "climb": ([("toy-bin/../a.bin", b"aaaaa"), ("x/toy-bin/a.bin", b"aaaaa")], "a.bin is not in"),
}


@pytest.mark.parametrize("case", WICKED)
def test_an_archive_controls_nothing(case, tmp_path):
    entries, message = WICKED[case]
    archive = tmp_path / "in" / "toy.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(tar(GOOD[2], *entries))
    with pytest.raises(ValueError, match=message):
        extract(archive, tmp_path / "out" / "toy-bin", MEMBERS)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["in/toy.tar.gz"]  # not even b.bin, which came first and was good


WHOLE = tar(*GOOD)
DAMAGED = {
    "empty": b"",
    "header": WHOLE[:5],
    "truncated": WHOLE[:60],
    "text": b"<html>not found</html>",
    "garbled": WHOLE[:10] + b"\xff" * 10 + WHOLE[20:],
    "garbled later": gzip.compress(gzip.decompress(WHOLE)[:1024]) + b"no more gzip",
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_archive_is_one_line(fault, tmp_path):
    archive = tmp_path / "toy.tar.gz"
    archive.write_bytes(DAMAGED[fault])
    with pytest.raises(ValueError, match=r"not a whole archive \(.*\); fetch it again"):
        extract(archive, tmp_path / "toy-bin", MEMBERS)


DAMAGE = {
    "flipped": b"\xff" * 100,  # still decodes: only the checksum at the end detects it
    "garbled": random.Random(1).randbytes(20_000),  # does not decode
    "truncated": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_archive_damaged_inside_a_file_leaves_no_half_of_it(damage, tmp_path):
    numbers = random.Random(0)
    content = b" ".join(b"%d" % numbers.randrange(10_000) for _ in range(60_000))
    data, patch = tar(("toy-bin/a.bin", content)), DAMAGE[damage]
    middle = len(data) // 2
    rest = b"" if patch is None else patch + data[middle + len(patch) :]
    archive = tmp_path / "toy.tar.gz"
    archive.write_bytes(data[:middle] + rest)
    with pytest.raises(ValueError, match="not a whole archive"):
        extract(archive, tmp_path / "toy-bin", {"a.bin": len(content)})
    assert names(tmp_path / "toy-bin") == []
