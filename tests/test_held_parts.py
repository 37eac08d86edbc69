"""What is wrong with a test part is found before the training, not after it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import write_tree
from shell import QUICK, Cli
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """train/ and test/ of three classes."""
    write_tree(tmp_path / "data/train")
    write_tree(tmp_path / "data/test", each=4, seed=1)
    return tmp_path / "data"


def trained(data: Path, cli: Cli, *words: object) -> tuple[int, list[str]]:
    given = ("train", "digits", "--data", data, "--run", "run", *QUICK, "--no-doctor")
    status, _, said = cli(*given, "--channels", 3, *words)
    return status, said


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("unknown", "test/class-9: a class unknown to train"),
        ("empty", "test/class-1: no images"),
        ("nothing", "test: holds no class folders"),
    ],
)
def test_a_contradiction_is_refused(fault: str, expected: str, parts: Path, cli: Cli) -> None:
    test = parts / "test"
    if fault == "unknown":
        (test / "class-1").rename(test / "class-9")
    elif fault == "empty":
        for photo in (test / "class-1").iterdir():
            photo.unlink()
    else:
        shutil.rmtree(test)
        test.mkdir()
    status, said = trained(parts, cli)
    assert status == 2
    assert len(said) == 1
    assert expected in said[0]
    assert not Path("run").exists()


def test_a_test_part_without_labels_is_no_fault(parts: Path, cli: Cli) -> None:
    """As competitions publish theirs."""
    for folder in list((parts / "test").iterdir()):
        for photo in folder.iterdir():
            photo.rename(parts / "test" / f"{folder.name}-{photo.name}")
        folder.rmdir()
    status, said = trained(parts, cli)
    assert status == 0
    assert any("the test part has no labels" in line for line in said)


def test_damaged_photos_are_named(parts: Path, cli: Cli) -> None:
    photos = sorted((parts / "test").rglob("*.png"))[2:4]
    photos[0].write_bytes(photos[0].read_bytes()[:-60])  # whose header is whole
    photos[1].write_bytes(b"")
    status, said = trained(parts, cli)
    assert status == 0
    (line,) = [line for line in said if "of the test part cannot be read" in line]
    assert line.startswith("warning: 2 of the 12 images")
    assert all(str(photo) in line for photo in photos)
    status, out, _ = cli("test", "run", "--json")
    assert status == 0
    assert '"n": 10' in out


@pytest.mark.parametrize("all_of_them", [True, False])
def test_labels_that_a_packed_set_lacks(all_of_them: bool, parts: Path, cli: Cli) -> None:
    assert cli("data", "pack", parts, "--out", "packed", "--size", 28)[0] == 0
    labels = np.load("packed/test.labels.npy")
    labels[: None if all_of_them else 5] = -1
    np.save("packed/test.labels.npy", labels)
    status, said = trained(Path("packed"), cli)
    if all_of_them:
        assert status == 0
        assert any("the test part has no labels" in line for line in said)
    else:
        assert status == 2
        assert "5 of 12 images of the test part have no label" in said[-1]
        assert not Path("run").exists()
