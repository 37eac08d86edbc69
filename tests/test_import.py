"""Weights of others: what is read, what is refused, and what is said of those that were not
trained."""

import argparse
import copy
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import alexnet
from alexnet.cli import main
from alexnet.errors import AlexNetError, CheckpointError, UsageError
from alexnet.interchange import (
    detect_untrained,
    match_layers,
    read_caffe_mean,
    read_caffemodel,
    read_onnx,
)
from alexnet.models import BatchNorm, Net, build_model, find_model, narrowed

MODEL = "mnist-alexnet"  # small, and with response norms


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return build_model(MODEL, 10).eval()


def logits(run: Path, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return alexnet.load(run).model(x)


def save(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state dict": lambda s: s,
    "torchvision reference": lambda s: {
        "model": s, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "lr_scheduler": {"last_epoch": 3}, "epoch": 3,
        "args": argparse.Namespace(lr=0.1, amp=False),
    },
    "pytorch/examples": lambda s: {
        "epoch": 4, "arch": "alexnet", "best_acc1": torch.tensor(56.5),
        "state_dict": {f"module.{k}": v for k, v in s.items()},
    },
    "half precision": lambda s: {k: v.half() for k, v in s.items()},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_torch_files(net: Net, tmp_path: Path, form: str) -> None:
    file = save(tmp_path / "weights.pth", FORMS[form](net.state_dict()))
    run = tmp_path / "run"
    found = alexnet.import_weights(file, model=MODEL, run=run, normalize="torchvision")
    assert found.matched == list(net.state_dict())
    assert found.left == []
    x = torch.randn(3, 1, 28, 28)
    expected = net(x)
    close = 1e-2 if form == "half precision" else 1e-5
    torch.testing.assert_close(logits(run, x), expected, rtol=close, atol=close * 30)


def test_features_wrapped_alone(tmp_path: Path) -> None:
    """As pytorch/examples wraps an AlexNet on several GPUs."""
    file = save(tmp_path / "w.pth", {"features.module.0.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"first tensor is features\.0\.weight"):
        alexnet.import_weights(file, model="alexnet-2014", run=tmp_path / "run")


def test_wrapped_safetensors(net: Net, tmp_path: Path) -> None:
    """DataParallel's prefix is removed there too, as in a file of torch."""
    save_file({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.safetensors")
    run = tmp_path / "run"
    alexnet.import_weights(tmp_path / "w.safetensors", model=MODEL, run=run)
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(logits(run, x), net(x), rtol=1e-5, atol=3e-4)


def test_an_imported_run_does_what_a_run_does(net: Net, tmp_path: Path, idx_folder: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({**net.state_dict(), "extra.weight": torch.ones(3)}, file)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{digit}\n" for digit in range(10)))
    run = tmp_path / "run"
    found = alexnet.import_weights(file, model=MODEL, run=run, classes=names, data=idx_folder)
    assert found.left == ["extra.weight"]
    assert found.n == 200
    assert found.judged.verdict == "random"
    with pytest.raises(AlexNetError, match="name some with data="):
        alexnet.test(run)
    tested = alexnet.test(run, data=idx_folder)
    assert tested.top1 == pytest.approx(found.top1, abs=0.01)
    image = np.zeros((28, 28, 1), np.uint8)
    assert alexnet.load(run).predict([image]).shape == (1, 10)
    proof = alexnet.test(run, certificate=True, data=idx_folder)
    assert proof.holds
    again = alexnet.export(run, format="safetensors", out=tmp_path / "hub", data=idx_folder)
    assert again.verified.largest_difference == 0


def test_an_exported_folder_comes_back_whole(trained: Path, tmp_path: Path) -> None:
    """Weights, classes, preprocessing and recipe digest, without being told any of it."""
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    alexnet.export(run, format="safetensors", out=tmp_path / "hub")
    alexnet.import_weights(tmp_path / "hub", run=tmp_path / "again")
    one, other = alexnet.load(run), alexnet.load(tmp_path / "again")
    assert one.recipe.digest == other.recipe.digest
    assert one.classes == other.classes
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(one.predict(list(pixels)), other.predict(list(pixels)))
    with pytest.raises(UsageError, match="model='caffenet'"):
        alexnet.import_weights(tmp_path / "hub", model="caffenet", run=tmp_path / "third")
    config = tmp_path / "hub/certificate.json"
    config.write_text(config.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(CheckpointError, match="is not the file of its certificate"):
        alexnet.import_weights(tmp_path / "hub", run=tmp_path / "third")
    assert not (tmp_path / "third").exists()


# Caffe: files written here byte by byte, as protobuf's encoding has it.


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: Any, old: bool) -> bytes:
    data = field(5, array.astype("<f4").tobytes())
    if old:  # num, channels, height, width
        shape = (1,) * (4 - array.ndim) + array.shape
        return b"".join(field(i, side) for i, side in enumerate(shape, 1)) + data
    return field(7, field(1, b"".join(map(varint, array.shape)))) + data


def caffemodel(net: Net, old: bool) -> bytes:
    """A net as Caffe writes it, old (V1) or new, blue first, with a layer that has no weights."""
    name = (lambda n: field(4, n)) if old else (lambda n: field(1, n))
    out = field(1, b"CaffeNet")
    out += field(2 if old else 100, name(b"data") + (field(5, 5) if old else field(2, b"Data")))
    for layer in net.layers:
        part: Any = net.part(layer)
        weight, bias = part.weight.detach().numpy(), part.bias.detach().numpy()
        if layer == "conv1":
            weight = weight[:, ::-1]
        conv = weight.ndim == 4
        said = name(layer.encode())
        if old:
            said += field(5, 4 if conv else 14)
        else:
            said += field(2, b"Convolution" if conv else b"InnerProduct")
        for array in (weight, bias):
            said += field(6 if old else 7, blob(np.ascontiguousarray(array), old))
        if conv and part.groups > 1:
            said += field(10 if old else 106, field(5, part.groups))
        out += field(2 if old else 100, said)
    return out


@pytest.fixture
def narrow() -> Net:
    torch.manual_seed(1)
    return Net(narrowed(find_model("caffenet").spec(7), 16), (3, 227, 227)).eval()


@pytest.mark.parametrize("old", [True, False])
def test_caffemodel(narrow: Net, tmp_path: Path, old: bool) -> None:
    pytest.importorskip("google.protobuf", reason="needs the extra onnx")
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(narrow, old))
    layers = read_caffemodel(file)
    assert [layer.name for layer in layers] == narrow.layers
    assert [layer.groups for layer in layers] == [1, 2, 1, 2, 2, 1, 1, 1]
    found = match_layers(layers, narrow, file, bgr=True)
    own = narrow.state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.items())
    assert not torch.equal(
        match_layers(layers, narrow, file, bgr=False)["conv1.weight"], own["conv1.weight"]
    )
    other = Net(narrowed(find_model("caffenet").spec(7), 8), (3, 227, 227))
    with pytest.raises(CheckpointError, match=r"conv1 is \(6, 3, 11, 11\).*model="):
        match_layers(layers, other, file, bgr=True)


def test_caffe_mean(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf", reason="needs the extra onnx")
    image = np.arange(3 * 4 * 4, dtype=np.float32).reshape(1, 3, 4, 4)
    file = tmp_path / "mean.binaryproto"
    file.write_bytes(blob(image, old=True))
    assert read_caffe_mean(file).numpy().tolist() == image[0, ::-1].transpose(1, 2, 0).tolist()


@pytest.mark.slow
def test_a_whole_caffemodel_becomes_a_run(tmp_path: Path) -> None:
    """At its real size: 61 million weights, preprocessing and all."""
    net = build_model("caffenet", 10).eval()
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(net, old=True))
    found = alexnet.import_weights(file, model="caffenet", run=tmp_path / "run")
    assert found.judged["verdict"] == "random"
    assert "normalize mean" in found["expects"]
    x = torch.randn(1, 3, 227, 227)
    torch.testing.assert_close(logits(tmp_path / "run", x), net(x))


def test_onnx_comes_back(net: Net, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    alexnet.import_weights(tmp_path / "w.safetensors", model=MODEL, run=tmp_path / "run")
    alexnet.export(tmp_path / "run", format="onnx", out=tmp_path / "net.onnx")
    (tmp_path / "net.onnx").rename(tmp_path / "other.onnx")  # without its certificate
    found = alexnet.import_weights(tmp_path / "other.onnx", model=MODEL, run=tmp_path / "again")
    assert found.matched == list(net.state_dict())
    own = alexnet.load(tmp_path / "again").model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore")  # of the exporter, on operators of torchvision
@pytest.mark.parametrize("model", ["alexnet-28", "alexnet-bn"])
def test_onnx_with_batch_norms_comes_back(model: str, tmp_path: Path) -> None:
    """Those that stand after a pool are in the file; those right after a layer the exporter has
    made part of it. Either way the network says the same."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    torch.manual_seed(2)
    if model == "alexnet-bn":
        net = Net(narrowed(find_model(model).spec(7), 16), (3, 224, 224))
    else:
        net = build_model(model, 10)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 2.0), (module.bias, -1.0, 1.0),
                (module.running_mean, -1.0, 1.0), (module.running_var, 0.5, 2.0),
            ):  # fmt: skip
                assert isinstance(values, Tensor)
                torch.nn.init.uniform_(values, low, high)
    x = torch.randn(2, *net.input_shape)
    file = tmp_path / "net.onnx"
    torch.onnx.export(net.eval(), (x,), file, dynamo=True, external_data=False, verbose=False)
    layers = read_onnx(file)
    norms = sum(hasattr(one, "variance") for one in layers)
    assert (norms > 0) == (model == "alexnet-28")
    found = match_layers(layers, net, file, bgr=False)
    again = copy.deepcopy(net)
    missing, left = again.load_state_dict(found, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not left
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(again.eval()(x), expected, rtol=1e-4, atol=1e-4)
    if norms:
        plain = [part for part in find_model(model).spec(10) if not isinstance(part, BatchNorm)]
        with pytest.raises(CheckpointError, match="has a batch norm"):
            match_layers(layers, Net(plain, net.input_shape), file, bgr=False)


# Weights that were not trained


def test_trained_and_random_weights_are_told_apart(trained: Path) -> None:
    judged = detect_untrained(alexnet.load(trained).model)  # forty steps: some layers moved
    assert judged.verdict == "half-trained"
    assert "fc6" not in judged.why
    for name in ("alexnet-28", "cifar-alexnet", MODEL):
        judged = detect_untrained(build_model(name))
        assert judged.verdict == "random", name
        assert "largest singular value" in judged.why


def test_half_trained_weights() -> None:
    """Something was learnt in every layer, and the large first filters are still noise."""
    model = Net(narrowed(find_model("caffenet").spec(7), 4), (3, 227, 227))
    with torch.no_grad():
        for name in model.layers:
            w = model.part(name).weight
            assert isinstance(w, Tensor)
            flat = w.view(len(w), -1)
            flat += 0.3 * flat.std() * flat[:, :1].sign() * torch.randn(flat.shape[1])
    assert detect_untrained(model).verdict == "half-trained"
    with torch.no_grad():
        w = model.part("conv1").weight
        assert isinstance(w, Tensor)
        w.copy_(torch.nn.functional.avg_pool2d(w, 5, 1, 2))
    assert detect_untrained(model).verdict == "trained"
    with torch.no_grad():
        w.zero_()
    assert detect_untrained(model).verdict == "constant"


# Refused


class Hostile:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


def hostile(place: Path) -> Path:
    return save(place / "w.pth", {"model": {}, "args": Hostile()})


def plain_pickle(place: Path) -> Path:
    (place / "w.pth").write_bytes(pickle.dumps(Hostile()))
    return place / "w.pth"


def damaged_caffe(place: Path) -> Path:
    (place / "w.caffemodel").write_bytes(b"\x0a\xff\xff\xff\xff\x0fabc")
    return place / "w.caffemodel"


def lying_blob(place: Path) -> Path:
    """Four numbers that say they are a billion billion."""
    said = field(7, field(1, varint(2**60))) + field(5, bytes(16))
    layer = field(1, b"conv1") + field(2, b"Convolution") + field(7, said)
    (place / "w.caffemodel").write_bytes(field(100, layer))
    return place / "w.caffemodel"


def external_onnx(place: Path) -> Path:
    """Weights that are to be read from another file of this machine."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [tensor])
    (place / "w.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return place / "w.onnx"


def noise_onnx(place: Path) -> Path:
    (place / "w.onnx").write_bytes(bytes(range(256)))
    return place / "w.onnx"


def program(place: Path) -> Path:
    (place / "w.pt2").write_bytes(b"PK")
    return place / "w.pt2"


def incomplete(place: Path) -> Path:
    state = build_model(MODEL, 10).state_dict()
    del state["fc4.bias"]
    return save(place / "w.pth", state)


def other_shape(place: Path) -> Path:
    state = build_model(MODEL, 10).state_dict()
    return save(place / "w.pth", state | {"conv2.weight": torch.zeros(3, 3)})


def not_finite(place: Path) -> Path:
    state = build_model(MODEL, 10).state_dict()
    return save(place / "w.pth", state | {"fc4.bias": state["fc4.bias"] / 0})


def other_network(place: Path) -> Path:
    return save(place / "w.pth", build_model("alexnet-28", 10).state_dict())


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hostile pickle": (hostile, "more than tensors"),
    "plain pickle": (plain_pickle, "no file of weights"),
    "damaged caffemodel": (damaged_caffe, "damaged"),
    "lying caffemodel": (lying_blob, "1152921504606846976"),
    "external data": (external_onnx, "another file"),
    "noise as ONNX": (noise_onnx, "damaged"),
    "torch.export": (program, "can run code"),
    "a tensor is missing": (incomplete, "fc4.bias"),
    "another shape": (other_shape, "conv2.weight"),
    "not finite": (not_finite, "fc4.bias"),
    "another network": (other_network, "--as"),
    "nothing there": (lambda place: place / "gone.pth", "gone.pth"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one line, no run, and nothing in the file was run."""
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[name]
    file = make(tmp_path)
    capsys.readouterr()
    assert main(["import", str(file), "--as", MODEL, "--run", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert {path.name for path in tmp_path.iterdir()} <= {file.name}


def test_what_cannot_be_known_is_asked_for(net: Net, tmp_path: Path) -> None:
    file = save(tmp_path / "w.pth", net.state_dict())
    few = tmp_path / "few.txt"
    few.write_text("a\nb\n")
    for options, words in (
        ({}, "as model='alexnet-2014'"),
        ({"model": MODEL, "classes": few}, "tells 10 classes apart"),
        ({"model": MODEL, "normalize": "std"}, "normalize='std'"),
        ({"model": MODEL, "bgr": True}, "bgr=True"),
        ({"model": MODEL, "mean": few}, "mean="),
        ({"model": "mnist-alexnot"}, "mnist-alexnet"),
    ):
        with pytest.raises(UsageError, match=words):
            alexnet.import_weights(file, run=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
