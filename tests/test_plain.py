"""ALEXNET_PLAIN=1 turns every fast way off; each gives what its plain way does, and is not missed
where torch lacks the private part that it needs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet import build_model, response_norm
from alexnet.models import Conv, has_int8
from alexnet.models.fast import Product, Steps, StridedConv, order_of_training_step
from alexnet.serving import choose_protocol
from alexnet.training import PaperSGD
from conftest import without_pictures

TRAIN = (
    "--steps", "3", "--batch-size", "16", "--precision", "fp32", "--workers", "0", "--doctor",
    "off", "--log-every", "1", "--model", "alexnet-2012-32", "--channels", "1", "--size", "32",
    "--crop", "32", "--opt", "sgd", "--lr", "0.01", "--schedule", "constant",
)  # fmt: skip

Both = Callable[[Callable[[], Any]], tuple[Any, Any]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """both(f): what f returns by fast ways and by plain ones."""

    def run(f: Callable[[], Any]) -> tuple[Any, Any]:
        found = []
        for switch in ("0", "1"):
            monkeypatch.setenv("ALEXNET_PLAIN", switch)
            torch.manual_seed(0)
            found.append(f())
        return found[0], found[1]

    return run


@pytest.mark.parametrize("window", ["channels", "map"])
def test_response_norm(both: Both, window: Any) -> None:
    def norm() -> tuple[Tensor, Tensor]:
        x = (30 * torch.randn(4, 32, 27, 27)).requires_grad_()
        y = response_norm(x, window=window, groups=2)
        y.square().sum().backward()
        assert x.grad is not None
        return y.detach(), x.grad

    for fast, plain in zip(*both(norm), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_update_of_weights(both: Both, momentum: float) -> None:
    def train() -> Tensor:
        w = nn.Parameter(torch.randn(64, 33))
        optimizer = PaperSGD([w], lr=0.01, momentum=momentum, weight_decay=5e-4)
        for _ in range(20):
            w.grad = w.detach().sin()
            optimizer.step()
        return w.detach()

    fast, plain = both(train)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


def test_strided_convolution(both: Both) -> None:
    """Outputs and gradients; by blocks no convolution over three channels is called."""

    def convolve() -> tuple[Tensor, Tensor]:
        layer = Conv("conv1", 96, 11, 4, 2).build((3, 63, 63))
        assert isinstance(layer, StridedConv)
        y = layer(torch.randn(2, 3, 63, 63))
        y.square().sum().backward()
        assert layer.weight.grad is not None
        return y.detach(), layer.weight.grad

    for fast, plain in zip(*both(convolve), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-3)


def test_order_of_parts(both: Both) -> None:
    net = build_model("alexnet-2014", 10)
    parts = {name: net.part(name) for name in net.parts}
    fast, plain = both(lambda: order_of_training_step(parts))
    assert plain == list(net.parts)
    assert sorted(fast) == sorted(plain)
    assert fast.index("pool1") + 1 == fast.index("relu1")


@pytest.mark.skipif(not has_int8(), reason="this processor has no exact products of integers")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(70, 9), (5, 70)),
        (nn.Conv2d(8, 12, 3, padding=1, groups=2), (2, 8, 9, 9)),
        (nn.Conv2d(6, 5, 5, stride=2), (2, 6, 13, 11)),
    ],
    ids=["linear", "grouped", "strided"],
)
def test_products_of_integers(
    both: Both, layer: nn.Module, shape: tuple[int, ...], relu: bool
) -> None:
    """Integers at most 1 apart, where a sum lies between two; numbers to a relative 1e-5."""
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    given, one = Steps(0.02, 117), torch.Size((1, *shape[1:]))
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for gives in (Steps(0.05, 120), torch.float32):
            fast, plain = both(lambda gives=gives: Product(layer, one, given, gives, relu)(x))
            assert fast.dtype == plain.dtype
            assert fast.shape == plain.shape
            if fast.dtype == torch.uint8:
                apart = (fast.int() - plain.int()).abs()
                assert apart.max() <= 1
                assert apart.float().mean() < 0.01
            else:
                torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def run(words: list[str], preamble: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys, torch\n{preamble}\nfrom alexnet.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "ALEXNET_PLAIN": "", **environ},
        capture_output=True,
        text=True,
    )


def last_loss(folder: Path) -> float:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line).get("loss") for line in lines]
    return next(float(loss) for loss in reversed(losses) if loss is not None)


def test_a_training_in_plain_ways_and_without_the_fast_ones(
    idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures by all; the record says that ways were plain; what lacks is said once."""
    without_pictures(monkeypatch)
    words = ["train", "digits", "--data", str(idx_folder), *TRAIN, "--run"]
    absent = "torch.__dict__.pop('_fused_sgd_')\ndel torch._C._len_torch_dispatch_stack"
    for name, preamble, environ in (
        ("fast", "", {}),
        ("plain", "", {"ALEXNET_PLAIN": "1"}),
        ("absent", absent, {"OMP_NUM_THREADS": "2"}),
    ):
        done = run([*words, str(tmp_path / name)], preamble, **environ)
        assert done.returncode == 0, done.stderr
        environment = json.loads((tmp_path / name / "environment.json").read_text())
        assert environment.get("plain") == (True if name == "plain" else None)
        assert done.stderr.count("has no torch._fused_sgd_") == (name == "absent")
        assert done.stderr.count("has no torch._C._len_torch_dis") == (name == "absent")
    fast = last_loss(tmp_path / "fast")
    assert last_loss(tmp_path / "plain") == pytest.approx(fast, rel=1e-3)
    assert last_loss(tmp_path / "absent") == pytest.approx(fast, rel=1e-3)


def test_another_word_is_refused(idx_folder: Path, tmp_path: Path) -> None:
    words = ["train", "digits", "--data", str(idx_folder), *TRAIN, "--run", str(tmp_path / "x")]
    done = run(words, ALEXNET_PLAIN="yes")
    assert done.returncode == 2
    assert "ALEXNET_PLAIN=yes: it takes 1 (plain ways) or 0 (fast ways)" in done.stderr
    assert "Traceback" not in done.stderr


# The server's connections

REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /c HTTP/1.0\r\n\r\n",
    b"nonsense\r\n\r\n",
)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = (await receive()).get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode() + body})


async def ask(protocol: Any) -> tuple[list[bytes], bool]:
    """The answers to REQUESTS, and whether a silent connection is dropped within two seconds."""
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(
        answer, port=0, http=protocol, ws="none", lifespan="off", log_config=None, date_header=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    silent, closing = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for request in REQUESTS:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answers.append(await asyncio.wait_for(reader.read(1000), 10))
        writer.close()
    try:
        dropped = await asyncio.wait_for(silent.read(1), 2) == b""
    except ConnectionResetError:
        dropped = True
    except TimeoutError:
        dropped = False
    closing.close()
    server.should_exit = True
    await serving
    return answers, dropped


@pytest.mark.parametrize("switch", ["0", "1"])
def test_connections_answer_as_uvicorns_and_do_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv("ALEXNET_PLAIN", switch)
    answers, dropped = asyncio.run(ask(choose_protocol(headers_s=0.5)))
    plain, _ = asyncio.run(ask("h11"))
    assert answers == plain
    assert dropped is (switch == "0")
