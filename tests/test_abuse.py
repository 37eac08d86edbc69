"""The server under those who mean it harm: floods, bombs, made-up requests, hostile models."""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.cli import main
from test_serve import GOOD, Server, bomb
from test_serve import server as server  # a fixture
from test_serve import start as start  # and what it needs

CASES = 1000  # of schemathesis
HELD_BYTES = 1 << 30  # beyond what the server held before the bombs


def resident(server: Server) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_half_open_connections_do_not_hold_it_up(server: Server) -> None:
    """300 that begin a request and say no more: it answers others meanwhile, and drops them. How
    soon is in the record of benchmarks/serving.py."""
    opened = []
    try:
        for _ in range(300):
            one = socket.create_connection(("127.0.0.1", server.port), 60)
            one.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\n")
            opened.append(one)
        assert server.ask("GET", "/healthz")[0] == 200
        assert server.classify(GOOD)[0] == 200
        for one in opened[:3]:
            one.settimeout(120)
            with suppress(ConnectionResetError):
                assert one.recv(1) == b"", "dropped"
    finally:
        for one in opened:
            one.close()


def large() -> bytes:
    """24.9 of the 25 million pixels that are allowed, in a few kilobytes."""
    out = io.BytesIO()
    Image.new("1", (5000, 4980)).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize(
    "kind", ["beyond the limit", pytest.param("within the limit", marks=pytest.mark.slow)]
)
def test_fifty_pixel_bombs_at_once(server: Server, kind: str) -> None:
    """None is answered by a fault, memory is that of two decoders, and the next one is served."""
    data, said = (bomb(), 422) if kind == "beyond the limit" else (large(), 200)
    before = resident(server)
    with ThreadPoolExecutor(50) as pool:
        answers = Counter(pool.map(lambda _: server.classify(data)[0], range(50)))
    assert set(answers) <= {said, 503}
    assert answers[said] >= 1
    assert resident(server) - before < HELD_BYTES
    assert server.classify(GOOD)[0] == 200
    assert "Traceback" not in server.log.read_text()


def test_too_long_a_body_is_not_read_to_its_end(server: Server) -> None:
    """Who says that a terabyte comes is refused before it does; who says nothing, at the limit."""
    for header in (f"Content-Length: {2**40}", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", server.port), 60) as one:
            one.sendall(f"POST /classify HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
            one.settimeout(120)
            sent = 0
            with suppress(ConnectionError):
                while "chunked" in header and sent < 64 * 2**20:
                    one.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                    sent += 65536
            try:
                answer = one.recv(65536)
            except ConnectionResetError:  # it hung up, with more unread than it wanted
                assert "chunked" in header
            else:
                assert answer.startswith(b"HTTP/1.1 413")
            assert sent < 64 * 2**20
        assert server.classify(GOOD)[0] == 200


@pytest.mark.slow
def test_made_up_requests_against_the_description(server: Server) -> None:
    """schemathesis: a thousand requests, right and wrong, drawn from /openapi.json; each answer is
    one that the document promises."""
    schemathesis: Any = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from hypothesis import HealthCheck, given, settings

    # What the document calls bytes are not all images, and those are refused.
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    paths = {operation.path for operation in operations}
    assert paths == {"/classify", "/explain", "/model", "/healthz", "/readyz", "/metrics"}
    seen: Counter[str] = Counter()
    # Those without parameters have one request each; the others share what is left.
    drawn = CASES // 2
    for operation in operations:
        modes = schemathesis.GenerationMode
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            if mode is modes.NEGATIVE and operation.path not in ("/classify", "/explain"):
                continue

            @settings(
                max_examples=drawn // 2, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def hold(case: Any) -> None:
                seen[case.operation.path] += 1
                answer = case.call()
                assert answer.status_code < 500 or answer.status_code == 503
                case.validate_response(answer, excluded_checks=[positive_data_acceptance])

            hold()
    assert sum(seen.values()) >= CASES, seen
    assert "Traceback" not in server.log.read_text()
    assert server.classify(GOOD)[0] == 200


# Hostile runs: what is served comes from others, too.


class Hostile:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


def pickled(run: Path) -> None:
    for file in run.glob("checkpoints/step-*/model.safetensors"):
        file.write_bytes(pickle.dumps(Hostile()))


def pickled_zip(run: Path) -> None:
    for file in run.glob("checkpoints/step-*/model.safetensors"):
        torch.save({"model": Hostile()}, file)


def damaged(run: Path) -> None:
    for file in run.glob("checkpoints/step-*/model.safetensors"):
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)


def huge_header(run: Path) -> None:
    for file in run.glob("checkpoints/step-*/model.safetensors"):
        file.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def other_model(run: Path) -> None:
    saved = json.loads((run / "recipe.json").read_text())
    saved["recipe"]["model"] = "os.system"
    (run / "recipe.json").write_text(json.dumps(saved))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "pickle": pickled, "torch file": pickled_zip, "flipped bit": damaged,
    "header of exabytes": huge_header, "model": other_model,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_is_not_served(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Exit 2, one line, and nothing in it was run."""
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    HOSTILE[name](run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("is served"))
    capsys.readouterr()
    assert main(["serve", str(run), "--port", "0"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_hostile_onnx_file_is_not_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """An operator of somebody's library, and weights in another file, are refused by `test`, which
    runs ONNX files, in one line; the canary stays."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    canary = tmp_path / "canary.bin"
    canary.write_bytes(np.zeros(4, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--format", "onnx", "--out", "net.onnx"]) == 0
    said = json.loads(Path("net.onnx.certificate.json").read_text())
    for change in ("operator", "outside"):
        model = onnx.load("net.onnx")
        if change == "operator":
            model.graph.node[0].domain = "evil.library"
            model.graph.node[0].op_type = "System"
        else:
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="../../../../../../etc/passwd")
        content = model.SerializeToString()
        Path("bad.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        Path("bad.onnx.certificate.json").write_text(json.dumps({**said, "sha256": digest}))
        capsys.readouterr()
        assert main(["test", "bad.onnx", "--certificate"]) in (1, 2)
        heard = capsys.readouterr()
        assert "Traceback" not in heard.err + heard.out
        assert canary.exists()
