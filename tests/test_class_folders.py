"""Folders of class folders: which parts, classes and files are found, and what is refused."""

import os
from pathlib import Path

import pytest
from PIL import Image

from alexnet.data import open_image_set
from alexnet.errors import DataError


def write_tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(root / name)
    return root


def test_one_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, "Äpfel rot/b.png", "Äpfel rot/deep/er/a.JPG", "zoo/1.webp")
    write_tree(tmp_path, ".hidden/x.png", "zoo/.hidden.png", "zoo/.cache/y.png")
    Image.new("RGB", (3, 3)).save(tmp_path / "zoo" / "from-windows.jfif", "JPEG")
    (tmp_path / "zoo" / "notes.txt").write_text("no image")
    (tmp_path / "zoo" / "back").symlink_to(tmp_path)
    (tmp_path / "zoo" / "deep").symlink_to(tmp_path / "Äpfel rot/deep")
    source = open_image_set(tmp_path)
    assert (source.kind, source.parts, source.classes) == ("folder", ("all",), ("zoo", "Äpfel rot"))
    part = source.read("all")
    assert part.labels.tolist() == [0, 0, 0, 1, 1]
    assert part.images.names() == [
        "zoo/1.webp",
        "zoo/deep/er/a.JPG",
        "zoo/from-windows.jfif",
        "Äpfel rot/b.png",
        "Äpfel rot/deep/er/a.JPG",
    ]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_trees(tmp_path: Path, val: str) -> None:
    write_tree(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png")
    write_tree(tmp_path, f"{val}/b/1.png", "test/c/2.png")
    source = open_image_set(tmp_path)
    assert source.parts == ("train", "val", "test")
    assert source.classes == ("a", "b", "c")
    assert source.read("val").labels.tolist() == [1]
    assert source.read("test").images.source(0) == tmp_path / "test/c/2.png"
    write_tree(tmp_path, f"{val}/d/1.png")
    with pytest.raises(DataError, match=rf"{val}/d: a class unknown to train"):
        open_image_set(tmp_path).read("val")


def test_imagenet_nesting(tmp_path: Path) -> None:
    write_tree(tmp_path / "ILSVRC/Data/CLS-LOC/train", "n01/1.jpg", "n02/1.jpg")
    assert open_image_set(tmp_path).classes == ("n01", "n02")


def test_folders_that_cannot_be_classified(tmp_path: Path) -> None:
    (tmp_path / "x" / "empty").mkdir(parents=True)
    write_tree(tmp_path / "x", "full/1.png")
    (tmp_path / "x" / "empty" / "readme.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"empty: no images \(1 other files\)"):
        open_image_set(tmp_path / "x").read("all")
    with pytest.raises(DataError, match="one class cannot be classified, found only"):
        open_image_set(write_tree(tmp_path / "y", "only/1.png"))
    with pytest.raises(DataError, match="has val, test but no train"):
        open_image_set(write_tree(tmp_path / "z", "val/a/1.png", "test/a/1.png"))
    with pytest.raises(DataError, match="has val and valid, both for val; keep one"):
        open_image_set(write_tree(tmp_path / "z", "train/a/1.png", "valid/a/1.png"))
    with pytest.raises(DataError, match="flat/test: holds no class folders"):
        open_image_set(
            write_tree(tmp_path / "flat", "train/a/1.png", "train/b/1.png", "test/1.png")
        ).read("test")


def test_unreadable_folder(tmp_path: Path) -> None:
    """One too deep to be opened by its name: a mode that forbids it would not stop root."""
    write_tree(tmp_path, "a/1.png", "b/1.png")
    folder = os.open(tmp_path / "a", os.O_DIRECTORY)
    for _ in range(os.pathconf(tmp_path, "PC_PATH_MAX") // 200 + 1):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(DataError, match=r"a: cannot be read \(File name too long\)"):
        open_image_set(tmp_path).read("all")
