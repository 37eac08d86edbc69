"""Every image of a data set decoded, and what is odd about the set."""

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from alexnet.data.examine import Examined, examine
from alexnet.data.images import IMAGE_SUFFIXES, MAX_PIXELS, Orient, is_image
from alexnet.data.layout import split_of
from alexnet.data.listing import Listing, list_files
from alexnet.data.loader import read_ahead
from alexnet.data.near_copies import (
    Detail,
    Fingerprint,
    fingerprint_image,
    group_copies,
    read_detail,
)
from alexnet.data.odd import known_as
from alexnet.errors import DataError
from alexnet.terminal import progress

TINY = 10  # images; a class with fewer in train is called tiny
_ARCHIVES = (".tar", ".zip")
_PIECE = 16  # images a thread takes at a time


@dataclass
class CheckReport:
    """What was found. Paths are as a person would find the file: ROOT/NAME inside an archive."""

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
    listings = find_listings(path)
    report = CheckReport()
    tasks = []
    for listing in listings:
        chosen = [i for i, name in enumerate(listing.names) if is_image(name)]
        for ending, count in endings(listing.names).items():
            report.others[ending] = report.others.get(ending, 0) + count
        tasks += [(listing, chosen[i : i + _PIECE]) for i in range(0, len(chosen), _PIECE)]
    total = sum(len(ids) for _, ids in tasks)
    if not total:
        if (path / "manifest.json").is_file():
            raise DataError(f"{path}: a packed set; check what it was packed from")
        raise DataError(f"{path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    contents: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    fingerprints: list[Fingerprint] = []
    places: list[tuple[Listing, int]] = []
    entries: list[tuple[str, str, str]] = []

    def examine_piece(task: int) -> list[tuple[str, bytes, Examined]]:
        listing, ids = tasks[task]
        return [_examine(listing, i, orient, max_pixels) for i in ids]

    with progress(f"checking {path.name}", total, "images") as bar:
        for task, seen in enumerate(read_ahead(examine_piece, range(len(tasks)), workers)):
            listing, ids = tasks[task]
            for i, (where, digest, found) in zip(ids, seen, strict=True):
                report.images += 1
                split, label = _place(listing, i)
                by_class = report.counts.setdefault(split, {})
                by_class[label] = by_class.get(label, 0) + (not found.refused)
                if found.refused:
                    report.refused.append({"path": where, "reason": found.refused})
                    continue
                entry = (where, split, label)
                contents[digest].append(entry)
                entries.append(entry)
                places.append((listing, i))
                fingerprints.append(replace(found.extracted, content=digest))
                if found.repairs:
                    known = known_as(PurePosixPath(where).stem)
                    reason = ", ".join(found.repairs) + (f"; known of {known}" if known else "")
                    report.repairable.append({"path": where, "reason": reason})
                else:
                    report.ok += 1
            bar.advance(len(ids))
            if report.refused:
                bar.note(f"{len(report.refused):,} refused")
    for same in contents.values():
        if len(same) > 1:
            _add(same, report.duplicates, report.across, report.two_classes)

    def read(i: int) -> Detail | None:
        listing, at = places[i]
        try:
            data = listing.read(at)
        except DataError:  # it was read a moment ago, and has been told of
            return None
        seen: Detail | None = examine(
            data, listing.names[at], orient=orient, max_pixels=max_pixels,
            extract=read_detail,
        ).extracted  # fmt: skip
        return seen

    for group in group_copies(fingerprints, read, workers):
        if len({fingerprints[i].content for i in group}) > 1:  # else they are told of already
            same = [entries[i] for i in group]
            _add(same, report.near_copies, report.near_across, report.near_two_classes)
    for listing in listings:
        for folder in listing.empty:
            split, label = listing.place(f"{folder}/")
            report.counts.setdefault(split, {}).setdefault(label, 0)
    report.classes = _odd_classes(report.counts)
    return report


def endings(names: list[str]) -> dict[str, int]:
    """How many files are no images, by how their names end."""
    others = [PurePosixPath(name).suffix.lower() for name in names if not is_image(name)]
    return {ending or "no ending": count for ending, count in Counter(others).most_common()}


def find_listings(path: Path) -> list[Listing]:
    """A folder, an archive, or the archives that a folder holds."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name images to check")
    if path.is_dir():
        archives = sorted(f for f in path.iterdir() if f.suffix in _ARCHIVES and f.is_file())
        if archives:
            beside = list_files(path)
            loose = [beside] if any(map(is_image, beside.names)) else []
            return [*(list_files(archive) for archive in archives), *loose]
    return [list_files(path)]


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
    listing: Listing, index: int, orient: Orient, max_pixels: int
) -> tuple[str, bytes, Examined]:
    name = listing.names[index]
    where = f"{listing.root}/{name}"
    try:
        data = listing.read(index)
    except DataError as error:
        return where, b"", Examined((), str(error).removeprefix(f"{where}: "))
    found = examine(data, name, orient=orient, max_pixels=max_pixels, extract=fingerprint_image)
    return where, hashlib.sha256(data).digest(), found


def _place(listing: Listing, index: int) -> tuple[str, str]:
    """Split and class of a file; an archive called ..._train.tar is of that split."""
    split, label = listing.place(listing.names[index])
    if split == "all" and listing.root.is_file():
        words = re.split(r"[^a-z]+", listing.root.stem.lower())
        split = next((found for word in words if (found := split_of(word))), split)
    return split, label


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
