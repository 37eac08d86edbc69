"""ILSVRC-2012 and 2010 as published, with their development kits, and Kaggle's layout of 2012.

Labels are joined to files by name: the kit's ID is not the class index; ID -> WNID -> place among
the sorted WNIDs. The kit's own counts are held against what is there.
"""

import csv
import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

import numpy as np

from alexnet.data.archive import ArchiveFiles, Limited, is_archive, list_archive
from alexnet.data.image_set import (
    UNLABELLED,
    ImageSet,
    LabelledImages,
    Opening,
    make_files,
    make_image_set,
    reading,
)
from alexnet.data.images import is_image
from alexnet.data.layout import split_of
from alexnet.data.tree import FileTree, list_tree
from alexnet.errors import DataError, Unavailable

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
KITS = {
    "ILSVRC-2012": "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC-2010": "ILSVRC2010_devkit-1.0.tar.gz",
}
_KIT_LIMIT = 64 << 20  # bytes that a development kit, or its meta.mat, may unpack to
_COMPRESSED = 15  # the mark of a compressed variable in a .mat


# the development kit


@dataclass(frozen=True)
class Kit:
    """wnids by ILSVRC ID from 1, what people call them, training images of each, val labels."""

    wnids: tuple[str, ...]
    titles: Mapping[str, str]
    train_counts: tuple[int, ...]
    val_ids: tuple[int, ...]


def read_kit(kind: str, path: Path) -> Kit:
    """meta.mat and the validation ground truth of a development kit, read as streams."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise Unavailable(
            "the kit's meta.mat needs scipy: pip install 'alexnet[imagenet]'"
        ) from None
    if not path.is_file():
        raise DataError(f"{path} is missing; labels cannot be joined without the development kit")
    names = {"data/meta.mat", f"data/{kind.replace('-', '')}_validation_ground_truth.txt"}
    texts = _kit_files(path, names)
    if missing := sorted(names - texts.keys()):
        raise DataError(f"{path}: holds no {missing[0]}: this is not the kit of {kind}")
    meta, truth = (texts[name] for name in sorted(names, key=lambda n: not n.endswith(".mat")))
    tag = f"{kind.replace('-', '')}_ID"
    try:
        _check_unpacked(meta)
        tables = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])
        table = tables["synsets"]
        leaves = [row for row in np.atleast_1d(table) if int(row["num_children"]) == 0]
        leaves.sort(key=lambda row: int(row[tag]))
        wnids = tuple(str(row["WNID"]) for row in leaves)
        titles = {str(row["WNID"]): str(row["words"]) for row in leaves}
        counts = tuple(int(row["num_train_images"]) for row in leaves)
        ids = [int(row[tag]) for row in leaves]
    # loadmat raises nearly anything on a damaged file.
    except Exception as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: meta.mat cannot be read ({why}); get the kit again") from None
    if ids != list(range(1, len(ids) + 1)) or len(set(wnids)) != len(wnids) or len(wnids) < 2:
        raise DataError(f"{path}: meta.mat does not number its classes from 1: wrong kit")
    return Kit(wnids, titles, counts, parse_ids(truth, path, len(wnids)))


def parse_ids(text: bytes, path: Path, classes: int) -> tuple[int, ...]:
    """A ground truth: the ILSVRC ID of each image, one a line, from 1 to `classes`."""
    try:
        ids = tuple(int(line) for line in text.split())
    except ValueError:
        ids = ()
    if not ids or min(ids) < 1 or max(ids) > classes:
        raise DataError(f"{path}: expected IDs from 1 to {classes}, one a line; get the kit again")
    return ids


def _kit_files(path: Path, names: set[str]) -> dict[str, bytes]:
    """Files of a development kit by folder and name, where they are there."""
    files: dict[str, bytes] = {}
    with reading(path), gzip.open(path) as unpacked:
        # A header can ask for any amount of memory: nothing beyond the limit is there to be read.
        stream = cast("BinaryIO", Limited(cast("BinaryIO", unpacked), _KIT_LIMIT))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.offset_data + member.size > _KIT_LIMIT:
                    raise DataError(
                        f"{path}: unpacks to more than {_KIT_LIMIT:,} bytes, which no kit does; "
                        "get the kit again"
                    )
                name = "/".join(member.name.split("/")[-2:])
                if name in names and member.isreg():
                    content = archive.extractfile(member)
                    assert content is not None
                    files[name] = content.read()
    return files


def _check_unpacked(meta: bytes) -> None:
    """ValueError where the compressed variables of a .mat (version 5) unpack to too much."""
    order: Literal["little", "big"] = "big" if meta[126:128] == b"MI" else "little"
    at, room = 128, _KIT_LIMIT
    while at + 8 <= len(meta):
        kind, size = (int.from_bytes(meta[i : i + 4], order) for i in (at, at + 4))
        if kind == _COMPRESSED:
            data = meta[at + 8 : at + 8 + size]
            room -= len(zlib.decompressobj().decompress(data, room + 1))
            if room < 0:
                raise ValueError(f"unpacks to more than {_KIT_LIMIT:,} bytes")
        at += 8 + size


# the sets


def training_hours(images_per_s: float) -> float:
    """Hours that the paper's 90 epochs of ILSVRC-2012 take at a speed."""
    return EPOCHS * OFFICIAL["ILSVRC-2012"]["train"] / images_per_s / 3600


def open_ilsvrc(opening: Opening) -> ImageSet | None:
    """The archives of ILSVRC-2012 or 2010 beside their kit, or Kaggle's layout, in a folder or an
    archive. Runs that began by older rules read such folders as class folders."""
    root = opening.root
    if opening.rules < 2 or not (root.is_dir() or is_archive(root)):
        return None
    if root.is_dir() and (kind := recognise(root)):
        return official(kind, root)
    if opening.listing is None:
        opening.listing = list_tree(root)
    tree: FileTree = opening.listing
    if any(KAGGLE in f"{folder}/" for folder in tree.folders):
        return kaggle(root, tree)
    return None


def recognise(root: Path) -> str:
    """ILSVRC-2012 or 2010 where a folder holds one of its archives; else empty."""
    for kind in OFFICIAL:
        if any((root / name).is_file() for name in (*_ARCHIVES[kind].values(), KITS[kind])):
            return kind
    return ""


def official(kind: str, root: Path) -> ImageSet:
    """The archives of ILSVRC-2012 or 2010 with their development kit, nothing unpacked."""
    kit = read_kit(kind, root / KITS[kind])
    classes = tuple(sorted(kit.wnids))
    label_of_id = {i: classes.index(wnid) for i, wnid in enumerate(kit.wnids, 1)}
    patches = _patches(root / _PATCHES) if kind == "ILSVRC-2010" else {}
    parts: dict[str, LabelledImages] = {}
    for split, archive in _ARCHIVES[kind].items():
        if not (root / archive).is_file():
            if split == "train":
                raise DataError(f"{root}: {archive} is missing; put it beside the development kit")
            continue
        listing = list_archive(root / archive)
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
    return _of_parts(kind, root, classes, parts, kit.titles)


def _by_wnid(
    kind: str,
    archive: Path,
    listing: ArchiveFiles,
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
    listing: ArchiveFiles,
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


def _patches(path: Path) -> dict[tuple[str, str], tuple[ArchiveFiles, int]]:
    """ILSVRC-2010's corrected images, by split and file name: .../train/n0_1.JPEG."""
    if not path.is_file():
        return {}
    listing = list_archive(path)
    patches = {}
    for i, name in enumerate(listing.names):
        split = _place(name)[0]
        patches["train" if split == "all" else split, PurePosixPath(name).name] = (listing, i)
    return patches


def kaggle(root: Path, tree: FileTree) -> ImageSet:
    """Kaggle's layout: train by wnid, val and test flat, labels of val in a table beside."""
    titles = dict(
        line.split(" ", 1) for line in _table(root, tree, _MAPPING).splitlines() if " " in line
    )
    answers: dict[str, str] = {}
    for row in csv.DictReader(io.StringIO(_table(root, tree, _SOLUTION))):
        image, answer = row.get("ImageId"), row.get("PredictionString")
        if not image or not answer:
            raise DataError(f"{_SOLUTION}: expected the columns ImageId and PredictionString")
        answers[image] = answer.split(" ", 1)[0]
    rows: dict[str, list[tuple[int, int, int]]] = {}
    images = [(entry, *_place(entry.name)) for entry in tree.entries if is_image(entry.name)]
    classes = tuple(sorted({label for _, split, label in images if split == "train"}))
    index = {wnid: label for label, wnid in enumerate(classes)}
    for entry, split, wnid in images:
        path = PurePosixPath(entry.name)
        wnid = wnid if split == "train" or wnid in index else answers.get(path.stem, "")
        if split == "val" and wnid not in index:
            raise DataError(
                f"{root}: {path.name} has no label: put LOC_val_solution.csv beside ILSVRC/"
            )
        label = index.get(wnid, UNLABELLED)
        rows.setdefault(split, []).append((entry.listing, entry.file, label))
    parts = {split: make_files(tree.listings, some) for split, some in rows.items()}
    return _of_parts("ILSVRC-2012", root, classes, parts, titles)


def _of_parts(
    kind: str,
    root: Path,
    classes: tuple[str, ...],
    parts: Mapping[str, LabelledImages],
    titles: Mapping[str, str],
) -> ImageSet:
    readers = {split: partial(parts.__getitem__, split) for split in parts}
    return make_image_set(kind, root, classes, readers, titles=titles)


def _place(name: str) -> tuple[str, str]:
    """(split, class) that a path says: .../train/n01/n01_1.JPEG, .../val/1.JPEG."""
    folders = name.split("/")[:-1]
    for at, folder in enumerate(folders):
        if split := split_of(folder, older=True):
            return split, folders[at + 1] if at + 1 < len(folders) else ""
    return "all", folders[0] if folders else ""


def _table(root: Path, tree: FileTree, name: str) -> str:
    """A text of Kaggle's, inside the set or beside it; empty where it is not there."""
    entry = next((entry for entry in tree.entries if entry.name == name), None)
    if entry is not None:
        data = tree.listings[entry.listing].read(entry.file)
    elif (file := root.parent / name).is_file():
        with reading(file):
            data = file.read_bytes()
    else:
        return ""
    with reading(root / name):
        return data.decode("utf-8")


# files that are known to be odd; `data check` finds them by decoding all

# TensorFlow's list for ILSVRC-2012.
_PNG_2012 = "n02105855_2933"
_CMYK_2012 = """
    n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 n03018349_4028
    n03062245_4620 n03347037_9675 n03467068_12171 n03529860_11437 n03544143_17228 n03633091_5218
    n03710637_5125 n03961711_5286 n04033995_2932 n04258138_17003 n04264628_27969 n04336792_7448
    n04371774_5854 n04596742_4225 n07583066_647 n13037406_4650
"""
# One builder's list for ILSVRC-2010, not cross-checked.
_GZIP_2010 = "n02487347_1956"
_EXTRA_2010 = "n01669191_10054 n02882647_18811"
_CMYK_2010 = """
    val_00014712 val_00040086 val_00041418 test_00099846 test_00149181 n01739381_1309
    n02747177_10752 n02872752_3721 n03109150_15092 n03329302_553 n03347037_9675 n03359436_9884
    n03633091_5218 n03710637_5125 n04033995_2932 n04453156_5048 n04517823_2387 n04596742_4225
"""

KNOWN_ODD: dict[str, dict[str, str]] = {
    "ILSVRC-2012": {_PNG_2012: "PNG", **dict.fromkeys(_CMYK_2012.split(), "CMYK")},
    "ILSVRC-2010": {
        _GZIP_2010: "gzip-compressed",
        **dict.fromkeys(_EXTRA_2010.split(), "bytes after the end"),
        **dict.fromkeys(_CMYK_2010.split(), "CMYK"),
    },
}
ODD_BY = {
    "ILSVRC-2012": "TensorFlow's list",
    "ILSVRC-2010": "one builder's list, not cross-checked",
}


def known_as(stem: str) -> str:
    """Where a file is known from, by its name without suffix; empty for the others."""
    stem = stem.removeprefix("ILSVRC2010_").removeprefix("ILSVRC2012_")
    sets = [name for name, table in KNOWN_ODD.items() if stem in table]
    return " and ".join(f"{name} ({ODD_BY[name]})" for name in sets)
