"""The server as a process of its own: what it answers, what it refuses, how it ends."""

import base64
import http.client
import io
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.data import reopen_dataset
from alexnet.errors import UsageError
from alexnet.serving import open_index
from conftest import Launch, patterns

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")


@dataclass
class Server:
    process: BaseProcess
    port: int
    run: Path
    log: Path

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in small letters, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def classify(self, data: bytes, query: str = "", **headers: str) -> tuple[int, Any]:
        headers = {"Content_Type": "application/octet-stream", **headers}
        status, _, body = self.ask("POST", f"/classify{query}", data, **headers)
        return status, json.loads(body)


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def start(launch: Launch, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """start(*flags) -> a server that is ready."""

    def run(*flags: object) -> Server:
        place = tmp_path_factory.mktemp("serve")
        copy = Path(shutil.copytree(trained, place / "run", symlinks=True))
        log = place / "log"
        process = launch(["serve", copy, "--port", 0, *flags], log)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            found = re.search(r"http://[^/]*:(\d+)/", log.read_text() if log.exists() else "")
            assert process.is_alive(), log.read_text()
            if found:
                server = Server(process, int(found[1]), copy, log)
                try:
                    if server.ask("GET", "/readyz")[0] == 200:
                        return server
                except OSError:
                    pass
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    return run


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start()


def stop(server: Server) -> None:
    server.process.terminate()
    server.process.join(60)


def png(array: Any, kind: str = "png") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def form(*files: bytes, name: str = "files") -> tuple[bytes, str]:
    parts = [
        f'--X\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.png"\r\n\r\n'.encode()
        + data + b"\r\n"
        for i, data in enumerate(files)
    ]  # fmt: skip
    return b"".join(parts) + b"--X--\r\n", "multipart/form-data; boundary=X"


IMAGES, LABELS = patterns(10, seed=9)
GOOD = png(IMAGES[0])


# What it answers


def test_the_same_as_classify(server: Server) -> None:
    """Body, form and many at once, and every probability that of the run itself."""
    expected = alexnet.load(server.run).predict([png(image) for image in IMAGES])
    status, one = server.classify(png(IMAGES[3]), "?top=3", Content_Type="image/png")
    assert status == 200
    top = one["results"][0]["top"]
    assert [entry["index"] for entry in top] == np.argsort(-expected[3], kind="stable")[:3].tolist()
    assert top[0]["class"] == str(LABELS[3])
    assert top[0]["probability"] == pytest.approx(expected[3].max(), abs=1e-5)
    assert one["ms"].keys() == {"receive", "decode", "wait", "network", "total"}
    body, kind = form(*map(png, IMAGES))
    status, many = server.classify(body, Content_Type=kind)
    assert status == 200
    assert [r["name"] for r in many["results"]] == [f"{i}.png" for i in range(10)]
    assert [r["top"][0]["index"] for r in many["results"]] == expected.argmax(1).tolist()
    assert many["batch"] == 10


def test_requests_share_batches_and_keep_their_own_answers(server: Server) -> None:
    expected = alexnet.load(server.run).predict([png(image) for image in IMAGES]).argmax(1)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: server.classify(png(IMAGES[i % 10])), range(200)))
    assert all(status == 200 for status, _ in answers)
    found = [answer["results"][0]["top"][0]["index"] for _, answer in answers]
    assert found == [int(expected[i % 10]) for i in range(200)]
    assert max(answer["batch"] for _, answer in answers) > 1


def test_model_health_metrics_and_description(server: Server) -> None:
    status, headers, body = server.ask("GET", "/model")
    model = json.loads(body)
    assert (status, model["model"], model["draw"]) == (200, "alexnet-28", True)
    assert model["classes"] == [str(i) for i in range(10)]
    assert str(server.run) not in body.decode()
    assert headers["x-content-type-options"] == "nosniff"
    for path in ("/healthz", "/readyz"):
        assert server.ask("GET", path)[0] == 200
    server.classify(GOOD)
    counted = server.ask("GET", "/metrics")[2].decode()
    assert re.search(r'alexnet_requests_total\{path="/classify",status="200"\} [1-9]', counted)
    assert re.search(r"^alexnet_images_total [1-9]", counted, re.M)
    assert re.search(r"^alexnet_pending 0", counted, re.M)
    described = json.loads(server.ask("GET", "/openapi.json")[2])
    assert set(described["paths"]) == {
        "/classify", "/explain", "/model", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip


def shown(address: str) -> Any:
    """The pixels of a data: address."""
    kind, _, coded = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(coded))) as image:
        return np.asarray(image)


def test_explain_shows_what_inspect_does(server: Server, tmp_path: Path) -> None:
    """Evidence is Grad-CAM's, the filters the first layer's strongest; without an index no
    neighbours."""
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for file, pixels in zip(files, IMAGES, strict=True):
        file.write_bytes(png(pixels))
    told = alexnet.inspect(server.run, "saliency", files, method="grad-cam")
    peaks = [one.maps["grad-cam"] for one in told.images]
    assert any(peak.largest > 0 for peak in peaks)
    for i, peak in enumerate(peaks):
        status, _, body = server.ask("POST", "/explain", png(IMAGES[i]))
        found = json.loads(body)
        assert (status, found["class"]) == (200, str(LABELS[i]))
        evidence, place = found["evidence"], (peak.row + 0.5, peak.column + 0.5)
        heat = shown(evidence["picture"])
        assert heat.shape == (28, 28, 4)
        assert evidence["part"] == told.part
        if peak.largest > 0:
            assert (28 * evidence["row"], 28 * evidence["column"]) == pytest.approx(place)
            assert divmod(int(heat[..., 3].argmax()), 28) == (peak.row, peak.column)
        else:
            assert (evidence["row"], int(heat[..., 3].max())) == (None, 0)
    assert (found["neighbors"], found["indexed"]) == (None, 0)
    assert (shown(found["input"]) == IMAGES[9]).all()
    maps = alexnet.inspect(server.run, "activations", [files[9]], part="relu1")
    channels = [f["channel"] for f in found["filters"]]
    assert channels == list(maps.images[0].channels[:8])
    assert shown(found["filters"][0]["kernel"]).shape == (3, 3)
    other = json.loads(server.ask("POST", "/explain?label=2", png(IMAGES[3]))[2])
    assert (other["index"], other["class"]) == (2, "2")


def test_explain_refuses(server: Server) -> None:
    for query, body, kind, status, words in (
        ("?label=10", GOOD, "", 422, "label"),
        ("?label=x", GOOD, "", 422, "label"),
        ("", b"noise", "", 422, "not an image"),
        ("", b"", "", 400, "no image"),
        ("", *form(GOOD, GOOD), 413, "one image"),
    ):
        found, _, said = server.ask("POST", f"/explain{query}", body, Content_Type=kind)
        assert (found, list(json.loads(said))) == (status, ["error"])
        assert words in json.loads(said)["error"]


def test_an_index_finds_what_inspect_finds(start: Start, tmp_path: Path) -> None:
    """The nearest training images of /explain are those of `inspect neighbors`, by name and
    distance; the index is kept, and not believed where it is of other weights."""
    server = start("--index")
    found = json.loads(server.ask("POST", "/explain", png(IMAGES[5]))[2])
    file = tmp_path / "a.png"
    file.write_bytes(png(IMAGES[5]))
    told = alexnet.inspect(server.run, "neighbors", [file]).neighbors[0].near["relu7"]
    assert [n["image"] for n in found["neighbors"]] == [n.image for n in told]
    assert [n["distance"] for n in found["neighbors"]] == pytest.approx(
        [n.distance for n in told], rel=1e-4
    )
    assert {n["class"] for n in found["neighbors"]} == {str(LABELS[5])}
    stop(server)
    predictor = alexnet.load(server.run)
    dataset = reopen_dataset(predictor.recipe, predictor.data)
    built = open_index(predictor, dataset)
    first = shown(found["neighbors"][0]["picture"])
    row = built.names.index(found["neighbors"][0]["image"])
    assert (first == built.images.read(np.array([row]))[0, ..., 0]).all()

    file = server.run / "index/features.npy"
    kept = file.stat().st_ino
    open_index(predictor, dataset)
    assert file.stat().st_ino == kept, "built once"
    said = json.loads((server.run / "index/index.json").read_text())
    (server.run / "index/index.json").write_text(json.dumps({**said, "weights": "others"}))
    open_index(predictor, dataset)
    file.write_bytes(file.read_bytes()[:-9])
    again = open_index(predictor, dataset)
    assert (again.features == built.features).all()


def test_the_page_asks_nobody_else(server: Server) -> None:
    status, headers, body = server.ask("GET", "/")
    page = body.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "http://" not in page


def test_onnx_engine(start: Start) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    server = start("--engine", "onnx")
    expected = alexnet.load(server.run).predict([GOOD])[0]
    top = server.classify(GOOD)[1]["results"][0]["top"]
    assert top[0]["probability"] == pytest.approx(expected.max(), abs=1e-5)
    stop(server)


# What it refuses


BIG = 8 * 2**20 + 1


def bomb() -> bytes:
    """A kilobyte or so that says it is 36 million pixels."""
    return png(np.zeros((6000, 6000), np.uint8) == 1)


def chunked(total: int) -> Iterator[bytes]:
    for _ in range(total // 65536 + 1):
        yield bytes(65536)


Case = Callable[[], tuple[Any, dict[str, str]]]
REFUSED: dict[str, tuple[Case, int, str]] = {
    "no body": (lambda: (b"", {}), 400, "no image"),
    "noise": (lambda: (b"noise" * 99, {}), 422, "not an image"),
    "cut short": (lambda: (GOOD[:-30], {}), 422, "cannot be decoded"),
    "text": (lambda: (b"hello", {"Content_Type": "text/plain"}), 415, "text/plain"),
    "json": (lambda: (b"{}", {"Content_Type": "application/json"}), 415, "application/json"),
    "pixel bomb": (lambda: (bomb(), {}), 422, "25,000,000"),
    "too long": (lambda: (bytes(BIG), {}), 413, "8,388,608"),
    "too long, no length": (
        lambda: (chunked(BIG), {"Transfer_Encoding": "chunked"}), 413, "8,388,608",
    ),
    "a form without a boundary": (
        lambda: (b"x", {"Content_Type": "multipart/form-data"}), 400, "form",
    ),
    "a form cut short": (
        lambda: (form(GOOD)[0][:40], {"Content_Type": form(GOOD)[1]}), 400, "",
    ),
    "too many": (
        lambda: (form(*[GOOD] * 33)[0], {"Content_Type": form()[1]}), 413, "32 images",
    ),
    "one of three": (
        lambda: (form(GOOD, b"noise", GOOD)[0], {"Content_Type": form()[1]}), 422, "1.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server: Server, name: str) -> None:
    make, status, words = REFUSED[name]
    body, headers = make()
    try:
        found, answer = server.classify(body, **headers)
    except (BrokenPipeError, ConnectionResetError):  # it hung up on what it will not read
        assert status == 413
    else:
        assert (found, list(answer)) == (status, ["error"])
        assert words in answer["error"]
        assert "\n" not in answer["error"]
    assert server.classify(GOOD)[0] == 200, "the next one is served"
    assert "Traceback" not in server.log.read_text()


def test_top_out_of_range(server: Server) -> None:
    for top in ("0", "-1", "many", "9999"):
        status, answer = server.classify(GOOD, f"?top={top}")
        assert (status, list(answer)) == (422, ["error"])
        assert "top" in answer["error"]


def test_a_token_is_needed_where_one_is_set(start: Start) -> None:
    server = start("--token", "s3cret")
    for path in ("/", "/healthz", "/readyz"):
        assert server.ask("GET", path)[0] == 200
    for path in ("/model", "/metrics", "/openapi.json"):
        assert server.ask("GET", path)[0] == 401
    for wrong in ("", "Bearer", "Bearer s3cre", "s3cret", "Bearer s3cret "):
        status, answer = server.classify(GOOD, Authorization=wrong)
        assert (status, list(answer)) == ((200 if wrong == "Bearer s3cret " else 401), list(answer))
    assert server.classify(GOOD, Authorization="Bearer s3cret")[0] == 200
    stop(server)


def test_sigterm_answers_what_has_begun(start: Start) -> None:
    """A request whose body is still coming is answered; the process ends with 143; no file left."""
    server = start()
    before = set(server.run.rglob("*"))
    one = socket.create_connection(("127.0.0.1", server.port), 10)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n\r\n"
    one.sendall(head.encode() + GOOD[:50])
    time.sleep(0.5)
    server.process.terminate()
    time.sleep(0.5)
    assert server.process.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), 2)
    one.sendall(GOOD[50:])
    one.settimeout(20)
    assert one.recv(65536).startswith(b"HTTP/1.1 200")
    one.close()
    server.process.join(30)
    assert server.process.exitcode == 143
    assert "Traceback" not in server.log.read_text()
    assert set(server.run.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "token="),
        ({"host": "example.org"}, "127.0.0.1"),
        ({"port": 70000}, "port=70000"),
        ({"token": ""}, "token="),
        ({"data": "x"}, "index=True"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    trained: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        alexnet.serve(trained, **options)


def test_a_port_that_is_taken(trained: Path, server: Server) -> None:
    with pytest.raises(UsageError, match="choose another port="):
        alexnet.serve(trained, port=server.port)


def test_answers_are_sent_at_once(server: Server) -> None:
    """Without Nagle's algorithm, which keeps a body back until its head is acknowledged: at most
    40 ms later, once a connection has been used a while."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    taken = []
    for _ in range(60):
        began = time.perf_counter()
        connection.request("GET", "/model")
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
        taken.append(time.perf_counter() - began)
    connection.close()
    assert min(taken[30:]) < 0.03


def test_a_server_says_what_it_computes_in(start: Start, server: Server) -> None:
    """Of a run in fp32 that is fp32 unasked, and bf16 where that is asked for: other answers."""
    other = start("--precision", "bf16")
    found = {}
    for one, precision in ((server, "fp32"), (other, "bf16")):
        assert json.loads(one.ask("GET", "/model")[2])["precision"] == precision
        answer = json.loads(one.ask("POST", "/classify?top=10", GOOD)[2])
        assert answer["precision"] == precision
        found[precision] = {t["class"]: t["probability"] for t in answer["results"][0]["top"]}
    assert found["fp32"] == pytest.approx(found["bf16"], abs=0.1)
    assert found["fp32"] != found["bf16"]
    stop(other)
