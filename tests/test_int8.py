"""Networks in integers of 8 bits answer as the networks do, but for their rounding."""

import copy
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import alexnet
from alexnet import commands
from alexnet.errors import CheckpointError, DataError, Differs, Unavailable, UsageError
from alexnet.interchange import int8 as measured
from alexnet.interchange.runtimes import with_engine
from alexnet.models import (
    MODELS,
    Conv,
    IntegerPool,
    Linear,
    Local,
    Net,
    Pool,
    ReLU,
    Steps,
    build_model,
    has_int8,
)
from alexnet.training import Int8, Ranges, folded, int8, measure_ranges
from conftest import write_tree
from test_infer import trained_norms

pytestmark = pytest.mark.skipif(
    not has_int8(),
    reason="no exact products of integers on this processor or in this build of torch",
)


def lively(net: Net) -> None:
    """Weights of He's size and no biases, so that what a network answers depends on its image."""
    for name in net.layers:
        layer = net.part(name)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    trained_norms(net)


def images_for(name: str, count: int) -> Tensor:
    preset = MODELS[name]
    return torch.rand(count, preset.channels, preset.size, preset.size).sub_(0.5).mul_(4)


def rounded(layer: nn.Module) -> nn.Module:
    """The layer with weights of 255 steps an output channel."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return layer
    layer = copy.deepcopy(layer)
    steps = layer.weight.flatten(1).abs().amax(1) / 127
    steps = steps.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = nn.Parameter((layer.weight / steps).round() * steps)
    return layer


def by_definition(net: Net, ranges: Ranges, x: Tensor) -> Tensor:
    """What int8 means, in floats: inputs of products on a grid of 256 numbers, weights rounded."""
    for name, layer in folded({name: net.part(name) for name in net.parts}).items():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            low, high = min(ranges[name][0], 0), max(ranges[name][1], 0)
            step = (high - low) / 255
            least = -round(-low / step) * step
            x = ((x - least) / step).round().clamp(0, 255) * step + least
        x = rounded(layer)(x.flatten(1) if isinstance(layer, nn.Linear) else x)
    return x


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_answers_are_those_of_the_definition(name: str) -> None:
    torch.manual_seed(0)
    net = build_model(name, 7).eval()
    lively(net)
    before = copy.deepcopy(net.state_dict())
    x = images_for(name, 4)
    ranges = measure_ranges(net, [x[:3], x[3:]])
    expected = by_definition(net, ranges, x)
    quantised = Int8(net, ranges)
    found = quantised(x)
    assert found.dtype == torch.float32
    of_images = (expected - expected.mean(0)).norm()
    # One sum that is rounded the other way moves what comes after it; nothing else differs.
    assert (found - expected).norm() < 0.25 * of_images
    assert torch.equal(quantised(x[1:2]), found[1:2])  # whatever else it is shown with
    assert torch.equal(quantised(x.contiguous(memory_format=torch.channels_last)), found)
    for key, value in net.state_dict().items():  # the network itself is as it was
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("side", [6, 7, 9])
def test_pools_of_integers_are_torchs(
    kernel: int, stride: int, padding: int, ceil: bool, side: int
) -> None:
    x = torch.randint(0, 256, (3, 5, side, side + 1), dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    found = IntegerPool(pool)(x)
    assert found.dtype == torch.uint8
    assert torch.equal(found.float(), pool(x.float()))


def test_pools_with_tensorflows_padding_are_torchs() -> None:
    pool = Pool(3, 2, "same").build((4, 8, 7))
    x = torch.randint(0, 256, (2, 4, 8, 7), dtype=torch.uint8)
    assert torch.equal(IntegerPool(pool)(x).float(), pool(x.float()))


UNSHARED = {
    "first": [Local("local1", 4, 3, 1), ReLU(), Linear("fc2", 3)],
    "between": [Conv("conv1", 4, 3), Local("local2", 4, 3, 1), ReLU(), Linear("fc3", 3)],
    "last": [Conv("conv1", 4, 3), ReLU(), Local("local2", 4, 3, 1)],
}


@pytest.mark.parametrize("where", UNSHARED)
@torch.inference_mode()
def test_layers_of_unshared_weights_work_on_floats(where: str) -> None:
    torch.manual_seed(0)
    net = Net(UNSHARED[where], (3, 8, 8)).eval()
    x = torch.randn(2, 3, 8, 8)
    found = Int8(net, measure_ranges(net, [x]))(x)
    assert found.dtype == torch.float32
    assert (found - net(x)).norm() < 0.1 * net(x).norm()


@pytest.mark.parametrize("name", ["alexnet-2014", "alexnet-2012-code"])  # even padding, and not
@torch.inference_mode()
def test_neighbours_of_a_row_as_channels_are_the_same_sums(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = build_model(name, 7).eval()
    lively(net)
    x = images_for(name, 2)
    ranges = measure_ranges(net, [x])
    by_rows = Int8(net, ranges)
    assert by_rows.steps[0](x).shape[1] == 12
    monkeypatch.setattr(int8, "FEW", 1000)
    as_it_is = Int8(net, ranges)
    assert as_it_is.steps[0](x).shape[1] == 3
    assert torch.equal(
        by_rows.steps[1](by_rows.steps[0](x)), as_it_is.steps[1](as_it_is.steps[0](x))
    )


@pytest.mark.parametrize("side", [10, 11, 12, 13])  # some end where no window reaches
@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (3, 1), (4, 0), (5, 2), (9, 3)])
@torch.inference_mode()
def test_any_strided_first_convolution(
    side: int, kernel: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Net([Conv("conv1", 5, kernel, 4, padding), Linear("fc2", 3)], (3, side, side + 1)).eval()
    x = torch.randn(2, *net.input_shape)
    ranges = measure_ranges(net, [x])
    found = Int8(net, ranges)(x)
    monkeypatch.setattr(int8, "FEW", 1000)
    assert torch.equal(found, Int8(net, ranges)(x))
    assert (found - by_definition(net, ranges, x)).norm() < 0.02 * found.norm()


@torch.inference_mode()
def test_what_is_outside_its_range_is_its_end() -> None:
    net = Net([Conv("conv1", 4, 3), ReLU(), Pool(2, 2), Linear("fc2", 3)], (3, 8, 8)).eval()
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    quantised = Int8(net, measure_ranges(net, [torch.cat([x, x * 0 - 1, x * 0 + 1])]))
    assert torch.equal(quantised(x * 1e6), quantised(x.sign() * 2))
    assert quantised(x * 1e30).isfinite().all()


def test_ranges_are_of_all_batches_and_hold_0() -> None:
    net = Net([Linear("fc1", 2)], (1, 1, 3)).eval()
    batches = [torch.tensor([[[[1.0, 2, 3]]]]), torch.tensor([[[[2.0, 7, 3]]]])]
    assert measure_ranges(net, batches) == {"fc1": (1.0, 7.0)}
    assert Steps.over(1.0, 5.1) == Steps(5.1 / 255, 0)
    assert Steps.over(-1.0, 4.1) == Steps(5.1 / 255, 50)
    assert Steps.over(0.0, 0.0) == Steps(1.0, 0)


def test_without_such_products_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net([Linear("fc1", 2)], (1, 1, 3))
    monkeypatch.setattr(int8, "has_int8", lambda: False)
    with pytest.raises(Unavailable, match=r"int8: .* use --engine torch"):
        Int8(net, {"fc1": (0.0, 1.0)})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of its own, since ranges are kept in it."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def test_a_run_is_measured_once_and_answers_alike(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = commands.test(run)
    found = commands.test(run, engine="int8")
    said = capsys.readouterr().err
    assert found["engine"] == "int8"
    assert found["n"] == plain["n"]
    assert abs(found["top1"] - plain["top1"]) <= 0.02
    assert abs(found["loss"] - plain["loss"]) <= 0.05
    assert "int8: " in said
    assert "held-out images" in said
    (kept,) = json.loads((run / measured.NAME).read_text())["checkpoints"].values()
    assert kept["n"] > 0
    assert kept["calibration_images"] > 0
    assert kept["same"] > 0.9
    commands.test(run, engine="int8", split="val")
    assert "int8: " not in capsys.readouterr().err


def test_ranges_of_several_checkpoints_are_kept(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in ("best", "last"):
        with_engine(alexnet.load(run, checkpoint), "int8")
        assert "int8: " in capsys.readouterr().err
    for checkpoint in ("best", "last"):
        with_engine(alexnet.load(run, checkpoint), "int8")
        assert "int8: " not in capsys.readouterr().err
    assert len(json.loads((run / measured.NAME).read_text())["checkpoints"]) == 2


def test_what_an_older_file_says_is_measured_anew(run: Path) -> None:
    with_engine(alexnet.load(run), "int8")
    path = run / measured.NAME
    first = json.loads(path.read_text())
    path.write_text(json.dumps({"format": 1, "weights": "of some checkpoint", "ranges": {}}))
    with_engine(alexnet.load(run), "int8")
    assert json.loads(path.read_text()) == first


ODD = {
    "plausible": [0, 1.5],
    "text": "01",
    "huge": [0, 10**400],
}


@pytest.mark.parametrize("broken", ["[1, 2]", "{", '"ranges"', "missing", "list", "row", *ODD])
def test_a_damaged_file_is_refused_by_name(run: Path, broken: str) -> None:
    with_engine(alexnet.load(run), "int8")
    path = run / measured.NAME
    known = json.loads(path.read_text())
    ((weights, row),) = known["checkpoints"].items()
    ranges = row["ranges"]
    if broken == "missing":
        del ranges[next(iter(ranges))]
    elif broken == "list":
        known["checkpoints"] = []
    elif broken == "row":
        known["checkpoints"][weights] = 1
    elif broken in ODD:
        ranges[next(iter(ranges))] = ODD[broken]
    path.write_text(json.dumps(known) if broken in ("missing", "list", "row", *ODD) else broken)
    with pytest.raises(CheckpointError, match=r"int8\.json is damaged: .*; delete it"):
        with_engine(alexnet.load(run), "int8")


def test_where_no_held_out_images_are_it_says_what_to_do(run: Path) -> None:
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"] |= {"path": str(run / "photos"), "kind": "folder"}
    (run / "recipe.json").write_text(json.dumps(saved))
    with pytest.raises(
        DataError, match=r"no such file.*--engine int8 --checkpoint step-\d+ --data DIR"
    ):
        with_engine(alexnet.load(run), "int8")


def test_what_loses_answers_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        measured, "measure_ranges", lambda net, _: dict.fromkeys(net.parts, (0, 1e-9))
    )
    with pytest.raises(
        Differs, match=r"int8 has .* held-out images right, and the network .*torch"
    ):
        with_engine(alexnet.load(run), "int8")
    assert not (run / measured.NAME).exists()


def test_what_answers_otherwise_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where as many answers are right."""

    class Wrong(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 1 - nn.functional.one_hot(net(images).argmax(1), 10).float()

    predictor = alexnet.load(run)
    net = predictor.model
    monkeypatch.setattr(measured, "Int8", lambda *_: Wrong())
    monkeypatch.setattr(measured, "LOST", 1.0)
    with pytest.raises(Differs, match=r"int8 answers 0 of .* as the network does, fewer than 90 %"):
        with_engine(predictor, "int8")
    assert not (run / measured.NAME).exists()


def test_weights_that_are_no_numbers_are_named(run: Path) -> None:
    predictor = alexnet.load(run)
    with torch.no_grad():
        next(predictor.model.part("conv2").parameters())[0, 0, 0, 0] = math.nan
    with pytest.raises(
        Unavailable, match=r"int8: what \w+2 is given goes from nan .*another checkpoint"
    ):
        with_engine(predictor, "int8")


def test_the_runs_own_held_out_images_come_before_data(tmp_path: Path) -> None:
    data, other = write_tree(tmp_path / "data", each=20), write_tree(tmp_path / "other", seed=1)
    run = tmp_path / "run"
    alexnet.train("digits", data=data, run=run, steps=20, batch_size=8, doctor="off")

    def measured_on(images: Path | None) -> Any:
        (run / measured.NAME).unlink(missing_ok=True)
        with_engine(alexnet.load(run), "int8", images)
        return json.loads((run / measured.NAME).read_text())["checkpoints"]

    own = measured_on(None)
    assert measured_on(other) == own
    data = data.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="--data"):
        measured_on(None)
    assert measured_on(data) == own
    assert measured_on(other) != own


def test_a_test_alone_measures_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where nothing can be kept."""
    calls = []

    def count(*given: Any) -> dict[str, tuple[float, float]]:
        calls.append(given)
        return measure_ranges(*given)

    def refuse(*_: object) -> None:
        raise CheckpointError("cannot write int8.json: read-only")

    monkeypatch.setattr(measured, "measure_ranges", count)
    monkeypatch.setattr(measured, "write_json", refuse)
    commands.test(run, engine="int8")
    assert len(calls) == 1


def test_a_contradiction_is_found_before_it_is_measured(run: Path) -> None:
    with pytest.raises(UsageError, match=r"views is 3"):
        commands.test(run, engine="int8", views=3)
    with pytest.raises(UsageError, match=r"views is 3"):
        commands.classify(run, [], engine="int8", views=3)
    assert not (run / measured.NAME).exists()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a setting of x86 alone")
def test_a_processor_without_exact_products_is_told_apart() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from alexnet.models.integers import has_int8; print(has_int8())"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "False\n", done.stderr


def test_what_cannot_be_kept_is_used_all_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise CheckpointError("cannot write int8.json: read-only")

    monkeypatch.setattr(measured, "write_json", refuse)
    predictor = with_engine(alexnet.load(run), "int8")
    assert isinstance(predictor.inference, Int8)
    assert "not kept: cannot write int8.json" in capsys.readouterr().err
