"""alexnet data: data sets fetched, checked and packed."""

import time
from pathlib import Path
from typing import Literal

import numpy as np

from alexnet.data import check, fetch
from alexnet.data.forms import open_image_set
from alexnet.data.images import MAX_PIXELS, MOST_PIXELS, Orient
from alexnet.data.packed import count_turned
from alexnet.data.packing import (
    Encoding,
    PackOptions,
    PackSource,
    expected_bytes,
    list_source,
    pack_images,
    sample_sizes,
)
from alexnet.errors import DataError, UsageError, did_you_mean
from alexnet.records import (
    DataCheckResult,
    DataGetResult,
    DataPackResult,
    PackedManifest,
    UnreadFile,
)
from alexnet.support.argument_checks import Range, checked
from alexnet.support.options import option
from alexnet.support.terminal import progress, say

PAPER_SIZE = 256  # pixels, section 2
WORKERS = Range(0, 1024)  # threads that read images


@checked()
def data_get(name: str, *, offline: bool = False) -> DataGetResult:
    """Fetches a data set into the cache, checksum verified; returns where it is."""
    if name not in fetch.PUBLISHED_SETS:
        raise UsageError(f"no data set {name!r} to fetch{did_you_mean(name, fetch.PUBLISHED_SETS)}")
    total = sum(file.size for file in fetch.PUBLISHED_SETS[name].files)
    with progress(f"fetching {name}", total, "bytes") as bar:
        path = fetch.fetch_data_set(
            name, offline=offline, progress=lambda done, _: bar.advance(done - bar.done)
        )
    return DataGetResult(name=name, path=str(path))


@checked(max_pixels=Range(1, MOST_PIXELS), workers=WORKERS)
def data_check(
    path: str | Path,
    *,
    orient: Orient = "ignore",
    max_pixels: int = MAX_PIXELS,
    workers: int = 2,
) -> DataCheckResult:
    """Decodes every image of a folder, tar, zip or folder of archives, and says what is odd.

    Returns a DataCheckResult: what is fine, repairable and refused, duplicates and near copies,
    classes that are empty or tiny, counts, and why it cannot be packed as it is.
    """
    began = time.monotonic()
    report = check.check(
        Path(path).expanduser(), orient=orient, max_pixels=max_pixels, workers=workers
    )
    wall = time.monotonic() - began
    try:
        images = open_image_set(Path(path).expanduser().absolute())
        list_source(images)
        note = " ".join(note for note in images.notes if note.endswith("not read"))
    except DataError as error:
        note = " ".join(str(error).split())
    read = {
        name: [UnreadFile(**entry) for entry in getattr(report, name)]
        for name in ("repairable", "refused")
    }
    return DataCheckResult(
        **{**vars(report), **read},
        note=note,
        images_per_s=round(report.images / max(wall, 1e-9), 1),
        wall_s=round(wall, 2),
    )


@checked(size=Range(1, 4096), max_pixels=Range(1, MOST_PIXELS), workers=WORKERS)
def data_pack(
    source: str | Path,
    *,
    out: str | Path,
    size: int | None = None,
    encoding: Encoding = "raw",
    orient: Orient = "ignore",
    channels: Literal[1, 3] = 3,
    max_pixels: int = MAX_PIXELS,
    expect: dict[str, int] | None = None,
    workers: int = 2,
) -> DataPackResult:
    """Packs a source for speed: shorter side to `size`, centre square, repaired and measured.

    `size` None is 256, the paper's; of images that all have one size of at most half of that, as
    CIFAR-10's, it is their own.

    Sources are folders of class folders, tars and zips of them, IDX, CIFAR-10, Kaggle's layout and
    ILSVRC's own archives with their development kit. Killed, the same call continues. Returns
    a DataPackResult: what was packed, repaired, refused and left out.
    """
    began = time.monotonic()
    images = list_source(open_image_set(Path(source).expanduser().absolute()))
    side = _choose_size(images, size, channels, encoding)
    options = PackOptions(side, encoding, orient, channels, max_pixels)
    manifest = pack_images(images, Path(out), options, expect=expect, workers=workers)
    if orient == "ignore" and images.kind == "tree" and (turned := count_turned(manifest)):
        say(
            f"{turned:,} files have an EXIF orientation and are packed as they are stored: "
            f"{option('orient', 'apply')} packs photos upright"
        )
    return DataPackResult(
        out=str(out),
        classes=len(manifest.classes),
        counts=manifest.counts,
        size=manifest.size,
        encoding=manifest.encoding,
        repaired=len(manifest.repairs),
        refused=manifest.refused,
        empty=_empty_classes(Path(out), manifest),
        across=manifest.across,
        others=manifest.others,
        bytes=sum(file.bytes for file in manifest.payload.values()),
        wall_s=round(time.monotonic() - began, 2),
    )


def _empty_classes(out: Path, manifest: PackedManifest) -> list[str]:
    split = "train" if "train" in manifest.counts else "all"
    labels = np.load(out / f"{split}.labels.npy", allow_pickle=False)
    classes = manifest.classes
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]


def _choose_size(source: PackSource, size: int | None, channels: int, encoding: str) -> int:
    """The size to pack at. Says where it is not PAPER_SIZE, or most images would be enlarged."""
    seen = sample_sizes(source)
    sides = sorted(min(shape) for shape in seen)
    if size is None and len(set(seen)) == 1 and sides[0] <= PAPER_SIZE // 2:
        height, width = seen[0]
        say(
            f"images of {width} x {height} pixels: packing at their own, {option('size', sides[0])}"
        )
        return sides[0]
    chosen = PAPER_SIZE if size is None else size
    middle = sides[len(sides) // 2] if sides else chosen
    if middle < chosen:
        images = sum(len(files) for files in source.parts.values())
        room, less = (
            f"{expected_bytes(images, s, channels, encoding) / 1e6:,.0f} MB"
            for s in (chosen, middle)
        )
        say(
            f"most images are enlarged: the shorter side is {middle} pixels (median of "
            f"{len(sides)}), {option('size', chosen)} was asked: about {room}, and {less} with "
            f"{option('size', middle)}"
        )
    return chosen
