"""Networks in integers of 8 bits answer as the networks do, but for their rounding."""

import copy
import itertools
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import alexnet
from alexnet.errors import CheckpointError, DataError, Differs, Unavailable, UsageError
from alexnet.interchange import with_engine
from alexnet.models import (
    MODELS,
    Conv,
    Linear,
    Local,
    Net,
    Pool,
    ReLU,
    build_model,
    has_int8,
)
from alexnet.training import Inference, Int8, measure_ranges
from conftest import patterns, write_idx
from nets import SIZES, trained_norms

pytestmark = pytest.mark.skipif(
    not has_int8(),
    reason="no exact products of integers on this processor or in this build of torch",
)

Ranges = Mapping[str, tuple[float, float]]


def lively(name: str) -> Net:
    """A network with weights of He's size and no biases, so that what it answers depends on its
    image."""
    torch.manual_seed(0)
    net = build_model(name, 7, size=SIZES.get(name)).eval()
    for layer_name in net.layers:
        layer = net.part(layer_name)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    trained_norms(net)
    return net


def images_for(net: Net, count: int) -> Tensor:
    return torch.rand(count, *net.input_shape).sub_(0.5).mul_(4)


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
    for name, layer in Inference(net, "fp32").layers.items():  # its batch norms are folded
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
    net = lively(name)
    before = copy.deepcopy(net.state_dict())
    x = images_for(net, 4)
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


def passes_on(layer: Any) -> None:
    """Makes a layer of as many inputs as outputs give what it is given."""
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(layer.weight)).view_as(layer.weight))
        layer.bias.zero_()


def pool_of_integers(pool: Pool, x: Tensor) -> Tensor:
    """What a pool gives between two layers that pass on the integers that it is of."""
    channels, *sides = x.shape[1:]
    conv = [Conv(name, channels, 1) for name in ("conv1", "conv2")]
    net = Net([conv[0], pool, conv[1]], (channels, *sides)).eval()
    for name in net.layers:
        passes_on(net.part(name))
    found = Int8(net, dict.fromkeys(net.parts, (0.0, 255.0)))(x)
    assert (found - found.round()).abs().max() < 1e-3
    return found.round()


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize("ceil", [False, True])
@torch.inference_mode()
def test_pools_of_integers_are_torchs(kernel: int, padding: int, ceil: bool) -> None:
    for stride, side in itertools.product((1, 2, 3), (6, 7, 9)):
        x = torch.randint(0, 256, (3, 5, side, side + 1)).float()
        expected = nn.functional.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)
        pool = Pool(kernel, stride, padding, ceil=ceil)
        assert torch.equal(pool_of_integers(pool, x), expected), (stride, side)


@torch.inference_mode()
def test_pools_with_tensorflows_padding_are_torchs() -> None:
    pool = Pool(3, 2, "same")
    x = torch.randint(0, 256, (2, 4, 8, 7)).float()
    assert torch.equal(pool_of_integers(pool, x), pool.build((4, 8, 7))(x))


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


NEVER = 1000  # channels, of which a first convolution never has so many


@pytest.mark.parametrize("name", ["alexnet-2012", "alexnet-2012-code"])  # even padding, and not
@torch.inference_mode()
def test_neighbours_of_a_row_as_channels_are_the_same_sums(name: str) -> None:
    net = lively(name)
    x = images_for(net, 2)
    ranges = measure_ranges(net, [x])
    by_rows, as_it_is = Int8(net, ranges), Int8(net, ranges, min_channels=NEVER)
    assert by_rows.steps[0](x).shape[1] == 12
    assert as_it_is.steps[0](x).shape[1] == 3
    assert torch.equal(
        by_rows.steps[1](by_rows.steps[0](x)), as_it_is.steps[1](as_it_is.steps[0](x))
    )


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (3, 1), (4, 0), (5, 2), (9, 3)])
@torch.inference_mode()
def test_any_strided_first_convolution(kernel: int, padding: int) -> None:
    for side in (10, 11, 12, 13):  # some end where no window reaches
        torch.manual_seed(0)
        spec = [Conv("conv1", 5, kernel, 4, padding), Linear("fc2", 3)]
        net = Net(spec, (3, side, side + 1)).eval()
        x = torch.randn(2, *net.input_shape)
        ranges = measure_ranges(net, [x])
        found = Int8(net, ranges)(x)
        assert torch.equal(found, Int8(net, ranges, min_channels=NEVER)(x)), side
        assert (found - by_definition(net, ranges, x)).norm() < 0.02 * found.norm(), side


@torch.inference_mode()
def test_what_is_outside_its_range_is_its_end() -> None:
    net = Net([Conv("conv1", 4, 3), ReLU(), Pool(2, 2), Linear("fc2", 3)], (3, 8, 8)).eval()
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    quantised = Int8(net, measure_ranges(net, [torch.cat([x, x * 0 - 1, x * 0 + 1])]))
    assert torch.equal(quantised(x * 1e6), quantised(x.sign() * 2))
    assert quantised(x * 1e30).isfinite().all()


def test_ranges_are_of_all_batches() -> None:
    net = Net([Linear("fc1", 2)], (1, 1, 3)).eval()
    batches = [torch.tensor([[[[1.0, 2, 3]]]]), torch.tensor([[[[2.0, 7, 3]]]])]
    assert measure_ranges(net, batches) == {"fc1": (1.0, 7.0)}


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 5.1), (-1.0, 4.1), (-6.0, -2.0), (-1e-3, 7.0), (0.0, 0.0)]
)
@torch.inference_mode()
def test_numbers_are_rounded_to_256_of_which_one_is_0(low: float, high: float) -> None:
    """Which convolutions pad with: it is exact, also where the range leaves it out."""
    net = Net([Linear("fc1", 1)], (1, 1, 1)).eval()
    passes_on(net.part("fc1"))
    quantised = Int8(net, {"fc1": (low, high)})
    least, most = min(low, 0.0), max(high, 0.0)
    x = torch.cat([torch.linspace(least, most, 1001), torch.zeros(1)])
    found = quantised(x.view(-1, 1, 1, 1)).flatten()
    assert found[-1] == 0
    assert (found - x).abs().max() <= (most - least) / 255 * 0.51  # at the ends it may be all
    assert len(found.unique()) == (256 if most > least else 1)


# Of a run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of its own, since ranges are kept in it."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def kept_by(run: Path) -> Any:
    return json.loads((run / "int8.json").read_text())


def measured(lines: str) -> int:
    """How often it was said what int8 loses."""
    return sum(line.startswith("int8: ") for line in lines.splitlines())


def test_a_run_is_measured_once_and_answers_alike(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = alexnet.test(run)
    capsys.readouterr()
    found = alexnet.test(run, engine="int8")
    said = capsys.readouterr().err
    assert found.engine == "int8"
    assert found.n == plain.n
    assert abs(found.top1 - plain.top1) <= 0.02
    assert abs(found.loss - plain.loss) <= 0.05
    assert measured(said) == 1
    assert "held-out images" in said
    (kept,) = kept_by(run)["checkpoints"].values()
    assert kept["n"] > 0
    assert kept["calibration_images"] > 0
    assert kept["same"] > 0.9


def test_ranges_of_several_checkpoints_are_kept(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for times in (1, 0):
        for checkpoint in ("best", "last"):
            with_engine(alexnet.load(run, checkpoint), "int8")
            assert measured(capsys.readouterr().err) == times
    assert len(kept_by(run)["checkpoints"]) == 2


@pytest.fixture(scope="module")
def known(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was measured, and what it keeps of that; tests may change the file."""
    place = tmp_path_factory.mktemp("known") / "run"
    run = Path(shutil.copytree(trained, place, symlinks=True))
    with_engine(alexnet.load(run), "int8")
    return run, (run / "int8.json").read_text()


def test_what_an_older_file_says_is_measured_anew(known: tuple[Path, str]) -> None:
    run, text = known
    older = {"format": 1, "weights": "of some checkpoint", "ranges": {}}
    (run / "int8.json").write_text(json.dumps(older))
    with_engine(alexnet.load(run), "int8")
    assert kept_by(run) == json.loads(text)


ODD = {
    "plausible": [0, 1.5],
    "text": "01",
    "huge": [0, 10**400],
}


@pytest.mark.parametrize("broken", ["[1, 2]", "{", '"ranges"', "missing", "list", "row", *ODD])
def test_a_damaged_file_is_refused_by_name(known: tuple[Path, str], broken: str) -> None:
    run, text = known
    kept = json.loads(text)
    ((weights, row),) = kept["checkpoints"].items()
    ranges = row["ranges"]
    if broken == "missing":
        del ranges[next(iter(ranges))]
    elif broken == "list":
        kept["checkpoints"] = []
    elif broken == "row":
        kept["checkpoints"][weights] = 1
    elif broken in ODD:
        ranges[next(iter(ranges))] = ODD[broken]
    structured = broken in ("missing", "list", "row", *ODD)
    (run / "int8.json").write_text(json.dumps(kept) if structured else broken)
    with pytest.raises(CheckpointError, match=r"int8\.json is damaged: .*; delete it"):
        with_engine(alexnet.load(run), "int8")


def images_at(run: Path, place: Path, **more: Any) -> None:
    """Makes a run say that its images are at another place."""
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"] |= {"path": str(place), **more}
    (run / "recipe.json").write_text(json.dumps(saved))


def test_where_no_held_out_images_are_it_says_what_to_do(run: Path) -> None:
    images_at(run, run / "photos", kind="folder")
    with pytest.raises(
        DataError, match=r"no such file.*engine='int8', checkpoint='step-\d+', data=DIR"
    ):
        with_engine(alexnet.load(run), "int8")


def hide_behind_one_channel(net: Net) -> None:
    """The same answers by other weights: what fc6 is given has a channel a million times as large
    as the others, beside which 255 steps leave nothing of them."""
    norm, layer, large = net.part("bn5"), net.part("fc6"), 1e6
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(layer, nn.Linear)
    places = layer.in_features // norm.num_features
    with torch.no_grad():
        norm.weight[0] *= large
        norm.bias[0] *= large
        layer.weight[:, :places] /= large


def test_what_loses_answers_is_refused(run: Path) -> None:
    predictor = alexnet.load(run)
    images = [image[..., None] for image in patterns(40, seed=5)[0]]
    before = predictor.predict(images).argmax(1)
    predictor = alexnet.load(run)
    hide_behind_one_channel(predictor.model)
    assert (predictor.predict(images).argmax(1) == before).all()
    with pytest.raises(
        Differs, match=r"int8 has .* held-out images right, and the network .*torch"
    ):
        with_engine(predictor, "int8")
    assert not (run / "int8.json").exists()


def test_what_answers_otherwise_is_refused(run: Path) -> None:
    """Even where as many answers are right: hardly any, of classes that are all the next one."""
    predictor = alexnet.load(run)
    last = predictor.model.part("fc8")
    with torch.no_grad():
        for values in last.parameters():
            values.copy_(values.roll(1, 0))
    hide_behind_one_channel(predictor.model)
    with pytest.raises(Differs, match=r"int8 classifies .* as the network does, fewer than 90 %"):
        with_engine(predictor, "int8")
    assert not (run / "int8.json").exists()


def test_weights_that_are_no_numbers_are_named(run: Path) -> None:
    predictor = alexnet.load(run)
    with torch.no_grad():
        next(predictor.model.part("conv2").parameters())[0, 0, 0, 0] = math.nan
    with pytest.raises(
        Unavailable, match=r"int8: the inputs of \w+2 range from nan .*another checkpoint"
    ):
        with_engine(predictor, "int8")


def test_the_runs_own_held_out_images_come_before_data(
    run: Path, known: tuple[Path, str], idx_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_idx(other, "train", *patterns(300, seed=5))
    write_idx(other, "t10k", *patterns(100, seed=6))

    def measured_on(images: Path | None) -> Any:
        (run / "int8.json").unlink(missing_ok=True)
        with_engine(alexnet.load(run), "int8", images)
        return kept_by(run)

    own = json.loads(known[1])
    assert measured_on(other) == own
    images_at(run, tmp_path / "gone")
    with pytest.raises(DataError, match="data="):
        measured_on(None)
    assert measured_on(idx_folder) == own
    assert measured_on(other) != own


@contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """Inside, no file may have a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_kept_is_measured_once_and_used_all_the_same(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_can_be_written():
        found = alexnet.test(run, engine="int8")
    said = capsys.readouterr().err
    assert found.engine == "int8"
    assert measured(said) == 1
    assert "not saved: cannot write" in said
    assert not (run / "int8.json").exists()


def test_a_contradiction_is_found_before_it_is_measured(run: Path) -> None:
    with pytest.raises(UsageError, match=r"views is 3"):
        alexnet.test(run, engine="int8", views=3)
    with pytest.raises(UsageError, match=r"views is 3"):
        alexnet.classify(run, ["none.png"], engine="int8", views=3)
    assert not (run / "int8.json").exists()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a setting of x86 alone")
def test_a_processor_without_exact_products_says_so(trained: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alexnet", "test", str(trained), "--engine", "int8"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "int8: this processor" in done.stderr
    assert "use --engine torch" in done.stderr
