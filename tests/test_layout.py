"""Which folders are parts and which are classes: by their names, and by what is in them."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import without_pictures
from old_runs import RUNS, make_photos
from shell import Cli, clean_folder, cli, one_object

__all__ = ["clean_folder", "cli"]

TRAIN = ["--model", "cuda-convnet-18", "--size", "16", "--crop", "16", "--batch-size", "2",
         "--precision", "fp32", "--workers", "0", "--steps", "1", "--cutout", "0",
         "--doctor", "off"]  # fmt: skip


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def images(folder: Path, count: int = 3) -> None:
    """So many images in a folder, no two of any folder alike."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(str(folder).encode()))
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")


def make(root: Path, folders: Iterable[str]) -> Path:
    """Folders of images. One that ends in "/" is empty, a name with a suffix is another file."""
    for name in folders:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        elif Path(name).suffix:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("no image")
        else:
            images(root / name)
    return root


def learnt(run: Path) -> dict[str, Any]:
    """What a run says of its data."""
    saved: dict[str, Any] = json.loads((run / "recipe.json").read_text())["data"]
    return saved


def of(parts: Sequence[str], classes: Sequence[str] = ("cat", "dog")) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in classes]


PARTS = {
    "as the program calls them": (["train", "val", "test"], ""),
    "Keras": (["train", "validation", "test"], "validation is taken for val"),
    "Roboflow": (["train", "valid", "test"], "valid is taken for val"),
    "sets": (
        ["training_set", "test_set"],
        "training_set is taken for train, test_set is taken for test",
    ),
    "spaces": (
        ["Training Set", "Validation Set", "Test Set"],
        "Training Set is taken for train, Validation Set is taken for val, "
        "Test Set is taken for test",
    ),
    "hyphens": (
        ["train-set", "dev-set", "testing-set"],
        "train-set is taken for train, dev-set is taken for val, testing-set is taken for test",
    ),
    "images": (
        ["train_images", "test_images"],
        "train_images is taken for train, test_images is taken for test",
    ),
    "segments": (
        ["seg_train", "seg_test"],
        "seg_train is taken for train, seg_test is taken for test",
    ),
    "dev": (["training", "dev"], "training is taken for train, dev is taken for val"),
    "capitals": (
        ["TRAIN", "DEV", "TESTING"],
        "DEV is taken for val, TESTING is taken for test",
    ),
    "words": (["trainset", "valset"], "trainset is taken for train, valset is taken for val"),
    "nested": (
        ["seg_train/seg_train", "seg_test/seg_test"],
        "seg_train/seg_train is taken for train, seg_test/seg_test is taken for test",
    ),
    "wrapped": (
        ["train/images", "val/images"],
        "train/images is taken for train, val/images is taken for val",
    ),
    "enclosed": (
        ["dataset/training_set", "dataset/test_set"],
        "dataset/training_set is taken for train, dataset/test_set is taken for test",
    ),
    "enclosed twice": (
        ["archive/dataset/train", "archive/dataset/test"],
        "archive/dataset/train is taken for train, archive/dataset/test is taken for test",
    ),
}


def part_of(folder: str) -> str:
    """What a person would say of the folders above."""
    name = folder.rsplit("/", 1)[-1].lower()
    last = folder.split("/")[-2].lower() if name == "images" else name
    return next(part for word, part in (("train", "train"), ("test", "test"), ("", "val"))
                if word in last)  # fmt: skip


def packed(place: Path, cli: Cli) -> dict[str, int]:
    status, out, err = cli("data", "pack", place, "--out", "pack", "--size", "16", "--json")
    assert status == 0, err
    counts: dict[str, int] = one_object(out)["counts"]
    classes = json.loads(Path("pack/manifest.json").read_text())["classes"]
    assert classes == ["cat", "dog"]
    shutil.rmtree("pack")
    return counts


@pytest.mark.parametrize("kind", PARTS)
def test_parts_by_the_names_people_use(kind: str, tmp_path: Path, cli: Cli) -> None:
    """Trained on, packed and checked alike, as a folder, a tar and a zip."""
    folders, said = PARTS[kind]
    data = make(tmp_path / "data", of(folders))
    expected = {part_of(folder): 6 for folder in folders}
    status, _, err = cli("train", "photos", "--data", data, "--run", "run", *TRAIN)
    assert status == 0, err
    about = learnt(Path("run"))
    assert about["classes"] == ["cat", "dog"]
    test = "test" if "test" in expected else "val"
    assert about["splits"].endswith(f"test: the {test} part")
    assert ("val: the val part" in about["splits"]) == ({"val", "test"} <= set(expected))
    lines = [line for line in err if "taken for" in line]
    assert lines == ([f"{data}: {said}"] if said else [])
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(data, ".")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in data.rglob("*.png"):
            archive.write(file, file.relative_to(data))
    for place in (data, tmp_path / "data.tar", tmp_path / "data.zip"):
        assert packed(place, cli) == expected
        status, out, err = cli("data", "check", place, "--json")
        found = one_object(out)
        assert {p: sum(c.values()) for p, c in found["counts"].items()} == expected, err
        assert found["note"] == ""


CLASSES = {
    "enclosed": (
        ["photos/cat", "photos/dog"], ("cat", "dog"), "the classes are the folders in photos"),
    "enclosed twice": (
        ["archive/photos/cat", "archive/photos/dog"],
        ("cat", "dog"),
        "the classes are the folders in archive/photos",
    ),
    "a Mac's": (["photos/cat", "photos/dog", "__MACOSX/photos/._x.txt", ".git/x.txt"],
                ("cat", "dog"), "the classes are the folders in photos"),
    "vehicles": (
        ["train", "car", "plane"], ("car", "plane", "train"),
        "train is taken for a class: no folder train has class folders in it"),
    "servers": (["dev", "prod", "qa"], ("dev", "prod", "qa"), "dev is taken for a class"),
    "servers by day": (
        ["dev/1", "dev/2", "prod/1", "qa/1"], ("dev", "prod", "qa"), "dev is taken for a class"),
    "all of them": (["test", "dev"], ("dev", "test"), "dev, test are taken for classes"),
    "plain": (["cat", "dog"], ("cat", "dog"), ""),
    "with folders inside": (["cat/a", "cat/b", "dog/a"], ("cat", "dog"), ""),
    "words that hold them": (
        ["trainer", "testament", "value"], ("testament", "trainer", "value"), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_no_name_destroys(kind: str, tmp_path: Path, cli: Cli) -> None:
    folders, classes, said = CLASSES[kind]
    data = make(tmp_path / "data", folders)
    status, _, err = cli("train", "photos", "--data", data, "--run", "run", *TRAIN)
    assert status == 0, err
    assert tuple(learnt(Path("run"))["classes"]) == classes
    lines = [line for line in err if line.startswith(f"{data}: ")]
    assert [line for line in lines if said in line] if said else not lines
    status, _, err = cli("data", "pack", data, "--out", "pack", "--size", "16")
    assert status == 0, err
    assert tuple(json.loads(Path("pack/manifest.json").read_text())["classes"]) == classes


REFUSED = {
    "two to train on": (
        of(["train", "training_set", "test"]),
        "has train and training_set, both for train; keep one of them",
    ),
    "two to test on": (
        of(["train", "test", "seg_test"]),
        "has seg_test and test, both for test; keep one of them",
    ),
    "no train": (of(["val_set", "test_set"]), "has val_set, test_set but no train"),
    "beside its classes": (
        [*of(["test_set"]), "cat", "dog"],
        "has test_set but no train",
    ),
    "flat, as for a competition": (["train", "test"], "train holds no class folders: sort"),
    "flat, with a table": (["train", "test", "labels/x.csv"], "train holds no class folders: sort"),
    "to train on flat": (
        ["training_set", *of(["test_set"])],
        "training_set holds no class folders: sort its images into one for each class",
    ),
    "images to test with, or a class": (
        ["cat", "dog", "test"],
        "test holds images and no class folders, beside cat, dog: if it is a class, call it",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_contradicts_itself_is_refused(kind: str, tmp_path: Path, cli: Cli) -> None:
    folders, said = REFUSED[kind]
    data = make(tmp_path / "data", folders)
    status, _, err = cli("train", "photos", "--data", data, "--run", "run", *TRAIN)
    assert (status, len(err)) == (2, 1)
    assert said in err[0]
    assert not Path("run").exists()
    status, _, err = cli("data", "pack", data, "--out", "pack", "--size", "16")
    assert status == 2
    assert not Path("pack").exists()


def test_images_to_predict_are_said_and_not_read(tmp_path: Path, cli: Cli) -> None:
    """Kaggle's Intel set, as it unpacks."""
    folders = [*of(["seg_train/seg_train", "seg_test/seg_test"]), "seg_pred/seg_pred"]
    data = make(tmp_path / "data", folders)
    status, _, err = cli("train", "photos", "--data", data, "--run", "run", *TRAIN)
    assert status == 0, err
    assert learnt(Path("run"))["classes"] == ["cat", "dog"]
    assert f"{data}: seg_pred beside train, test: not read" in err
    status, _, err = cli("data", "pack", data, "--out", "pack", "--size", "16")
    assert status == 0, err
    assert f"{data}: seg_pred beside train, test: not read" in err
    assert json.loads(Path("pack/manifest.json").read_text())["counts"] == {"train": 6, "test": 6}
    status, out, _ = cli("data", "check", data, "--json")
    assert one_object(out)["counts"]["unlabelled"] == {"": 3}


def test_it_is_said_once(tmp_path: Path, cli: Cli) -> None:
    """Also where the data is looked at first, to choose a recipe for it."""
    data = make(tmp_path / "data", [*of(["training_set", "test_set"]), "notes"])
    words = ["train", "--data", data, "--run", "run", "--minutes", "0.01", "--steps", "1"]
    status, _, err = cli(*words, "--batch-size", "2", "--doctor", "off", "--precision", "fp32")
    assert status == 0, err
    assert len([line for line in err if "taken for" in line]) == 1
    assert len([line for line in err if "notes beside train, test: not read" in line]) == 1


def test_a_run_of_its_own_finds_its_parts_again(tmp_path: Path, cli: Cli) -> None:
    data = make(tmp_path / "data", of(["training_set", "test_set"]))
    status, _, err = cli("train", "photos", "--data", data, "--run", "run", *TRAIN)
    assert status == 0, err
    status, out, err = cli("test", "run", "--json")
    assert status == 0, err
    assert one_object(out)["n"] == 6


# Runs of 0.1.0


def older(run: Path, data: Path, cli: Cli) -> None:
    """A run as 0.1.0 would have begun it: it kept nothing of which folders are parts."""
    status, _, err = cli("train", "photos", "--data", data, "--run", run, *TRAIN)
    assert status == 0, err
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"].pop("folders")
    (run / "recipe.json").write_text(json.dumps(saved))


def test_an_old_runs_folder_is_read_as_before(tmp_path: Path, cli: Cli) -> None:
    """What is called dev now would be its validation part, and was not read."""
    data = make(tmp_path / "data", of(["train", "test"]))
    older(Path("run"), data, cli)
    make(data, of(["dev"]))
    for split, count in (("test", 6), ("val", 2), ("train", 4)):
        status, out, err = cli("test", "run", "--split", split, "--json")
        assert status == 0, err
        assert one_object(out)["n"] == count
        assert f"{data}: dev beside train, test: not read" in err
    status, _, err = cli("train", "--resume", "--run", "run")
    assert status == 0, err
    status, _, err = cli("train", "photos", "--data", data, "--run", "anew", *TRAIN)
    assert status == 0, err
    assert "val: the val part" in learnt(Path("anew"))["splits"]


def test_an_old_run_keeps_the_classes_it_took(tmp_path: Path, cli: Cli) -> None:
    """0.1.0 trained training_set/ and test_set/ as two classes; its run is still one of these."""
    run = Path(shutil.copytree(RUNS / "photos", tmp_path / "run", symlinks=True))
    data = tmp_path / "data"
    make_photos(data)
    names = {"crate": "test_set", "disc": "training_set", "ramp": "z"}
    for name, other in names.items():
        (data / name).rename(data / "inner")
        (data / other).mkdir()
        (data / "inner").rename(data / other / "photos")
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"] |= {"path": str(data), "classes": list(names.values())}
    saved["data"].pop("listing")
    (run / "recipe.json").write_text(json.dumps(saved))
    status, out, err = cli("test", run, "--json")
    assert status == 0, err
    assert [row["class"] for row in one_object(out)["per_class"]] == list(names.values())
