"""ILSVRC-2012 and 2010 as published, archives and development kit, and Kaggle's layout of 2012.

Labels are joined to files by name: the kit's ID is not the class index; ID -> WNID -> place among
the sorted WNIDs. The kit's own counts are held against what is there.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet.data.devkit import KITS, Kit, parse_ids, read_kit
from alexnet.data.labelled import UNLABELLED, Arranged, Files, make_files
from alexnet.data.layout import split_of
from alexnet.data.listing import Listing, list_files
from alexnet.data.raw import reading
from alexnet.errors import DataError

OFFICIAL = {
    "ILSVRC-2012": {"train": 1_281_167, "val": 50_000, "test": 100_000},
    "ILSVRC-2010": {"train": 1_261_406, "val": 50_000, "test": 150_000},
}
EPOCHS = 90  # of the paper
_ARCHIVES = {
    "ILSVRC-2012": {
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
        "test": "ILSVRC2012_img_test_v10102019.tar",
    },
    "ILSVRC-2010": {
        "train": "ILSVRC2010_images_train.tar",
        "val": "ILSVRC2010_images_val.tar",
        "test": "ILSVRC2010_images_test.tar",
    },
}
_PATCHES = "patch_images.tar"
_MAPPING, _SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
KAGGLE = "ILSVRC/Data/CLS-LOC/train/"


def training_hours(images_per_s: float) -> float:
    """Hours that the paper's 90 epochs of ILSVRC-2012 take at a speed."""
    return EPOCHS * OFFICIAL["ILSVRC-2012"]["train"] / images_per_s / 3600


def recognise(root: Path) -> str:
    """ILSVRC-2012 or 2010 where a folder holds one of its archives; else empty."""
    for kind in OFFICIAL:
        if any((root / name).is_file() for name in (*_ARCHIVES[kind].values(), KITS[kind])):
            return kind
    return ""


def official(kind: str, root: Path) -> Arranged:
    """The archives of ILSVRC-2012 or 2010 with their development kit, nothing unpacked."""
    kit = read_kit(kind, root / KITS[kind])
    classes = tuple(sorted(kit.wnids))
    label_of_id = {i: classes.index(wnid) for i, wnid in enumerate(kit.wnids, 1)}
    patches = _patches(root / _PATCHES) if kind == "ILSVRC-2010" else {}
    parts: dict[str, Files] = {}
    for split, archive in _ARCHIVES[kind].items():
        if not (root / archive).is_file():
            if split == "train":
                raise DataError(f"{root}: {archive} is missing; put it beside the development kit")
            continue
        listing = list_files(root / archive)
        images = [i for i, name in enumerate(listing.names) if name.lower().endswith(".jpeg")]
        if not images:
            raise DataError(f"{root / archive}: holds no .JPEG; this is not {archive}")
        if split == "train":
            rows = _by_wnid(kind, root / archive, listing, images, classes, kit)
        else:
            ids = _truth(kind, root, split, kit)
            name = f"{kind.replace('-', '')}_{split}"
            rows = _by_number(root / archive, name, listing, images, ids, label_of_id)
        replaced = [
            (1, patches[key][1], label)
            if (key := (split, PurePosixPath(listing.names[i]).name)) in patches
            else (0, i, label)
            for i, label in rows
        ]
        extra = tuple({id(p[0]): p[0] for p in patches.values()}.values())
        parts[split] = make_files((listing, *extra), replaced)
    return Arranged(kind, root, classes, parts, kit.titles)


def _by_wnid(
    kind: str,
    archive: Path,
    listing: Listing,
    images: list[int],
    classes: tuple[str, ...],
    kit: Kit,
) -> list[tuple[int, int]]:
    index = {wnid: label for label, wnid in enumerate(classes)}
    rows = []
    for i in images:
        wnid = PurePosixPath(listing.names[i]).name.partition("_")[0]
        if wnid not in index:
            raise DataError(
                f"{archive}: {listing.names[i]} is of no class of the kit: wrong archive"
            )
        rows.append((i, index[wnid]))
    counts = np.bincount([label for _, label in rows], minlength=len(classes))
    for wnid, expected in zip(kit.wnids, kit.train_counts, strict=True):
        if expected and counts[index[wnid]] != expected:
            raise DataError(
                f"{archive}: {counts[index[wnid]]:,} images of {wnid} and the development kit says "
                f"{expected:,}: the archive was cut or is another {kind}; get it again"
            )
    return rows


def _by_number(
    archive: Path,
    expected: str,
    listing: Listing,
    images: list[int],
    ids: tuple[int, ...] | None,
    label_of_id: Mapping[int, int],
) -> list[tuple[int, int]]:
    rows, seen = [], set[int]()
    for i in images:
        number = re.fullmatch(r"(.*)_(\d{8})\.JPEG", PurePosixPath(listing.names[i]).name, re.I)
        if number is None or number[1] != expected:
            # Those of another year fit by their numbers, and every label would be wrong.
            raise DataError(
                f"{archive}: {listing.names[i]} is not called {expected}_00000001.JPEG or such: "
                "this is another archive"
            )
        place = int(number[2])
        if place in seen:
            raise DataError(f"{archive}: number {place} occurs twice; get the archive again")
        seen.add(place)
        if ids is None:
            rows.append((i, UNLABELLED))
        elif 1 <= place <= len(ids):
            rows.append((i, label_of_id[ids[place - 1]]))
        else:
            raise DataError(
                f"{archive}: {listing.names[i]} is number {place} and the ground truth has "
                f"{len(ids):,} lines: wrong development kit"
            )
    return rows


def _truth(kind: str, root: Path, split: str, kit: Kit) -> tuple[int, ...] | None:
    if split == "val":
        return kit.val_ids
    file = root / f"{kind.replace('-', '')}_test_ground_truth.txt"
    if not file.is_file():
        return None
    with reading(file):
        return parse_ids(file.read_bytes(), file, len(kit.wnids))


def _patches(path: Path) -> dict[tuple[str, str], tuple[Listing, int]]:
    """ILSVRC-2010's corrected images, by split and file name: .../train/n0_1.JPEG."""
    if not path.is_file():
        return {}
    listing = list_files(path)
    found = {}
    for i, name in enumerate(listing.names):
        split = _place(name)[0]
        found["train" if split == "all" else split, PurePosixPath(name).name] = (listing, i)
    return found


def kaggle(root: Path, listing: Listing) -> Arranged:
    """Kaggle's layout: train by wnid, val and test flat, labels of val in a table beside."""
    titles = dict(
        line.split(" ", 1) for line in _table(listing, _MAPPING).splitlines() if " " in line
    )
    answers: dict[str, str] = {}
    for row in csv.DictReader(io.StringIO(_table(listing, _SOLUTION))):
        image, answer = row.get("ImageId"), row.get("PredictionString")
        if not image or not answer:
            raise DataError(f"{_SOLUTION}: expected the columns ImageId and PredictionString")
        answers[image] = answer.split(" ", 1)[0]
    rows: dict[str, list[tuple[int, int, int]]] = {}
    images = [
        (i, *_place(name), PurePosixPath(name))
        for i, name in enumerate(listing.names)
        if PurePosixPath(name).suffix.lower() == ".jpeg"
    ]
    classes = tuple(sorted({label for _, split, label, _ in images if split == "train"}))
    index = {wnid: label for label, wnid in enumerate(classes)}
    for i, split, wnid, path in images:
        wnid = wnid if split == "train" or wnid in index else answers.get(path.stem, "")
        if split == "val" and wnid not in index:
            raise DataError(
                f"{root}: {path.name} has no label: put LOC_val_solution.csv beside ILSVRC/"
            )
        rows.setdefault(split, []).append((0, i, index.get(wnid, UNLABELLED)))
    return Arranged(
        "ILSVRC-2012",
        root,
        classes,
        {k: make_files((listing,), v) for k, v in rows.items()},
        titles,
    )


def _place(name: str) -> tuple[str, str]:
    """(split, class) that a path says: .../train/n01/n01_1.JPEG, .../val/1.JPEG."""
    folders = name.split("/")[:-1]
    for at, folder in enumerate(folders):
        if split := split_of(folder, older=True):
            return split, folders[at + 1] if at + 1 < len(folders) else ""
    return "all", folders[0] if folders else ""


def _table(listing: Listing, name: str) -> str:
    """A text of Kaggle's, inside the archive or beside it; empty where it is not there."""
    if name in listing.names:
        data = listing.read(listing.names.index(name))
    elif (file := listing.root.parent / name).is_file():
        with reading(file):
            data = file.read_bytes()
    else:
        return ""
    with reading(listing.root / name):
        return data.decode("utf-8")
