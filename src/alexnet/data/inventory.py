"""The files of a run's data, by name and size, as they were when it began.

With it a folder is opened again as it was cut: a file that the run knows to be gone keeps its
place, so that ids, cuts and order do not shift. A few megabytes for a million files.
"""

import io
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.raw import LabelledImages, Source
from alexnet.errors import CheckpointError
from alexnet.files import read_bytes, write_atomic

NAME = "files.npz"
GONE = -1  # the size of a file that is not there


@dataclass(frozen=True)
class Listed:
    """The files of one part in their order: names inside the set, labels (N,), sizes (N,) bytes."""

    names: list[str]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]


def size_of(file: Path) -> int:
    """Bytes of a file, GONE where there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return GONE


def names_of(part: LabelledImages, root: str) -> list[str]:
    """What the files of a part are called inside the set."""
    assert isinstance(part.images, tuple)
    start = len(os.path.join(root, ""))
    return [str(file)[start:] for file in part.images]


def take_inventory(source: Source, parts: Iterable[str]) -> dict[str, Listed]:
    """The files of some parts of a source; empty where its images are no files."""
    listed = {}
    for name in sorted(set(parts)):
        part = source.load(name)
        if isinstance(part.images, tuple):
            sizes = np.array([size_of(file) for file in part.images], np.int64)
            listed[name] = Listed(names_of(part, source.path), part.labels, sizes)
    return listed


def write_inventory(run: Path, listed: dict[str, Listed]) -> None:
    """Keeps it in a run. Raises CheckpointError where the disk refuses."""
    tables: dict[str, NDArray[np.generic]] = {}
    for part, files in listed.items():
        names = b"\0".join(map(os.fsencode, files.names))
        tables[f"{part}.names"] = np.frombuffer(names, np.uint8)
        tables[f"{part}.labels"] = files.labels.astype(np.int32)
        tables[f"{part}.sizes"] = files.sizes
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **tables)
    write_atomic(run / NAME, out.getvalue())


def read_inventory(run: Path) -> dict[str, Listed]:
    """What `write_inventory` kept; empty of a run that kept none. CheckpointError if damaged."""
    path = run / NAME
    if not path.is_file():
        return {}
    listed = {}
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as tables:
            for part in sorted({key.split(".")[0] for key in tables}):
                written = tables[f"{part}.names"].tobytes().split(b"\0")
                names = [os.fsdecode(name) for name in written]
                labels = tables[f"{part}.labels"].astype(np.int64)
                listed[part] = Listed(names, labels, tables[f"{part}.sizes"].astype(np.int64))
                if not len(names) == len(labels) == len(listed[part].sizes):
                    raise ValueError("its tables are not of one length")
    except CheckpointError:
        raise
    except Exception as error:  # numpy's and zip's readers raise almost anything on hostile bytes
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged ({why}): restore it from a copy") from error
    return listed


def as_listed(source: Source, listed: dict[str, Listed], excused: Collection[str]) -> Source:
    """The source with the files that were listed, in that order, where all that are missing are
    excused and none came to them; else as it is."""

    def load(name: str) -> LabelledImages:
        part = source.load(name)
        was = listed.get(name)
        if was is None or not isinstance(part.images, tuple):
            return part
        now = names_of(part, source.path)
        if now == was.names or not set(now) <= set(was.names):
            return part
        if not set(was.names) - set(now) <= set(excused):
            return part
        root = Path(source.path)
        return LabelledImages(was.labels, tuple(root / name for name in was.names))

    return replace(source, load=load)
