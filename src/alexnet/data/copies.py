"""Which images of a set show one picture, looked for once when a run begins."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.data.image_set import ImageFiles, ImageSet, LabelledImages, PixelFile
from alexnet.data.images import open_image
from alexnet.data.loader import read_ahead
from alexnet.data.near_copies import (
    MANY,
    Detail,
    Fingerprint,
    as_image,
    fingerprint_image,
    group_copies,
    read_detail,
)
from alexnet.errors import DataError
from alexnet.terminal import progress

ARRAYS = 64  # pixels; of arrays with a shorter side nothing is looked for
SMALL = ("digits", "cifar10")  # of 28 and 32: not read to learn that
UNIFORM = 10  # images; a group as large, of more than half its class, is no group of copies
_PIECE = 16  # images a thread takes at a time


@dataclass(frozen=True)
class Copies:
    """What was found: `groups` of two or more images of the part that is trained on, by place, and
    `across`, how many images of each other part are copies of one of them. `uniform` are classes
    whose images are so alike that copies cannot be told; `why_not` says why nothing was looked for.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    across: tuple[tuple[str, int], ...] = ()
    uniform: tuple[str, ...] = ()
    why_not: str = ""


def find_copies(source: ImageSet, workers: int) -> Copies:
    """Looks at every image of a set, at the files as they are or the arrays as they lie.

    What cannot be read is no copy: who trains on it says why.
    """
    if source.kind in SMALL:
        return Copies()
    main = "train" if "train" in source.parts else source.parts[0]
    parts: dict[str, LabelledImages] = {main: source.read(main)}
    images = parts[main].images
    if not isinstance(images, ImageFiles) and min(images.shape[1:3]) < ARRAYS:
        return Copies()
    for name in source.parts:
        if name != main:
            try:
                parts[name] = source.read(name)
            except DataError:  # whoever reads it says so
                continue
    places = [(part, i) for name, part in parts.items() for i in range(len(part.labels))]
    if len(places) > MANY:
        return Copies(why_not=f"{len(places):,} images are more than {MANY:,}")

    def fingerprint_piece(start: int) -> list[Fingerprint]:
        return [_fingerprint(*place) for place in places[start : start + _PIECE]]

    fingerprints: list[Fingerprint] = []
    with progress("looking for copies", len(places), "images") as bar:
        for some in read_ahead(fingerprint_piece, range(0, len(places), _PIECE), workers):
            fingerprints += some
            bar.advance(len(some))
    found = group_copies(fingerprints, lambda i: _read_detail(*places[i]), workers)
    names = [name for name, part in parts.items() for _ in range(len(part.labels))]
    across: Counter[str] = Counter()
    groups: list[tuple[int, ...]] = []
    uniform: set[str] = set()
    labels = parts[main].labels
    sizes = np.bincount(labels, minlength=len(source.classes))
    for group in found:
        own = [i for i in group if names[i] == main]
        if not own:
            continue
        label, most = Counter(labels[own].tolist()).most_common(1)[0]
        if most >= UNIFORM and most > sizes[label] / 2:
            uniform.add(source.classes[label])
            same: dict[bytes, list[int]] = {}
            for i in own:
                same.setdefault(fingerprints[i].content, []).append(i)
            groups += [tuple(one) for one in same.values() if len(one) > 1]
            continue
        across.update(names[i] for i in group if names[i] != main)
        if len(own) > 1:
            groups.append(tuple(own))
    return Copies(tuple(groups), tuple(sorted(across.items())), tuple(sorted(uniform)))


def _fingerprint(part: LabelledImages, i: int) -> Fingerprint:
    try:
        if isinstance(part.images, ImageFiles):
            data = part.images.read(i)
            content = hashlib.sha256(data).digest()
            try:
                with open_image(data) as image:
                    return fingerprint_image(image, content)
            except Exception:  # Pillow's parsers raise almost anything on hostile bytes
                return Fingerprint(0, content)
        pixels = _row(part, i)
        return fingerprint_image(as_image(pixels), hashlib.sha256(pixels.tobytes()).digest())
    except (OSError, DataError):
        return Fingerprint(0, f"unread {id(part)} {i}".encode())


def _read_detail(part: LabelledImages, i: int) -> Detail | None:
    try:
        if isinstance(part.images, ImageFiles):
            with open_image(part.images.read(i)) as image:
                return read_detail(image)
        return read_detail(as_image(_row(part, i)))
    except Exception:  # as above; it was read a moment ago
        return None


def _row(part: LabelledImages, i: int) -> NDArray[np.uint8]:
    """One image of arrays, (H, W, C)."""
    assert not isinstance(part.images, ImageFiles)
    images, ids = part.images, np.array([i])
    read = images[ids] if isinstance(images, np.ndarray | PixelFile) else images.read(ids)
    return np.asarray(read[0], np.uint8)
