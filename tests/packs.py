"""A small set of images with odd and broken ones, and what a pack of it leaves on the disk."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import alexnet
from archives import encode, jpeg, picture, write_files

# Listings leave their files to the garbage collector: see test_archives.test_files_are_closed.

SIZE = 16


def pack(source: Path, out: Path, size: int = SIZE, **options: Any) -> Path:
    alexnet.data_pack(source, out=out, size=size, **options)
    return out


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def payload(out: Path) -> dict[str, bytes]:
    """All of a packed set but the manifest, the lock and what a kill may leave: see
    test_a_kill_leaves_no_litter."""
    skip = ("manifest.json", ".lock")
    files = (f for f in out.iterdir() if f.is_file() and f.name not in skip)
    files = (f for f in files if not f.name.startswith(".tmp-"))
    return {f.name: f.read_bytes() for f in files}


def looks_finished(out: Path) -> bool:
    return (out / "manifest.json").exists()


def make_files() -> dict[str, bytes]:
    """Good files of two classes in three parts. One class's name begins as the other's."""
    shapes = [(40, 30), (30, 40), (33, 33), (101, 24), (SIZE, SIZE), (9, 12), (17, 64)]
    files = {}
    for split, count in (("train", 9), ("val", 3), ("test", 2)):
        for c, name in enumerate(("cat", "cat-like")):
            for i in range(count):
                seed = 100 * len(files) + c
                image = picture(seed, *shapes[len(files) % len(shapes)])
                if i % 3 == 2:
                    files[f"{split}/{name}/{i}.png"] = encode(image, "PNG")
                else:
                    files[f"{split}/{name}/{i}.jpg"] = encode(image, quality=92)
    return files


FILES = make_files()
ODD = {
    "train/cat/gz.jpg": gzip.compress(jpeg(900)),
    "train/cat/named.jpg": encode(picture(901), "PNG"),
    "train/cat-like/cmyk.jpg": encode(picture(902).convert("CMYK")),
}
BROKEN = {"train/cat/0-broken.jpg": jpeg(903, 80, 80)[:-900], "val/cat/empty.jpg": b""}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("tree") / "set", FILES | ODD | BROKEN)


@pytest.fixture(scope="module")
def raw(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tree, tmp_path_factory.mktemp("packed") / "raw")
