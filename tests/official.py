"""ILSVRC's own archives, small ones in the official shapes, and the labels that they give."""

from pathlib import Path
from typing import Any

import numpy as np

import alexnet
from archives import WNIDS, jpeg, train_tar, write_kit, write_tar

# Listings leave their files to the garbage collector: see test_archives.test_files_are_closed.

COUNTS = {wnid: 3 + i for i, wnid in enumerate(WNIDS)}
TRUTH = [3, 1, 4, 1, 2]  # IDs of the validation images
TEST_TRUTH = [2, 2, 4]
INDEX = {wnid: sorted(WNIDS).index(wnid) for wnid in WNIDS}
KINDS = ["ILSVRC2012", "ILSVRC2010"]
NAMES = {
    "ILSVRC2012": {
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
        "test": "ILSVRC2012_img_test_v10102019.tar",
    },
    "ILSVRC2010": {
        "train": "ILSVRC2010_images_train.tar",
        "val": "ILSVRC2010_images_val.tar",
        "test": "ILSVRC2010_images_test.tar",
    },
}
KIT = {
    "ILSVRC2012": "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC2010": "ILSVRC2010_devkit-1.0.tar.gz",
}


def content(name: str) -> bytes:
    """The bytes of one image, another for every name."""
    return jpeg(int.from_bytes(name.encode()[-9:]) % 2**31, 20, 16)


def train_files(counts: dict[str, int] = COUNTS) -> dict[str, dict[str, bytes]]:
    """By WNID, as ILSVRC's: the numbers in the names have gaps and are not in order of length."""
    return {
        wnid: {f"{wnid}_{7 * i**3 + 1}.JPEG": b"" for i in range(n)} for wnid, n in counts.items()
    }


def numbered(kind: str, split: str, count: int) -> dict[str, bytes]:
    folder = {"ILSVRC2012": "" if split == "val" else "test/", "ILSVRC2010": f"{split}/"}[kind]
    names = (f"{folder}{kind}_{split}_{i:08d}.JPEG" for i in range(1, count + 1))
    return {name: content(Path(name).name) for name in names}


def write_official(root: Path, kind: str = "ILSVRC2012", **changes: Any) -> Path:
    """A folder of archives in the official shapes. changes: what write_kit is told otherwise."""
    root.mkdir(parents=True, exist_ok=True)
    classes = {w: {n: content(n) for n in files} for w, files in train_files().items()}
    (root / NAMES[kind]["train"]).write_bytes(train_tar(classes))
    write_tar(root / NAMES[kind]["val"], numbered(kind, "val", len(TRUTH)))
    write_tar(root / NAMES[kind]["test"], numbered(kind, "test", len(TEST_TRUTH)))
    if kind == "ILSVRC2010":
        truth = "".join(f"{i}\n" for i in TEST_TRUTH)
        (root / "ILSVRC2010_test_ground_truth.txt").write_text(truth)
    write_kit(root, kind, **{"counts": COUNTS, "truth": TRUTH} | changes)
    return root


def pack_official(source: Path, out: Path) -> Path:
    """Packed small, whatever the number of images."""
    alexnet.data_pack(source, out=out, size=8, expect={})
    return out


def labels_by_name(packed: Path, split: str) -> dict[str, int]:
    """What a packed set says of each file."""
    names = (packed / f"{split}.names.txt").read_text().splitlines()
    labels = np.load(packed / f"{split}.labels.npy", allow_pickle=False).tolist()
    return dict(zip((Path(name).name for name in names), labels, strict=True))


def wanted(kind: str) -> dict[str, dict[str, int]]:
    """Labels by file name, worked out from the tables above alone."""
    table = {i: INDEX[wnid] for i, wnid in enumerate(WNIDS, 1)}
    train = {n: INDEX[wnid] for wnid, files in train_files().items() for n in files}
    val = {f"{kind}_val_{i:08d}.JPEG": table[x] for i, x in enumerate(TRUTH, 1)}
    known = kind == "ILSVRC2010"
    test = {
        f"{kind}_test_{i:08d}.JPEG": table[x] if known else -1 for i, x in enumerate(TEST_TRUTH, 1)
    }
    return {"train": train, "val": val, "test": test}
