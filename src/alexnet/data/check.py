"""Every image of a data set decoded, and what is wrong with the set."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath

from alexnet.data.copies import (
    Detail,
    Fingerprint,
    fingerprint_image,
    group_copies,
    read_detail,
)
from alexnet.data.examine import Examined, examine
from alexnet.data.ilsvrc import known_as
from alexnet.data.image_set import ImageFiles, no_image
from alexnet.data.images import MAX_PIXELS, Orient, is_image
from alexnet.data.layout import Folders, find_layout, split_in
from alexnet.data.read_ahead import read_ahead
from alexnet.data.tree import count_endings, list_tree
from alexnet.errors import DataError
from alexnet.support.terminal import progress

TINY = 10  # images; a class with fewer in train is called tiny
_PIECE = 16  # images a thread takes at a time


@dataclass
class CheckReport:
    """Findings. Paths are ARCHIVE/NAME of a file in an archive."""

    images: int = 0
    ok: int = 0
    others: dict[str, int] = field(default_factory=dict)
    repairable: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    across: list[list[str]] = field(default_factory=list)
    two_classes: list[list[str]] = field(default_factory=list)
    near_copies: list[list[str]] = field(default_factory=list)
    near_across: list[list[str]] = field(default_factory=list)
    near_two_classes: list[list[str]] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)


def check(
    path: Path, *, orient: Orient = "ignore", max_pixels: int = MAX_PIXELS, workers: int = 2
) -> CheckReport:
    """Decodes every image of a folder, a tar, a zip, or a folder of such archives.

    Nothing is changed or written. DataError where the container itself cannot be trusted.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name images to check")
    tree = list_tree(path, archives=True)
    chosen = tree.images
    if not chosen:
        if (path / "manifest.json").is_file():
            raise DataError(f"{path}: a packed set; check what it was packed from")
        raise no_image(path)
    files, total = tree.files(chosen), len(chosen)
    layout = find_layout(Folders([entry.name for entry in tree.entries], tree.folders))
    # Of an archive called ..._train.tar all is of that split, where nothing inside says otherwise.
    lone = split_in(path.stem) if path.is_file() else None

    @cache
    def place(folder: str) -> tuple[str, str]:
        split, label = layout.place(folder)
        return (lone or split if split == "all" else split), label

    report = CheckReport()
    report.others = count_endings([e.name for e in tree.entries if not is_image(e.name)])
    contents: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    fingerprints: list[Fingerprint] = []
    places: list[int] = []
    entries: list[tuple[str, str, str]] = []

    def examine_piece(start: int) -> list[tuple[str, bytes, Examined]]:
        stop = min(start + _PIECE, total)
        return [_examine(files, i, orient, max_pixels) for i in range(start, stop)]

    pieces = range(0, total, _PIECE)
    with progress(f"checking {path.name}", total, "images") as bar:
        for start, examined in zip(pieces, read_ahead(examine_piece, pieces, workers), strict=True):
            for i, (where, digest, one) in enumerate(examined, start):
                report.images += 1
                split, label = place(chosen[i].name.rpartition("/")[0])
                by_class = report.counts.setdefault(split, {})
                by_class[label] = by_class.get(label, 0) + (not one.refused)
                if one.refused:
                    report.refused.append({"path": where, "reason": one.refused})
                    continue
                entry = (where, split, label)
                contents[digest].append(entry)
                entries.append(entry)
                places.append(i)
                fingerprints.append(replace(one.extracted, content=digest))
                if one.repairs:
                    known = known_as(PurePosixPath(where).stem)
                    reason = ", ".join(one.repairs) + (f"; known of {known}" if known else "")
                    report.repairable.append({"path": where, "reason": reason})
                else:
                    report.ok += 1
            bar.advance(len(examined))
            if report.refused:
                bar.note(f"{len(report.refused):,} refused")
    for same in contents.values():
        if len(same) > 1:
            _add(same, report.duplicates, report.across, report.two_classes)

    def read(i: int) -> Detail | None:
        at = places[i]
        try:
            data = files.read(at)
        except DataError:  # it was read a moment ago, and is in the report
            return None
        detail: Detail | None = examine(
            data, files.name(at), orient=orient, max_pixels=max_pixels, extract=read_detail
        ).extracted
        return detail

    for group in group_copies(fingerprints, read, workers):
        if len({fingerprints[i].content for i in group}) > 1:  # else they are told of already
            same = [entries[i] for i in group]
            _add(same, report.near_copies, report.near_across, report.near_two_classes)
    for part, folder in (layout.parts or {"all": layout.top}).items():
        counts = report.counts.setdefault(lone or part if part == "all" else part, {})
        for name in Folders((), tree.folders).within(folder):
            counts.setdefault(name, 0)
    report.counts = {split: table for split, table in report.counts.items() if table}
    report.classes = _odd_classes(report.counts)
    return report


def _add(
    same: list[tuple[str, str, str]],
    within: list[list[str]],
    across: list[list[str]],
    two_classes: list[list[str]],
) -> None:
    """A group of (path, split, class) to where it belongs."""
    paths = [path for path, _, _ in same]
    (across if len({split for _, split, _ in same}) > 1 else within).append(paths)
    if len({label for _, _, label in same if label}) > 1:
        two_classes.append(paths)


def _examine(
    files: ImageFiles, index: int, orient: Orient, max_pixels: int
) -> tuple[str, bytes, Examined]:
    where = files.path(index)
    try:
        data = files.read(index)
    except DataError as error:
        return where, b"", Examined((), str(error).removeprefix(f"{where}: "))
    examined = examine(
        data, files.name(index), orient=orient, max_pixels=max_pixels, extract=fingerprint_image
    )
    return where, hashlib.sha256(data).digest(), examined


def _odd_classes(counts: dict[str, dict[str, int]]) -> dict[str, list[str]]:
    main = counts.get("train", counts.get("all", {}))
    labelled = {split: table for split, table in counts.items() if set(table) != {""}}

    names = sorted({name for table in labelled.values() for name in table if name})
    return {
        "empty": [n for n in names if n in main and not main[n]],
        "tiny": [n for n in names if 0 < main.get(n, 0) < TINY],
        "one_split": [
            n for n in names if len(labelled) > 1 and sum(n in t for t in labelled.values()) == 1
        ],
    }
