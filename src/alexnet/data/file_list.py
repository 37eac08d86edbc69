"""The list of files that a run keeps: names and sizes of its images as they were when it began.

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

from alexnet.data.image_set import ImageFiles, ImageSet, LabelledImages
from alexnet.data.tree import FolderFiles
from alexnet.errors import CheckpointError
from alexnet.support.files import read_bytes, write_atomic

NAME = "files.npz"


@dataclass(frozen=True)
class FileList:
    """The files of one part in their order: names below the set, labels (N,), sizes (N,) bytes."""

    names: list[str]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]


def list_files(images: ImageSet, parts: Iterable[str]) -> dict[str, FileList]:
    """The files of some parts of a set; empty where its images are no files."""
    lists = {}
    for name in sorted(set(parts)):
        part = images.read(name)
        if isinstance(part.images, ImageFiles):
            sizes = np.array([part.images.size(i) for i in range(len(part.images))], np.int64)
            lists[name] = FileList(part.images.paths_below(images.path), part.labels, sizes)
    return lists


def write_file_lists(run: Path, lists: dict[str, FileList]) -> None:
    """Keeps them in a run. Raises CheckpointError where the disk refuses."""
    tables: dict[str, NDArray[np.generic]] = {}
    for part, files in lists.items():
        names = b"\0".join(map(os.fsencode, files.names))
        tables[f"{part}.names"] = np.frombuffer(names, np.uint8)
        tables[f"{part}.labels"] = files.labels.astype(np.int32)
        tables[f"{part}.sizes"] = files.sizes
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **tables)
    write_atomic(run / NAME, out.getvalue())


def read_file_lists(run: Path) -> dict[str, FileList]:
    """The lists that `write_file_lists` kept; empty where there are none. CheckpointError if they
    are damaged."""
    path = run / NAME
    if not path.is_file():
        return {}
    lists = {}
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as tables:
            for part in sorted({key.split(".")[0] for key in tables}):
                written = tables[f"{part}.names"].tobytes().split(b"\0")
                names = [os.fsdecode(name) for name in written]
                labels = tables[f"{part}.labels"].astype(np.int64)
                lists[part] = FileList(names, labels, tables[f"{part}.sizes"].astype(np.int64))
                if not len(names) == len(labels) == len(lists[part].sizes):
                    raise ValueError("its tables are not of one length")
    except CheckpointError:
        raise
    except Exception as error:  # numpy's and zip's readers raise almost anything on hostile bytes
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged ({why}): restore it from a copy") from error
    return lists


def restore_list(
    images: ImageSet, lists: dict[str, FileList], excused: Collection[str]
) -> ImageSet:
    """The set with the files that a run listed, in that order, where all that are missing now are
    `excused` and none came to them; else the set as it is."""

    def read(name: str) -> LabelledImages:
        part = images.read(name)
        was = lists.get(name)
        if was is None or not isinstance(part.images, ImageFiles):
            return part
        now = part.images.paths_below(images.path)
        if now == was.names or not set(now) <= set(was.names):
            return part
        if not set(was.names) - set(now) <= set(excused):
            return part
        if not all(isinstance(one, FolderFiles) for one in part.images.listings):
            return part  # an archive does not lose files: it is another one
        rows = np.stack([np.zeros(len(was.names), int), np.arange(len(was.names))], 1)
        files = FolderFiles(Path(images.path), was.names)
        return LabelledImages(was.labels, ImageFiles((files,), rows))

    return replace(images, read=read)
