"""The development kit of ILSVRC-2012 or 2010: its classes, and the answers for val."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from alexnet.data.raw import Limited, reading
from alexnet.errors import DataError, Unavailable

KITS = {
    "ILSVRC-2012": "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC-2010": "ILSVRC2010_devkit-1.0.tar.gz",
}
_KIT_LIMIT = 64 << 20  # bytes that a development kit, or its meta.mat, may unpack to
_COMPRESSED = 15  # the mark of a compressed variable in a .mat


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
    wanted = {"data/meta.mat", f"data/{kind.replace('-', '')}_validation_ground_truth.txt"}
    found = _kit_files(path, wanted)
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{path}: holds no {missing[0]}: this is not the kit of {kind}")
    meta, truth = (found[name] for name in sorted(wanted, key=lambda n: not n.endswith(".mat")))
    tag = f"{kind.replace('-', '')}_ID"
    try:
        _check_unpacked(meta)
        found_in = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])
        table = found_in["synsets"]
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


def _kit_files(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Files of a development kit by folder and name, as far as they are there."""
    found: dict[str, bytes] = {}
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
                if name in wanted and member.isreg():
                    content = archive.extractfile(member)
                    assert content is not None
                    found[name] = content.read()
    return found


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
