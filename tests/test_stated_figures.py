"""What is said of a figure is true: counts, precision, chance, pace, and what deserves a look."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.errors import UsageError
from conftest import patterns, write_idx
from shell import Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures
from shell import run as run

pytestmark = pytest.mark.usefixtures("no_page")
QUICK = ("--steps", 2, "--precision", "fp32", "-j", 0, "--no-doctor")


def write_photos(folder: Path, counts: dict[str, int]) -> Path:
    """Class folders of noise, so many images in each."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    "counts", [dict.fromkeys("abcdef", 40), {"cat": 17, "dog": 31, "a fish": 44}]
)
def test_the_reasons_count_what_is_trained_on(counts: dict[str, int], cli: Cli) -> None:
    """Each number of images in the lines is one that the run's own record and its test have."""
    photos = write_photos(Path("photos"), counts)
    argv = ("train", "--data", photos, "--minutes", 0.1, "--run", "r", *QUICK)
    status, out, err = cli(*argv, "--json")
    assert status == 0
    data, _, _, length, splits = one_object(out)["choice"]
    kept = json.loads(Path("r/recipe.json").read_text())
    n_train, n_val = kept["data"]["counts"]["train"], kept["data"]["counts"]["val"]
    status, tested, _ = cli("test", "r", "--json")
    n_test = one_object(tested)["n"]
    whole = sum(counts.values())
    assert n_train + n_val + n_test == whole
    assert "to learn from" not in data
    assert f"{whole} images, {len(counts)} classes" in data
    said = f"{n_train} images to train on, {n_val} to validate, {n_test} to test"
    assert splits.startswith(f"splits: {said}, held out class by class")
    assert f"on {n_val} images a figure is sure to" in splits
    per_epoch = n_train // kept["recipe"]["batch_size"]
    assert f"length: {2 / per_epoch:.3g} epochs, 2 steps" in length
    assert f"# {splits}" in Path("r/recipe.toml").read_text().splitlines()
    (named,) = [line for line in err if line.startswith("classes: ")]
    assert all(name in named for name in counts)
    if len(set(counts.values())) == 1:
        assert named.endswith(f"{n_train // len(counts)} images of each to train on")
    else:
        assert "cat 11, dog 20" in named


def test_of_many_classes_the_first_are_named(cli: Cli) -> None:
    write_photos(Path("photos"), {f"kind {i:02}": 5 + i for i in range(20)})
    status, _, err = cli("train", "--data", "photos", "--run", "r", "--minutes", 0.1, *QUICK)
    assert status == 0
    (named,) = [line for line in err if line.startswith("classes: ")]
    assert named.startswith("classes: kind 00 3, kind 01 4, ")
    assert "kind 11" in named
    assert "kind 12" not in named
    assert named.endswith(" and 8 more; 3 to 15 images to train on")


def test_splits_are_shares_of_what_they_are_cut_from(cli: Cli) -> None:
    write_photos(Path("photos"), {"a": 10, "b": 10})
    _, _, err = cli("train", "photos", "--data", "photos", "--run", "r", *QUICK, "--size", 32,
                    "--crop", 32, "--batch-size", 4)  # fmt: skip
    assert (
        "splits: train: what is left of the images, val: 10% of what test leaves, "
        "test: 20% of the images; test is not read here"
    ) in err


def page_of(run: Path) -> str:
    return Path(alexnet.report(run, brief=True).out).read_text().replace("\N{NO-BREAK SPACE}", " ")


# Top-5.


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Path:
    """A run of twenty classes."""
    folder = tmp_path_factory.mktemp("many")
    write_photos(folder / "photos", {f"kind {i:02}": 6 for i in range(20)})
    fields = {**tiny, "steps": 2, "size": 32, "crop": 32, "batch_size": 16}
    alexnet.train("photos", data=folder / "photos", run=folder / "r", **fields)
    return folder / "r"


@pytest.mark.usefixtures("no_pictures")
def test_top5_is_shown_where_it_says_something(many: Path, run: Path, cli: Cli) -> None:
    """Of twenty classes everywhere; of ten nowhere, but in the results for programs."""
    for folder, classes in ((many, 20), (run, 10)):
        shown = classes == 20
        status, out, _ = cli("test", folder)
        assert status == 0
        assert bool(re.search(r"^top-5  \d", out, re.M)) == shown
        assert ("five guesses of 10 classes are right by chance for 50 %" in out) != shown
        assert alexnet.test(folder).top5 is not None
        assert ("top-5" in page_of(folder)) == shown
        export = Path(f"card-{classes}")
        status, _, err = cli("export", folder, "--format", "safetensors", "--out", export)
        assert status == 0, err
        assert ("top-5" in (export / "README.md").read_text()) == shown


def test_training_says_no_top5_of_few_classes(idx_folder: Path, cli: Cli) -> None:
    _, _, err = cli("train", "digits", "--data", idx_folder, "--run", "r", *QUICK)
    lines = [line for line in err if line.startswith("step ")]
    assert lines
    assert not any("top-5" in line for line in lines)
    events = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert all(e["top5"] is not None for e in events if e["event"] in ("train", "val"))


# Pace.


def test_the_last_pace_is_of_training_steps_alone(
    idx_folder: Path,
    tmp_path: Path,
    tiny: dict[str, Any],
    cli: Cli,
) -> None:
    """Most of this run's time is validation: 540 images after each step of four."""
    fields = {**tiny, "steps": 8, "batch_size": 4, "eval_every": 0.001, "val_fraction": 0.9}
    found = alexnet.train("digits", data=idx_folder, run=tmp_path / "r", **fields)
    assert found.images_per_s > 2 * (8 * 4 / found.wall_s)
    events = [json.loads(x) for x in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    rates = [e["images_per_s"] for e in events if e["event"] == "train"]
    assert min(rates) <= found.images_per_s <= max(rates)
    status, out, _ = cli("train", "--resume", "--run", tmp_path / "r")
    assert status == 0
    assert re.search(r" in all, [\d,]+ images/s in training steps$", out, re.M)
    again = alexnet.train(resume=True, run=tmp_path / "r")
    assert again.images_per_s == found.images_per_s


# Labels that deserve a look.


@pytest.fixture(scope="module")
def mislabelled(
    tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]
) -> tuple[Path, set[str]]:
    """A good network's run on 800 images, 400 of them to validate on, and the images of all whose
    label was changed: one in twenty."""
    folder = tmp_path_factory.mktemp("mislabelled")
    images, labels = patterns(800, seed=3)
    random = np.random.default_rng(0)
    wrong = random.permutation(800)[:40]
    labels = labels.astype(int)
    labels[wrong] = (labels[wrong] + random.integers(1, 10, 40)) % 10
    write_idx(folder / "idx", "train", images, labels)
    write_idx(folder / "idx", "t10k", *patterns(20, seed=4))
    fields = {**tiny, "steps": 60, "val_fraction": 0.5}
    alexnet.train("digits", data=folder / "idx", run=folder / "r", **fields)
    return folder / "r", {f"train/{i}" for i in wrong}


@pytest.mark.usefixtures("no_pictures")
def test_wrong_labels_are_found_by_a_good_network(
    mislabelled: tuple[Path, set[str]], cli: Cli
) -> None:
    folder, wrong = mislabelled
    argv = ("inspect", folder, "mistakes", "--count", 100, "--json")
    status, out, _ = cli(*argv)
    found = one_object(out)
    assert (status, found["labels_not_looked_for"]) == (0, "")
    listed = [entry["image"] for entry in found["labels"]]
    assert len(listed) == found["doubtful"]
    hits = sum(image in wrong for image in listed)
    assert 10 <= len(listed) <= 30
    assert hits >= 0.9 * len(listed)
    status, out, _ = cli("inspect", folder, "mistakes")
    assert f"labels that deserve a look: {found['doubtful']} of 400" in out
    assert "look wrong" not in out


def test_of_right_labels_a_good_network_lists_next_to_none(run: Path, cli: Cli) -> None:
    _, out, _ = cli("inspect", run, "mistakes", "--split", "test", "--json")
    assert one_object(out)["doubtful"] <= 2


def test_a_weak_network_questions_no_label(
    idx_folder: Path, tmp_path: Path, tiny: dict[str, Any], cli: Cli
) -> None:
    """All labels are right, and it contradicts most of them."""
    weak = alexnet.train("digits", data=idx_folder, run=tmp_path / "r", **{**tiny, "steps": 4})
    assert 0 < weak.top1 < 0.7
    status, out, _ = cli("inspect", tmp_path / "r", "mistakes", "--json")
    found = one_object(out)
    assert (status, found["doubtful"], found["labels"]) == (0, None, [])
    assert "the network is right for" in found["labels_not_looked_for"]
    assert found["wrong"] > 10
    assert found["mistakes"]
    assert not list((tmp_path / "r/figures").glob("*labels*"))
    _, out, _ = cli("inspect", tmp_path / "r", "mistakes")
    assert "labels that deserve a look: not looked for: the network is right for" in out
    _, out, _ = cli("inspect", tmp_path / "r", "mistakes", "--split", "train")
    assert "not looked for: the network was trained on these images" in out


# Calibration.


def test_calibration_has_bins_that_the_images_allow(run: Path, cli: Cli) -> None:
    for split, n, bins in (("val", 60, 2), ("test", 200, 6), ("train", 540, 15)):
        status, out, _ = cli("inspect", run, "calibration", "--split", split, "--json")
        found = one_object(out)
        assert (status, found["n"]) == (0, n)
        assert 1 <= len(found["bins"]) <= bins
        assert all(b["n"] >= 30 for b in found["bins"])
        assert all(b["right_ci95"][0] <= b["right"] <= b["right_ci95"][1] for b in found["bins"])
        low, high = found["ece_ci95"]
        assert 0 <= low <= found["ece"] <= high <= 1
        assert 0 < found["ece_by_chance"] <= found["ece_by_chance_ci95"][1]
    _, out, _ = cli("inspect", run, "calibration", "--split", "test")
    assert re.search(r"error [\d.]+ % \(95 % interval [\d.]+ % to [\d.]+ %\) over 200 images", out)
    assert re.search(r"would show [\d.]+ %, and up to [\d.]+ %: this is (no )?more than", out)


@pytest.mark.usefixtures("no_pictures")
def test_of_36_images_calibration_says_that_they_are_few(cli: Cli) -> None:
    write_photos(Path("photos"), dict.fromkeys("abcdef", 40))
    argv = ("train", "--data", "photos", "--minutes", 0.1, "--run", "r", *QUICK)
    assert cli(*argv)[0] == 0
    status, out, _ = cli("inspect", "r", "calibration")
    assert status == 0
    assert "36 images are too few for two bins of 30" in out
    assert "36 images of val, 1 bin(s)" in out


# Precision.


@pytest.fixture(scope="module")
def in_bf16(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, tiny: dict[str, Any]
) -> Path:
    """A run that was trained in bf16. Read only: tests copy it."""
    folder = tmp_path_factory.mktemp("bf16") / "r"
    alexnet.train("digits", data=idx_folder, run=folder, **{**tiny, "precision": "bf16"})
    return folder


@pytest.fixture
def half(in_bf16: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(in_bf16, tmp_path / "half", symlinks=True))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Of two classes at once, so that no probability is near to 1."""
    file, (images, _) = tmp_path / "between.png", patterns(10, seed=5)
    Image.fromarray(np.maximum(images[3], images[8])).save(file)
    return file


def probabilities(answer: tuple[int, str, list[str]]) -> tuple[str, dict[str, float]]:
    status, out, err = answer
    assert status == 0, err
    found = one_object(out)
    return found["precision"], {t["class"]: t["probability"] for t in found["results"][0]["top"]}


def test_answers_come_in_the_precision_asked_for(half: Path, picture: Path, cli: Cli) -> None:
    pytest.importorskip("onnxruntime")
    argv = ("classify", half, picture, "--top", 10, "--json")
    name, exact = probabilities(cli(*argv, "--precision", "fp32"))
    assert name == "fp32"
    name, onnx = probabilities(cli(*argv, "--engine", "onnx"))
    assert name == "fp32"
    name, rounded = probabilities(cli(*argv, "--precision", "bf16"))
    assert name == "bf16"
    name, unasked = probabilities(cli(*argv))
    assert unasked == {"fp32": exact, "bf16": rounded}[name]
    assert max(abs(exact[c] - onnx[c]) for c in exact) < 1e-5
    assert 1e-5 < max(abs(exact[c] - rounded[c]) for c in exact) < 0.1
    _, out, _ = cli("classify", half, picture, "--precision", "fp32")
    assert out.splitlines()[-1] == "probabilities in fp32"

    loaded = alexnet.load(half)
    by_name = dict(zip(loaded.classes, loaded.predict([picture], precision="fp32")[0], strict=True))
    assert by_name == pytest.approx(exact)
    by_load = alexnet.load(half, precision="bf16")
    assert by_load.precision == "bf16"
    found = dict(zip(loaded.classes, by_load.predict([picture])[0], strict=True))
    assert found == pytest.approx(rounded)
    with pytest.raises(UsageError, match="precision 'half': there are auto, fp32, bf16"):
        loaded.predict([picture], precision="half")


def test_a_test_says_and_keeps_its_precision(half: Path, cli: Cli) -> None:
    """Figures of another precision than the usual one lie beside; certificate, page and card say
    which one is claimed."""
    unasked = alexnet.load(half).precision
    other = {"fp32": "bf16", "bf16": "fp32"}[unasked]
    _, out, _ = cli("test", half)
    assert f"answers in {unasked}" in out
    _, out, _ = cli("test", half, "--precision", other, "--json")
    found = one_object(out)
    assert found["precision"] == other
    names = {path.name for path in (half / "figures").glob("confusion-*")}
    assert names == {"confusion-test.png", f"confusion-test-{other}.png"}
    metrics = json.loads((half / "certificate.json").read_text())["metrics"]
    assert metrics["test"]["precision"] == other
    assert metrics["val"]["precision"] == "bf16"
    events = [json.loads(line) for line in (half / "metrics.jsonl").read_text().splitlines()]
    assert [e["precision"] for e in events if e["event"] == "test"] == [unasked, other]
    assert "computed in" in page_of(half)
    assert cli("export", half, "--format", "safetensors", "--out", "card")[0] == 0
    card = Path("card/README.md").read_text()
    assert re.search(rf"^\| test \| 200 \| .* \| {other} \|$", card, re.M)
    assert re.search(r"^\| val \| 60 \| .* \| bf16 \|$", card, re.M)


@pytest.mark.usefixtures("no_pictures")
def test_a_test_from_before_claims_no_precision(half: Path, cli: Cli) -> None:
    """Its line has none, and whether that machine answered in bf16 nobody knows."""
    assert cli("test", half)[0] == 0
    log = half / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k != "precision"} for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert cli("export", half, "--format", "safetensors", "--out", "card")[0] == 0
    card = Path("card/README.md").read_text()
    assert re.search(r"^\| test \| 200 \| .* \| fp32 or bf16, not recorded \|$", card, re.M)
    assert "not noted" in page_of(half)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--engine", "onnx", "--precision", "bf16"), "engine onnx answers in fp32"),
        (("--engine", "int8", "--precision", "fp32"), "engine int8 answers in int8"),
        (("--engine", "int8", "--precision", "bf16"), "engine int8 answers in int8"),
    ],
)
def test_engines_refuse_another_precision(
    words: tuple[str, ...], why: str, run: Path, picture: Path, cli: Cli
) -> None:
    for argv in (("test", run), ("classify", run, picture), ("serve", run)):
        status, _, err = cli(*argv, *words)
        assert status == 2
        assert len(err) == 1
        assert why in err[0]
        assert f"--precision {words[-1]}" in err[0]


def test_inspect_says_its_precision(half: Path, picture: Path, cli: Cli) -> None:
    for what, asked in (("calibration", "fp32"), ("neighbors", "bf16")):
        status, out, err = cli("inspect", half, what, "--precision", asked, "--json")
        assert status == 0, err
        assert one_object(out)["precision"] == asked
    status, out, _ = cli("inspect", half, "saliency", picture, "--json")
    assert one_object(out)["precision"] == "fp32"
    for what in ("saliency", "curves"):
        status, _, err = cli("inspect", half, what, "--precision", "bf16")
        assert status == 2
        assert "leave it out" in err[0]
