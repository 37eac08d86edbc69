"""Downloads from real HTTP servers on this machine: resumed, verified, and refused."""

import hashlib
import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet.data import PUBLISHED_SETS, PublishedSet, RemoteFile, fetch_data_set
from alexnet.errors import DataError, Unavailable, UsageError

FILES = {"a.gz": bytes(range(256)) * 4000, "b.gz": b"labels"}
TOTAL = sum(map(len, FILES.values()))


@dataclass
class Mirror:
    """What a server does and what it was asked: (file, Range header or "")."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    ranges: bool = True
    cut: int | None = None  # hang up after so many bytes of a body
    status: int | None = None
    no_length: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)


def handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.rpartition("/")[2], self.headers.get("Range", "")
            mirror.asked.append((name, wanted))
            body = mirror.files.get(name, b"")
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and mirror.ranges else 0
            if mirror.status or name not in mirror.files or (start and start >= len(body)):
                self.send_error(mirror.status or (416 if name in mirror.files else 404))
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if not mirror.no_length:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = len(body) if mirror.cut is None else start + mirror.cut
            with suppress(ConnectionError):  # the client may have had enough
                self.wfile.write(body[start:end])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
    servers: list[ThreadingHTTPServer] = []

    def start(**behaviour: object) -> Mirror:
        mirror = Mirror(**behaviour)  # type: ignore[arg-type]
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(mirror))
        mirror.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


PUBLISHED = tuple(
    RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
    for name, content in FILES.items()
)
KNOWN = PUBLISHED_SETS | {"tiny": PublishedSet(("http://127.0.0.1:1/",), PUBLISHED)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(name: str, **options: Any) -> Path:
    return fetch_data_set(name, known=KNOWN, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_fetch_and_then_nothing_to_fetch(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    mirror, seen = serve(), []
    folder = fetch(
        "tiny",
        cache=tmp_path,
        mirrors=[mirror.url],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert folder == tmp_path / "tiny"
    assert contents(folder) == FILES
    assert seen == sorted(seen)
    assert seen[-1] == (TOTAL, TOTAL)
    assert len(mirror.asked) == 2
    assert fetch("tiny", cache=tmp_path, offline=True) == folder
    assert fetch("tiny", cache=tmp_path, mirrors=[mirror.url]) == folder
    assert len(mirror.asked) == 2


@pytest.mark.parametrize("no_length", [False, True])
def test_a_cut_download_goes_on(
    serve: Callable[..., Mirror], tmp_path: Path, no_length: bool
) -> None:
    mirror = serve(cut=300_000, no_length=no_length)
    with pytest.raises(Unavailable, match=r"stopped after 300,000 of 1,024,000 bytes"):
        fetch("tiny", cache=tmp_path, mirrors=[mirror.url])
    assert (tmp_path / "tiny" / "a.gz.part").stat().st_size == 300_000
    mirror.cut = None
    seen: list[int] = []
    folder = fetch(
        "tiny", cache=tmp_path, mirrors=[mirror.url], progress=lambda done, _: seen.append(done)
    )
    assert contents(folder) == FILES
    assert ("a.gz", "bytes=300000-") in mirror.asked
    assert seen[0] > 300_000


def test_an_interrupted_download_goes_on(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    mirror = serve()

    def interrupt(done: int, _: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", cache=tmp_path, mirrors=[mirror.url], progress=interrupt)
    kept = (tmp_path / "tiny" / "a.gz.part").stat().st_size
    assert 0 < kept < TOTAL
    assert contents(fetch("tiny", cache=tmp_path, mirrors=[mirror.url])) == FILES
    assert mirror.asked[1] == ("a.gz", f"bytes={kept}-")


def test_a_cut_download_goes_on_at_the_next_mirror(
    serve: Callable[..., Mirror], tmp_path: Path
) -> None:
    first, second = serve(cut=5_000), serve()
    assert contents(fetch("tiny", cache=tmp_path, mirrors=[first.url, second.url])) == FILES
    assert second.asked == [("a.gz", "bytes=5000-")]


@pytest.mark.parametrize("part", [b"", FILES["a.gz"][:999], FILES["a.gz"], FILES["a.gz"] + b"x"])
@pytest.mark.parametrize("ranges", [True, False])
def test_any_part_left_behind(
    serve: Callable[..., Mirror], tmp_path: Path, part: bytes, ranges: bool
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.gz.part").write_bytes(part)
    mirror = serve(ranges=ranges)
    assert contents(fetch("tiny", cache=tmp_path, mirrors=[mirror.url])) == FILES


def test_a_bad_part_is_thrown_away_once(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.gz.part").write_bytes(b"x" * 999)
    mirror = serve()
    assert contents(fetch("tiny", cache=tmp_path, mirrors=[mirror.url])) == FILES
    assert [wanted for name, wanted in mirror.asked if name == "a.gz"] == ["bytes=999-", ""]


def test_range_refused(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.gz.part").write_bytes(FILES["a.gz"][:-1])
    short, good = serve(files={"a.gz": b"short"}), serve()
    folder = fetch("tiny", cache=tmp_path, mirrors=[short.url, good.url])
    assert contents(folder) == FILES
    asked = [wanted for name, wanted in short.asked if name == "a.gz"]
    assert asked == [f"bytes={len(FILES['a.gz']) - 1}-", ""]


def test_wrong_checksum_goes_to_the_next_mirror(
    serve: Callable[..., Mirror], tmp_path: Path
) -> None:
    wrong = serve(files=FILES | {"a.gz": bytes(len(FILES["a.gz"]))})
    right = serve()
    assert contents(fetch("tiny", cache=tmp_path, mirrors=[wrong.url, right.url])) == FILES
    assert [name for name, _ in right.asked] == ["a.gz"]


def test_wrong_checksum_everywhere(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    bad = bytes(len(FILES["a.gz"]))
    mirror = serve(files=FILES | {"a.gz": bad})
    expected, got = (hashlib.sha256(content).hexdigest() for content in (FILES["a.gz"], bad))
    with pytest.raises(DataError, match=rf"a\.gz: SHA-256 {got}, expected {expected}"):
        fetch("tiny", cache=tmp_path, mirrors=[mirror.url])
    assert contents(tmp_path / "tiny") == {}


def test_wrong_file_there_already(serve: Callable[..., Mirror], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.gz").write_bytes(b"mine")
    mirror = serve()
    with pytest.raises(DataError, match=r"a\.gz: SHA-256 \w+, expected \w+; delete it"):
        fetch("tiny", cache=tmp_path, mirrors=[mirror.url])
    assert contents(tmp_path / "tiny") == {"a.gz": b"mine"}
    assert mirror.asked == []


@pytest.mark.parametrize("no_length", [False, True])
def test_more_bytes_than_published(
    serve: Callable[..., Mirror], tmp_path: Path, no_length: bool
) -> None:
    endless = serve(files=FILES | {"a.gz": FILES["a.gz"] * 3}, no_length=no_length)
    message = "sends more than 1,024,000 bytes" if no_length else "offers 3,072,000 bytes"
    with pytest.raises(Unavailable, match=message):
        fetch("tiny", cache=tmp_path, mirrors=[endless.url])
    assert (tmp_path / "tiny" / "a.gz.part").stat().st_size <= len(FILES["a.gz"])


def test_offline_and_unreachable_say_what_to_do(
    serve: Callable[..., Mirror], tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "b.gz").write_bytes(FILES["b.gz"])
    remedy = rf"; put a\.gz into {re.escape(str(tmp_path / 'tiny'))}$"
    with pytest.raises(Unavailable, match=rf"\(offline\){remedy}"):
        fetch("tiny", cache=tmp_path, offline=True)
    broken = serve(status=503)
    with pytest.raises(Unavailable, match=rf"refused.*HTTP 503.*{remedy}") as caught:
        fetch("tiny", cache=tmp_path, mirrors=["http://127.0.0.1:1/", broken.url])
    assert "\n" not in str(caught.value)


def test_offline_touches_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"put a\.gz, b\.gz into"):
        fetch("tiny", cache=tmp_path, offline=True)
    assert list(tmp_path.iterdir()) == []


def test_unknown_name_and_unusable_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'imagenet'.*mnist, fashion-mnist, cifar10"):
        fetch("imagenet", cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/tiny: cannot be used"):
        fetch("tiny", cache=tmp_path / "file")


def test_a_full_disk_is_not_blamed_on_the_mirror(
    serve: Callable[..., Mirror], tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match=r"cannot be used \(File too large"):
            fetch("tiny", cache=tmp_path, mirrors=[serve().url])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given = str(tmp_path / "given")
    for variable, cache in ((given, "given"), ("", "home/.cache"), ("relative", "home/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
        folder = re.escape(str(tmp_path / cache / "alexnet/mnist"))
        with pytest.raises(Unavailable, match=rf"\(offline\); put .* into {folder}$"):
            alexnet.data_get("mnist", offline=True)


def test_published_data_sets_are_complete() -> None:
    for name in ("mnist", "fashion-mnist", "cifar10"):
        data = PUBLISHED_SETS[name]
        assert len(data.mirrors) > 1
        assert all(url.endswith("/") for url in data.mirrors)
        assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in data.files)
        assert len({file.sha256 for file in data.files}) == len(data.files)
