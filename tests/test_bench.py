"""The input bench: that its ways really read the same images, and that it says so."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import bench, main
from alexnet.data import Share, Split, open_dataset, read_batch, training_batches
from alexnet.errors import UsageError
from alexnet.lab.benches import in_company, make_photos, peak_bytes, plain_net, take_turns
from alexnet.recipe import Recipe
from alexnet.records import InferBench, InputBench, TrainBench
from alexnet.training import build_net

COMPANIES = ["lowest", "equal"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "set", 12)


def test_made_photos_are_as_said(photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    assert len(files) == 12
    for file in files:
        with Image.open(file) as image:
            assert image.size == (256, 256)


def test_bench_input(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "input", "--data", str(photos), "--batches", "2", "--rounds", "1"]
    words += ["--batch-size", "4", "--model", "cuda-convnet-18"]
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    names = [row["name"] for row in found["rows"]]
    reference = "torch DataLoader, Pillow, 2 workers, to float"
    assert names[0] == reference
    assert {"ours, jpeg, to uint8", "ours, raw, to float", "copy of the float batches"} < set(names)
    by_name = {row["name"]: row for row in reversed(found["rows"])}  # the first, which is quiet
    assert by_name[reference]["ratio"] == 1
    slow = by_name[reference]["images_per_s"]  # rounded to a tenth, which is much of little
    quiet, beside = found["rows"][: len(by_name)], found["rows"][len(by_name) :]
    assert not any("company" in row for row in quiet)
    for row in quiet:
        expected = row["images_per_s"] / slow
        assert row["ratio"] == pytest.approx(expected, rel=0.06 / slow, abs=0.02)
        assert row["range"][0] <= row["images_per_s"] <= row["range"][1]
    assert [(r["company"], r["name"]) for r in beside] == [
        (company, name) for company in COMPANIES for name in names[: len(quiet)]
    ]
    for row in beside:
        assert row["range"][0] <= row["images_per_s"] <= row["range"][1]
        expected = row["images_per_s"] / by_name[row["name"]]["images_per_s"]
        near = {"rel": 0.01 + 0.06 / row["images_per_s"], "abs": 6e-4}  # it has three digits
        assert row["of_quiet"] == pytest.approx(expected, **near)
        assert row["ratio"] == 1 or row["name"] != reference
    assert found["company"]["niceness"]["lowest"] == 19
    with in_company("lowest") as pids:
        assert found["company"]["processes"] == len(pids)
    assert found["waits"].keys() == {"jpeg", "raw", "kept"}
    assert all(0 <= wait["share"] <= 1 for wait in found["waits"].values())
    assert found["images"] == 12
    bench.show(InputBench.from_json(found, "standard output"))
    said = capfd.readouterr().out
    assert "waiting for data" in said
    assert "hours for 90 epochs of ILSVRC-2012" in said


def test_all_ways_end_in_the_same_pixels(photos: Path, tmp_path: Path) -> None:
    """uint8 of the reference and of ours, the order aside."""
    # Deep because what both ways read is timed and thrown away: no figure of the bench has a pixel.
    from alexnet.lab.benches.input import _Photos, _unpack

    recipe = Recipe(size=256, crop=224, batch_size=12, model="alexnet-2014")
    alexnet.data_pack(photos, out=tmp_path / "jpeg", encoding="jpeg", size=256)
    dataset = open_dataset(recipe, tmp_path / "jpeg")
    files = _unpack(dataset, tmp_path / "files")
    theirs = np.stack([_Photos(files, False, recipe)[i].numpy() for i in range(12)])
    part = dataset.image_set.read(dataset.image_set.parts[0])
    ours = part.images.read(np.arange(12))
    difference = theirs.astype(int) - ours
    assert np.sqrt((difference**2).mean()) < 8  # colour planes are enlarged the quick way
    assert abs(difference.mean()) < 0.5
    one = _Photos(files, True, recipe)[0]
    assert (one.shape, one.dtype) == ((3, 224, 224), torch.float32)


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--model", "alexnet-2013"], ["--data", "nowhere"]]
)
def test_bad_options(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "input", *words]) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_turns() -> None:
    calls: list[str] = []

    def way(name: str, seconds: float) -> Any:
        def run() -> int:
            calls.append(name)
            time.sleep(seconds)
            return 10

        return run

    found = take_turns({"slow": way("slow", 0.02), "quick": way("quick", 0.001)}, 3, "test")
    assert calls == ["quick", "slow", "slow", "quick", "quick", "slow", "slow", "quick"]
    assert found["quick"].images_per_s > found["slow"].images_per_s
    assert found["slow"].low <= found["slow"].images_per_s <= found["slow"].high <= 500
    calls.clear()
    slow_first = {"slow": way("slow", 0.02), "quick": way("quick", 0.001)}
    found = take_turns(slow_first, 1, "test", untimed=1)
    assert calls == ["quick", "slow", "slow", "slow", "quick", "quick"]
    assert found["slow"].high <= 500, "one run is timed, not both"


def test_peak_memory_is_what_was_held_for_a_while() -> None:
    def hold() -> None:
        block = np.ones(40 << 20, np.uint8)
        time.sleep(0.05)
        del block

    found = peak_bytes(hold)
    if found is None:
        pytest.skip("this system does not say how much memory a process holds")
    assert found > 30 << 20


class Counted(Split):
    """A slice that notes which images are read."""

    @property
    def seen(self) -> list[int]:
        return self.__dict__.setdefault("_seen", [])  # type: ignore[no-any-return]

    def try_read(self, ids: Any, out: Any = None) -> Any:
        self.seen.extend(ids)
        return super().try_read(ids, out)


@pytest.mark.parametrize(
    ("steps", "spare", "kept"),
    [
        (range(3, 12), 10**6, True),
        (range(3, 12), 2 * 1100 * 27 - 1, False),  # half of it must hold 1100 images of 3 x 3
        (range(3, 10), 10**6, False),  # not twice through the data, which is read and copied once
    ],
)
def test_what_fits_is_kept_on_the_device(steps: range, spare: int, kept: bool) -> None:
    """Here the device is the processor, told that it has spare memory as a GPU has. More images
    than are copied at once, and the last of those are fewer."""
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 3, 3, 3), np.uint8)
    split = Counted("train", np.arange(1100) % 10, pixels, 3, 3)
    recipe = Recipe(size=3, crop=3, batch_size=250, mixup=0.5)
    share, cpu = Share(1, 2), torch.device("cpu")
    expected = [read_batch(split, recipe, step, share) for step in steps]
    split.seen.clear()
    found = list(training_batches(split, recipe, steps, 2, cpu, share, spare=spare))
    assert (sorted(split.seen) == list(range(1100))) is kept
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.epoch, one.pieces) == (other.step, other.epoch, other.pieces)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.of_all is not None
        assert torch.equal(one.of_all, other.of_all)
    split.seen.clear()
    list(training_batches(split, recipe, steps, 0, cpu, keep=False, spare=spare))
    assert len(split.seen) == 250 * len(steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_copied_to_a_gpu_in_order() -> None:
    """While work is done there that lasts, none is taken for another."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 64, 64, 3), np.uint8)
    split = Split("train", np.arange(80) % 10, pixels, 64, 3)
    recipe = Recipe(size=64, crop=64, batch_size=4)
    found = training_batches(split, recipe, range(20), 2, torch.device("cuda"), keep=False)
    for step, batch in enumerate(found):
        assert batch.images.device.type == "cuda"
        torch._foreach_add_([batch.images.float()] * 50, 1.0)
        expected = read_batch(split, recipe, step)
        assert torch.equal(batch.images.cpu(), expected.images)
        assert torch.equal(batch.labels.cpu(), expected.labels)


def test_bench_is_a_function(photos: Path) -> None:
    found = alexnet.bench("input", data=photos, batches=1, rounds=1, batch_size=2, alone=True)
    assert found.waits == {}
    assert "company" not in found
    assert not any("company" in row for row in found.rows)
    assert "environment" in found


@pytest.fixture
def bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """On any processor as on one that has bf16, or has not; with a limit that is soon measured."""
    pace = 1.0 if request.param else 99.0
    # Patched because a machine has one processor, and that has bf16 or has not; and because the
    # limit of a whole one takes longer to measure than all else here.
    monkeypatch.setattr("alexnet.runtime.bf16_pace", lambda device: pace)
    monkeypatch.setattr("alexnet.lab.benches.reference.bf16_pace", lambda device: pace)
    monkeypatch.setattr("alexnet.lab.benches.reference.SQUARE", {"cpu": 256})
    return bool(request.param)


@pytest.mark.parametrize("bf16", [True, False], indirect=True)
def test_bench_train(bf16: bool, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "train", "--model", "cuda-convnet-11", "--batch-size", "4", "--rounds", "1"]
    assert main([*words, "--alone", "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    names = [row["name"] for row in found["rows"]]
    reference = "plain PyTorch: eager, fp32, contiguous, its own response norm, SGD one by one"
    assert names == [reference, "ours, fp32", *["ours, bf16"] * bf16]
    assert found["rows"][0]["ratio"] == 1
    assert all(row["share"] > 0 for row in found["rows"])
    assert all(row["share"] < 2 for row in found["rows"][:2])
    # By hand: forward and two backward products, but for those of conv1's input, with 1000 classes.
    conv1, conv2 = 64 * 24 * 24 * 3 * 25, 64 * 12 * 12 * 64 * 25
    rest = (64 + 32) * 6 * 6 * 64 * 9 + 32 * 6 * 6 * 1000
    assert found["flops"] == 4 * conv1 + 6 * (conv2 + rest)
    parts = {part["part"]: part for part in found["parts"]}
    assert {"conv1", "norm1", "pool1", "optimiser"} <= parts.keys()
    assert all(part["forward"] > 0 for part in parts.values())
    assert all(part["backward"] >= 0 for part in parts.values())
    bench.show(TrainBench.from_json(found, "standard output"))
    out = capfd.readouterr().out
    assert "GFLOP an image" in out
    assert f"part, ours in {'bf16' if bf16 else 'fp32'}" in out
    missing = "not measured: bf16: its products take 99 times as long as fp32 on this processor"
    assert (missing in out) is not bf16


@pytest.mark.parametrize("bf16", [True], indirect=True)
def test_bench_train_compiled(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the others; traced, and not made into C++, which takes minutes."""
    # Patched because the compiler that users get takes minutes.
    monkeypatch.setattr("alexnet.training.compiled.BACKEND", "aot_eager")
    found = alexnet.bench(
        "train", model="cuda-convnet-11", batch_size=4, rounds=1, compile=True, alone=True
    )
    names = [row.name for row in found.rows[3:]]
    assert names == ["ours, fp32, compiled", "ours, bf16, compiled"]
    assert all(row.images_per_s > 0 for row in found.rows)
    with pytest.raises(UsageError, match="leave compile=True out"):
        alexnet.bench("infer", compile=True)
    with pytest.raises(UsageError, match=r"leave batches=\.\.\. out"):
        alexnet.bench("train", batches=3)


def test_bench_infer(capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own: torch and every other runtime in one have been seen to end it."""
    # Patched because the limit of a whole processor takes longer to measure than all else here.
    program = (
        "import sys\n"
        "from alexnet.lab.benches import reference\n"
        "from alexnet.cli import main\n"
        "reference.SQUARE['cpu'], reference.READ['cpu'] = 256, 2**24\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["bench", "infer", "--model", "cuda-convnet-11", "--batch-size", "4", "--rounds", "1"]
    command = [sys.executable, "-c", program, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    emulated = "bf16" not in found["limits"]
    assert any(line.startswith("bf16: ") for line in found["missing"]) is emulated
    reference = "plain PyTorch: eager, fp32, contiguous, its own response norm"
    names = [reference] + ["plain PyTorch under bf16 autocast"] * (not emulated) + ["ours, fp32"]
    names += ["ours, bf16"] * (not emulated) + ["ours, int8"] * ("int8" in found["limits"])
    names_of = [row["name"] for row in found["rows"] if row["batch"] == 1]
    for name, packages in (
        ("onnxruntime, fp32", ["onnxruntime"]),
        ("OpenVINO, ", ["openvino"]),
        ("onnxruntime, int8", ["onnxruntime"]),
        ("OpenVINO, int8", ["openvino", "onnxruntime"]),
    ):
        if all(map(importlib.util.find_spec, [*packages, "onnxscript"])):
            names += [n for n in names_of[len(names) :][:1] if n.startswith(name)]
            assert names[-1].startswith(name)
        else:
            assert any("pip install" in line for line in found["missing"])
    quiet = [row for row in found["rows"] if "company" not in row]
    assert found["rows"][: len(quiet)] == quiet, "older readers take the first of a name"
    assert [(row["name"], row["batch"]) for row in quiet] == [
        (name, batch) for batch in (1, 4) for name in names
    ]
    assert [(r["name"], r["batch"], r["company"]) for r in found["rows"][len(quiet) :]] == [
        (name, batch, company) for batch in (1, 4) for company in COMPANIES for name in names
    ]
    for row in quiet:
        assert row["ms"] == pytest.approx(1e3 * row["batch"] / row["images_per_s"], rel=0.01)
        if row["name"] == reference:
            assert row["ratio"] == 1
    assert [part["batch"] for part in found["parts"]] == [1, 4]
    assert all({"conv1", "norm1", "pool1"} <= part["ms"].keys() for part in found["parts"])
    assert all(ms >= 0 for part in found["parts"] for ms in part["ms"].values())
    assert found["floor_ms"] > 0
    bench.show(InferBench.from_json(found, "standard output"))
    out = capfd.readouterr().out
    assert "ms for 4" in out
    assert "beside a busy process a core" in out


@pytest.mark.parametrize(
    ("model", "channels"), [("cuda-convnet-11", 3), ("cuda-convnet-18", 3), ("mnist-alexnet", 1)]
)
def test_their_norm_is_ours_in_other_words(model: str, channels: int) -> None:
    """Across channels and within a map, whether alpha is divided or not."""
    size = 28 if channels == 1 else 32
    recipe = Recipe(model=model, size=size, crop=size, channels=channels)
    ours, theirs = build_net(recipe, 10).eval(), plain_net(recipe, 10).eval()
    theirs.load_state_dict(ours.state_dict())
    norms = [name for name in ours.parts if "norm" in name]
    x = 100 * torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (net.activations(x, norms)[1] for net in (theirs, ours))
    assert len(norms) >= 2
    for name in norms:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
