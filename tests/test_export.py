"""Exports compute what the network does, or are not written; certificates prove it again."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import alexnet
from alexnet.data import Preprocess, Statistics
from alexnet.errors import CheckpointError, Differs, Unavailable, UsageError
from alexnet.interchange import Exportable, check_export, to_onnx, to_torchvision
from alexnet.models import Linear, Net, ResponseNorm, find_model, narrowed
from overflows import overflowing_run

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
ort = pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def outputs(model: bytes, inputs: Any) -> Any:
    """By onnxruntime as anybody calls it, with nothing of this package."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": inputs})[0]


@pytest.mark.parametrize("inside", [False, True])
def test_onnx_gives_what_the_run_gives(run: Path, tmp_path: Path, inside: bool) -> None:
    file = tmp_path / "net.onnx"
    made = alexnet.export(run, format="onnx", out=file, preprocess=inside)
    assert made.verified.images == "60 of val"
    predictor = alexnet.load(run)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    expected = predictor.predict(list(pixels))
    if inside:
        found = outputs(file.read_bytes(), pixels)
    else:
        x = predictor.preprocess.views(torch.from_numpy(pixels), 1)[0]
        found = torch.from_numpy(outputs(file.read_bytes(), x.numpy())).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    model = onnx.load(file)
    about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert about["classes"] == list(predictor.classes)
    assert about["recipe_digest"] == predictor.recipe.digest
    assert about["preprocessing"]["size"] == 28
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [d.dim_value for d in shape][1:] == ([28, 28, 1] if inside else [1, 28, 28])
    assert model.graph.output[0].name == ("probabilities" if inside else "logits")


NORMS = [
    ResponseNorm(5, 1e-2, 0.75, 2.0),
    ResponseNorm(5, 1e-2, 0.75, 1.0, divide=True, groups=2),
    ResponseNorm(4, 1e-2, 0.5, 1.0),
    ResponseNorm(3, 1e-2, 0.75, 1.0, divide=True, window="map"),
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_response_norm_in_onnx(norm: ResponseNorm) -> None:
    """Against torch's own norm, which shares no line with ours; there alpha is divided by n."""
    model = Net([norm, Linear("fc1", 3)], (8, 6, 6))
    images = torch.randint(0, 256, (5, 6, 6, 8), dtype=torch.uint8, generator=torch.manual_seed(0))
    preprocess = Preprocess(6, 6, 8, Statistics((127.0,) * 8, (12.0,) * 8, ()), "std")
    subject = Exportable.of(model, preprocess, images, {}, with_preprocessing=False)
    content, proof = to_onnx(subject)
    assert proof.largest_difference < 1e-5 * max(proof.largest_output, 1)
    x, n = subject.inputs, norm.n
    alpha = norm.alpha * (1 if norm.divide else n)
    if norm.window == "map":
        squares = F.avg_pool2d(F.pad(x * x, (n // 2,) * 4), n, 1) * n * n
        expected = x / (norm.k + norm.alpha / (n * n) * squares) ** norm.beta
    else:
        parts = [
            F.local_response_norm(p, n, alpha, norm.beta, norm.k) for p in x.chunk(norm.groups, 1)
        ]
        expected = torch.cat(parts, 1)
    with torch.inference_mode():
        wanted = model.part("fc1")(expected.flatten(1))
    np.testing.assert_allclose(outputs(content, x.numpy()), wanted, rtol=1e-4, atol=1e-4)


def test_a_narrow_alexnet_in_onnx() -> None:
    """The oddities of the family at its own size: towers, rounding up, norms in maps, the paper's
    dropout; with the mean image inside."""
    image = torch.rand(230, 230, 3) * 255
    preprocess = Preprocess(230, 227, 3, Statistics((1.0,) * 3, (1.0,) * 3, (), image), "centre")
    model = Net(narrowed(find_model("alexnet-2012-code").spec(7), 16), (3, 227, 227))
    pixels = torch.randint(0, 256, (3, 230, 230, 3), dtype=torch.uint8)
    _, proof = to_onnx(Exportable.of(model, preprocess, pixels, {}, with_preprocessing=True))
    assert proof.largest_difference <= 1e-5


@pytest.mark.parametrize("rule", ["std", "mean", "image", "centre", "torchvision"])
def test_preprocessing_inside_is_the_preprocessing_of_views(rule: Any) -> None:
    image = torch.rand(12, 12, 3) * 255
    statistics = Statistics((100.0, 120.0, 90.0), (50.0, 60.0, 70.0), (), image)
    preprocess = Preprocess(12, 9, 3, statistics, rule)
    model = Net([Linear("fc1", 4)], (3, 9, 9))
    pixels = torch.randint(0, 256, (6, 12, 12, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter *= 0.01  # every class is to have a probability that a float32 tells from 0
        expected = model(preprocess.views(pixels, 1)[0]).log_softmax(1)
        found = (
            Exportable.of(model, preprocess, pixels, {}, with_preprocessing=True)
            .module(pixels)
            .log()
        )
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [lambda y: y + 2e-5, lambda y: y.flip(1), lambda y: y[:, :-1], lambda y: y * float("nan")],
    ids=["apart", "order", "shape", "nan"],
)
def test_another_function_is_refused(change: Any) -> None:
    net = nn.Linear(3, 7)
    inputs = torch.randn(9, 3) / 10
    assert check_export(net, net, inputs, "it").largest_difference == 0
    with pytest.raises(Differs, match="it"):
        check_export(net, lambda x: change(net(x)), inputs, "it")


def test_an_order_that_differs_within_rounding_is_no_fault() -> None:
    """As of a dead network, whose classes all tie."""
    flat = torch.zeros(64, 9)
    noise = torch.randn(64, 9) * 1e-7
    check_export(lambda x: flat[: len(x)], lambda x: noise[: len(x)], torch.zeros(4, 1), "it")


def test_nothing_is_written_where_verification_fails(trained: Path, tmp_path: Path) -> None:
    run = overflowing_run(trained, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Differs, match="nothing was written"):
        alexnet.export(run, format="onnx", out=tmp_path / "net.onnx")
    assert sorted(tmp_path.iterdir()) == before


def test_without_its_data_a_run_is_verified_on_drawn_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "recipe.json"
    said = json.loads(file.read_text())
    said["data"]["path"] = str(tmp_path / "moved")
    file.write_text(json.dumps(said))
    made = alexnet.export(run, format="safetensors", out=tmp_path / "net.safetensors")
    assert made.verified.images == "drawn"
    assert "warning: verified on drawn images" in capsys.readouterr().err


def test_int8(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    found = alexnet.export(run, format="onnx", out=file, int8=True, preprocess=True).int8
    assert found.calibration_images == 30
    assert found.fp32.n == found.int8.n == 30
    assert found.int8.top1 >= found.fp32.top1 - 0.1
    assert found.int8.bytes < found.fp32.bytes / 2.5
    kinds = {i.data_type for i in onnx.load(file).graph.initializer if len(i.dims) > 1}
    assert onnx.TensorProto.INT8 in kinds
    assert alexnet.test(file, certificate=True).holds


def test_torchvision_state_dict(tmp_path: Path) -> None:
    """Loads, strictly, into torchvision's alexnet written out, a 16th as wide: equal logits."""
    features = [
        *(nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)),
        *(nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Dropout(), nn.Linear(576, 256), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 6)),
    ]
    theirs = nn.Module()
    theirs.add_module("features", nn.Sequential(*features))
    theirs.add_module("avgpool", nn.AdaptiveAvgPool2d(6))
    theirs.add_module("classifier", nn.Sequential(*classifier))
    preset = find_model("alexnet-2014")
    model = Net(narrowed(preset.spec(6), 16), (3, 70, 70), keys=preset.keys)
    preprocess = Preprocess(80, 70, 3, Statistics((0.0,) * 3, (1.0,) * 3, ()), "torchvision")
    images = torch.randint(0, 256, (5, 80, 80, 3), dtype=torch.uint8)
    content, _ = to_torchvision(
        Exportable.of(model, preprocess, images, {}, with_preprocessing=False)
    )
    file = tmp_path / "alexnet.pth"
    file.write_bytes(content)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    theirs.eval()
    x = torch.randn(2, 3, 70, 70)
    with torch.inference_mode():
        y = theirs.classifier(theirs.avgpool(theirs.features(x)).flatten(1))
        torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


def test_hub_folder(run: Path, tmp_path: Path) -> None:
    alexnet.test(run)
    folder = tmp_path / "hub"
    alexnet.export(run, format="safetensors", out=folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["3"] == "3"
    assert config["architectures"] == ["alexnet-28"]
    card = (folder / "README.md").read_text()
    test = alexnet.load(run).run.events()[-1]
    assert f"| test | {test.n} | {100 * test.top1:.2f} % (" in card
    assert "{" not in card
    own = alexnet.load(run).model.state_dict()
    theirs = load_file(folder / "model.safetensors")
    assert all(torch.equal(own[name], value) for name, value in theirs.items())
    with pytest.raises(UsageError, match="choose another out="):
        alexnet.export(run, format="safetensors", out=folder)


def test_push_without_a_network_is_one_line(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    with pytest.raises(Unavailable, match="cannot push to 'nobody/nothing//'"):
        alexnet.export(run, format="safetensors", out=tmp_path / "hub", push="nobody/nothing//")
    assert (tmp_path / "hub/certificate.json").is_file(), "what was written stays"


# Certificates


@pytest.mark.parametrize(
    "given", [{"engine": "int8"}, {"views": 10}, {"split": "val"}, {"checkpoint": "last"}]
)
def test_what_a_proof_would_not_heed_is_refused(run: Path, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"leave {next(iter(given))}=... out"):
        alexnet.test(run, certificate=True, **given)


def test_a_run_carries_a_certificate_that_holds(run: Path) -> None:
    proof = alexnet.test(run, certificate=True)
    assert proof.holds
    assert {check.name for check in proof.checks} >= {"weights", "logits", "recipe"}
    assert [c.name for c in proof.checks][-1] == "top-1 on val"


@pytest.mark.parametrize("what", ["weight", "claim", "logit"])
def test_a_changed_file_is_found_out(run: Path, tmp_path: Path, what: str) -> None:
    file = tmp_path / "net.safetensors"
    alexnet.export(run, format="safetensors", out=file)
    assert alexnet.test(file, certificate=True).holds
    place = file.with_name("net.safetensors.certificate.json")
    said = json.loads(place.read_text())
    if what == "weight":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif what == "claim":
        said["metrics"]["val"] |= {"top1": 0.2, "top1_ci95": [0.1, 0.3]}
        said["data"]["kind"] = "digits"
    else:  # a forger makes the sha256 right, and not the logits
        tensors = load_file(file)
        tensors["fc8.bias"][0] += 0.5
        save_file(tensors, file)
        said["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    place.write_text(json.dumps(said))
    data = json.loads((run / "recipe.json").read_text())["data"]["path"]
    proof = alexnet.test(file, certificate=True, data=data)
    assert not proof.holds
    failed = {check.name for check in proof.checks if not check.ok}
    assert failed == {{"weight": "weights", "claim": "top-1 on val", "logit": "logits"}[what]}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("probes"),
        lambda c: c["probes"].update(logits=[[0.0]]),
        lambda c: c["probes"].update(tolerance=9),
        lambda c: c.update(format=7),
        lambda c: c["recipe"].update(crop=20),
        lambda c: c.update(classes=3),
    ],
)
def test_a_broken_certificate_is_one_line(run: Path, change: Any) -> None:
    place = run / "certificate.json"
    said = json.loads(place.read_text())
    change(said)
    place.write_text(json.dumps(said))
    with pytest.raises(CheckpointError):
        alexnet.test(run, certificate=True)


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"format": "torchvision", "out": "a.pth"}, "alexnet-2014"),
        ({"format": "torchvision", "out": "a.pth", "preprocess": True}, "preprocess=True"),
        ({"format": "safetensors", "out": "a", "int8": True}, "int8=True"),
        ({"format": "onnx", "out": "a.onnx", "push": "me/it"}, "push=..."),
        ({"format": "onnx", "out": "run/recipe.json"}, "choose another out="),
        ({"format": "onnx", "out": "nowhere/a.onnx"}, "is no folder"),
        ({"format": "tflite", "out": "a"}, "one of onnx"),
    ):
        with pytest.raises(UsageError, match=words):
            alexnet.export(run, **{**options, "out": tmp_path / options["out"]})  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_torch_export_is_proved_without_being_read(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    alexnet.export(run, format="torch-export", out=file)
    x = torch.randn(3, 1, 28, 28)
    with torch.inference_mode():
        program = torch.export.load(file).module()
        torch.testing.assert_close(program(x), alexnet.load(run).model(x), rtol=1e-5, atol=1e-5)
    proof = alexnet.test(file, certificate=True)
    assert proof.holds
    assert "unpickled" in proof.skipped[0]
