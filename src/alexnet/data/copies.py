"""Finds images of a set that show one picture, also where their bytes differ: saved anew, resized,
made grey or brighter, cut a little at the edges, mirrored, or turned by a quarter.

Two steps. A perceptual digest of 64 bits, the signs of an image's lowest frequencies, finds pairs
that may show one picture: a few bits of two copies differ, and half of the bits of two pictures.
Each pair is then aligned, and shows one picture only where every region agrees: two photos of a
burst, or two forms filled in differently, differ in some region. Drawings on an empty ground have
little to compare, and must be equal without alignment.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.image_set import ImageFiles, ImageSet, LabelledImages, PixelFile
from alexnet.data.images import fit_image, open_image
from alexnet.data.read_ahead import read_ahead
from alexnet.errors import DataError
from alexnet.support.terminal import progress

SURE = 3  # differing bits up to which two digests alone mean a copy
POSSIBLE = 12  # differing bits up to which the pixels of a pair are compared
MANY = 200_000  # images, above which only pairs with 16 equal bits in a row are considered
NEAREST = 8  # most pairs that are compared for one image
SMALLEST = 32  # pixels of the shorter side, below which images are not compared

FLAT = 2.5  # grey levels: the standard deviation below which an image has no fine structure
DISAGREEMENT = 0.4  # most difference in the worst region, as a share of its contrast
AGREEMENT = 0.9  # least correlation of the whole images
SHAPE = 0.15  # most difference of log(width / height)
EMPTY = 0.55  # share of an image without fine structure, above which it is a drawing
DRAWN = 0.8  # share of the pixels in two of 16 greys, above which it is a drawing
EQUAL = 8  # most grey levels between two drawings in a region; twice that for colours

IDENTITY = (1.0, 0.0, 1.0, 0.0)  # stretch and shift in width, stretch and shift in height

_SIDE = 32  # pixels a side of the image that a digest is computed from
_FINE = 128  # pixels a side of the images that are compared
_CACHED = 2048  # images of that size in memory
_ROWS = 1024  # images whose pairs are searched at once
_PAIRS = 1 << 22  # pairs whose bits are counted at once


# Perceptual digests


def _cosines() -> NDArray[np.float32]:
    n = np.arange(_SIDE)
    return np.cos(np.pi * (2 * n + 1) * np.arange(8)[:, None] / (2 * _SIDE)).astype(np.float32)


_COSINES = _cosines()  # (8, _SIDE): the eight lowest of a discrete cosine transform


def perceptual_digest(pixels: NDArray[np.uint8]) -> int:
    """64 bits that change little when an image is saved anew, resized or made brighter; 0 for an
    image with too little structure. Shapes: uint8 (H, W, C), C 1 or 3.

    Runs store these digests, so the computation must not change. (Machines round differently, so a
    bit may differ where a frequency is almost zero.)
    """
    image = as_image(pixels)
    if min(image.size) < SMALLEST:
        return 0
    small = _shrink(image.convert("L"), _SIDE)
    if (small - _blur(small, 2)).std() < FLAT:
        return 0
    bits = _COSINES @ small @ _COSINES.T > 0
    bits[0, 0] = True  # the mean says nothing about the picture; and so no digest is 0
    return int.from_bytes(np.packbits(bits).tobytes())


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Shapes: uint8 (H, W, C), C 1 or 3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _shrink(image: Image.Image, side: int) -> NDArray[np.float32]:
    fitted = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(fitted, np.float32)


def turn_digests(digests: NDArray[np.uint64], turn: int) -> NDArray[np.uint64]:
    """The digests of the same images after `turn_pixels`."""
    bits = np.unpackbits(digests.astype(">u8").view(np.uint8).reshape(-1, 8, 1), axis=2)
    if turn & 4:
        bits = bits.transpose(0, 2, 1)
    is_odd = np.arange(8) % 2  # mirroring negates the odd frequencies
    bits = bits ^ (is_odd[:, None] * (turn >> 1 & 1) ^ is_odd * (turn & 1)).astype(np.uint8)
    return np.packbits(bits, axis=2).reshape(-1, 8).view(">u8")[:, 0].astype(np.uint64)


def turn_pixels(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Turn pixels (H, W, ...): transpose (4), then flip up-down (2), then mirror (1)."""
    if turn & 4:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]


def near_any(
    new: NDArray[np.uint64], known: NDArray[np.uint64], within: int = SURE
) -> NDArray[np.bool_]:
    """Which of `new` are digests of a copy of one of `known`, also turned. (N,) -> (N,).

    Only digests are compared; benchmarks/near_copies.py measures how often that is wrong.
    """
    is_near = np.zeros(len(new), bool)
    for pairs in _near_pairs(new, known, within, width=16 if within <= SURE else 8):
        is_near[pairs[:, 0]] = True
    return is_near


def _near_pairs(
    new: NDArray[np.uint64], known: NDArray[np.uint64], within: int, width: int
) -> Iterator[NDArray[np.int64]]:
    """Yield pairs that differ in `within` bits at most, (M, 4): index in `new`, index in `known`,
    turn, differing bits; in order of `new`.

    The digests are cut into 64 / `width` pieces, and only pairs with an equal piece are considered:
    all that differ in fewer bits than there are pieces, and most of the others.
    """
    if not len(known):
        return
    kind = {8: np.uint8, 16: np.uint16}[width]
    pieces = known.view(kind).reshape(len(known), -1)
    orders = np.argsort(pieces, axis=0, kind="stable")
    present = np.flatnonzero(new)
    for start in range(0, len(present), _ROWS):
        rows = present[start : start + _ROWS]
        met = [np.zeros((0, 4), np.int64)]
        for turn in range(8):
            turned = turn_digests(new[rows], turn)
            own = turned.view(kind).reshape(len(rows), -1)
            for at, order in enumerate(orders.T):
                column = pieces[order, at]
                first = np.searchsorted(column, own[:, at], "left")
                counts = np.searchsorted(column, own[:, at], "right") - first
                ends = np.cumsum(counts)
                cuts = np.searchsorted(ends, np.arange(_PAIRS, ends[-1], _PAIRS))
                for some in np.split(np.arange(len(rows)), cuts):
                    i = np.repeat(some, counts[some])
                    within_row = np.arange(len(i)) - np.repeat(
                        np.cumsum(counts[some]) - counts[some], counts[some]
                    )
                    j = order[first[i] + within_row]
                    bits = np.bitwise_count(turned[i] ^ known[j])
                    keep = (bits <= within) & (known[j] != 0)
                    i, j, bits = i[keep], j[keep], bits[keep]
                    new_here = (own[i, :at] != pieces[j, :at]).all(axis=1)  # else met already
                    i, j, bits = i[new_here], j[new_here], bits[new_here]
                    met.append(np.stack([rows[i], j, np.full(len(i), turn), bits], axis=1))
        yield np.concatenate(met)


# The data of an image that are compared


@dataclass(frozen=True)
class Fingerprint:
    """The perceptual digest of an image, the digest of its bytes (`content`), and its `shape`,
    log(width / height)."""

    digest: int
    content: bytes
    shape: float = 0.0


@dataclass(frozen=True)
class Detail:
    """An image to compare: grey uint8 (128, 128), colour uint8 (16, 16, 2), `shape` as in
    `Fingerprint`; `plain` for a drawing or a mostly empty image."""

    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    shape: float
    plain: bool


def fingerprint_image(image: Image.Image, content: bytes = b"") -> Fingerprint:
    """The fingerprint of an opened image. A JPEG that is not loaded yet is decoded at a reduced
    size. `content` is a digest of its bytes."""
    shape = float(np.log(image.width / image.height))
    if min(image.size) < SMALLEST:
        return Fingerprint(0, content, shape)
    image.draft("L", (4 * _SIDE, 4 * _SIDE))
    return Fingerprint(perceptual_digest(fit_image(image, channels=1, size=None)), content, shape)


def read_detail(image: Image.Image) -> Detail:
    """The detail of an opened image."""
    shape = float(np.log(image.width / image.height))
    image.draft("RGB", (_FINE, _FINE))
    pixels = Image.fromarray(fit_image(image, channels=3, size=None))
    fine = pixels.resize((_FINE, _FINE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    colours = fine.convert("YCbCr").resize((16, 16), Image.Resampling.BOX)
    grey = np.asarray(fine.convert("L"))
    parts = _reduce(_fine(_reduce(_inner(grey.astype(np.float32), 8), 2)) ** 2, 8)
    greys = np.sort(np.bincount(grey.ravel() >> 4, minlength=16))
    plain = bool((parts < FLAT**2).mean() > EMPTY or greys[-2:].sum() > DRAWN * grey.size)
    return Detail(grey, np.asarray(colours)[..., 1:], shape, plain)


def group_copies(
    fingerprints: Sequence[Fingerprint], read: Callable[[int], Detail | None], workers: int = 2
) -> list[list[int]]:
    """Groups of two or more images that are copies of each other, by index in `fingerprints`, in
    order of their first members.

    Files of equal bytes are always copies. `read` returns the detail of an image, or None where it
    cannot be read.
    """
    groups = _Groups(len(fingerprints))
    digests = np.array([one.digest for one in fingerprints], np.uint64)
    first: dict[bytes, int] = {}
    for i, one in enumerate(fingerprints):
        groups.join(first.setdefault(one.content, i), i)
        if first[one.content] != i:
            digests[i] = 0  # the first of equal files is compared for all
    shapes = np.array([one.shape for one in fingerprints])
    pairs = _candidates(digests, shapes)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    recalled = lru_cache(_CACHED)(read)

    def find_copies_of(k: int) -> list[tuple[int, int]]:
        mine = pairs[starts[k] : starts[k + 1] if k + 1 < len(starts) else None]
        one = recalled(int(mine[0, 0]))
        copies = []
        for i, j, turn, _ in mine.tolist():
            other = recalled(j)
            if one is not None and other is not None and same_picture(one, other, turn):
                copies.append((i, j))
        return copies

    with progress("comparing", len(starts), "images") as bar:
        for copies in read_ahead(find_copies_of, range(len(starts)), workers):
            for i, j in copies:
                groups.join(i, j)
            bar.advance(1)
    return groups.several()


def _candidates(digests: NDArray[np.uint64], shapes: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pairs (M, 4) to compare, as in `_near_pairs`: the nearest of each image."""
    many = len(digests) > MANY
    nearest = [np.zeros((0, 4), np.int64)]
    for pairs in _near_pairs(digests, digests, POSSIBLE, width=16 if many else 8):
        i, j, turn, _ = pairs.T
        shape = np.where(turn & 4, -shapes[i], shapes[i])
        pairs = pairs[(i < j) & (np.abs(shape - shapes[j]) <= SHAPE)]
        pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 3], pairs[:, 0]))]
        starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
        place = np.arange(len(pairs)) - np.repeat(starts, np.diff([*starts, len(pairs)]))
        nearest.append(pairs[place < NEAREST])
    return np.concatenate(nearest)


class _Groups:
    """Groups of N items (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self._root(i), self._root(j)))
        self._parent[high] = low

    def several(self) -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for i in range(len(self._parent)):
            members.setdefault(self._root(i), []).append(i)
        return [group for group in members.values() if len(group) > 1]


# Comparing two images


def same_picture(one: Detail, other: Detail, turn: int = 0) -> bool:
    """Whether two images agree in every region, after the first is turned (`turn_pixels`), moved
    and stretched by a few per cent, and matched in contrast and brightness."""
    return disagreement(one, other, turn) <= DISAGREEMENT


def disagreement(one: Detail, other: Detail, turn: int = 0) -> float:
    """The largest difference of two images in a region, as a share of the contrast there: 0 for one
    picture, about 1 for unrelated ones. Infinite where a coarser test already tells them apart."""
    if abs((-one.shape if turn & 4 else one.shape) - other.shape) > SHAPE:
        return np.inf
    left = turn_pixels(one.grey, turn).astype(np.float32)
    right = other.grey.astype(np.float32)
    strict = one.plain or other.plain
    small = _reduce(left, 4), _reduce(right, 4)
    place = IDENTITY if strict else _align(*small)
    if (
        place is None
        or _correlate(*(_fine(_inner(x, 2)) for x in (_move(small[0], place), small[1]))) < 0.7
    ):
        return np.inf
    a, b = (_reduce(_inner(x, 8), 2) for x in (_move(left, place), right))  # 56 x 56
    if _correlate(a, b) < AGREEMENT:
        return np.inf
    if not (_equal(one, other, turn) if strict else _same_colours(one, other, turn)):
        return np.inf
    a, b = _fine(a), _fine(b)
    a *= b.std() / max(float(a.std()), 1e-6)
    seen = np.maximum(_reduce(a * a, 8), _reduce(b * b, 8))
    # A region without structure cannot agree, so a share of the whole and noise are allowed.
    allowed = seen + 0.15 * float((b * b).mean()) + 4
    return float((_reduce((a - b) ** 2, 8) / allowed).max())


def _equal(one: Detail, other: Detail, turn: int) -> bool:
    grey = turn_pixels(one.grey, turn).astype(np.float32) - other.grey
    colour = turn_pixels(one.colour, turn).astype(np.float32) - other.colour
    return bool(_reduce(np.abs(grey), 8).max() <= EQUAL and np.abs(colour).max() <= 2 * EQUAL)


def _same_colours(one: Detail, other: Detail, turn: int) -> bool:
    a, b = (
        x.astype(np.float32) - x.mean(axis=(0, 1), dtype=np.float32)
        for x in (turn_pixels(one.colour, turn), other.colour)
    )
    if min(a.std(), b.std()) < 4:  # one image is grey
        return True
    return bool((a * b).mean() > 0.6 * a.std() * b.std())


def _align(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, ...] | None:
    """The stretches and shifts (as a share of the side) that align `a` with `b`, by the
    Gauss-Newton method with gain and offset; None where it does not converge nearby."""
    side = len(a)
    line = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    interior = np.s_[3:-3, 3:-3]
    place = np.array(IDENTITY)
    for _ in range(8):
        moved = _move(a, tuple(place))
        dy, dx = (np.asarray(np.gradient(moved, 1 / side, axis=i), np.float32) for i in (0, 1))
        columns = (dx * line, dx, dy * line[:, None], dy, moved, np.ones_like(moved))
        slopes = np.stack([column[interior].ravel() for column in columns], axis=1).astype(float)
        squares = slopes.T @ slopes
        squares += np.diag(1e-6 * squares.diagonal() + 1e-9)
        solved = np.linalg.solve(squares, slopes.T @ b[interior].ravel())
        gain = solved[4]
        if not 0.5 < gain < 2:
            return None
        step = np.clip(solved[:4] / gain, -0.1, 0.1)
        place += step
        if np.abs(place - (1, 0, 1, 0)).max() > 0.15:
            return None
        if np.abs(step).max() < 5e-4:
            break
    return tuple(place)


def _move(a: NDArray[np.float32], place: tuple[float, ...]) -> NDArray[np.float32]:
    wide, right, high, down = place
    moved = _weights(len(a), high, down) @ a @ _weights(len(a), wide, right).T
    return np.asarray(moved, np.float32)


def _weights(side: int, stretch: float, shift: float) -> NDArray[np.float32]:
    """Weights that resample a line of pixels by linear interpolation. (side, side)."""
    line = (np.arange(side) + 0.5) / side - 0.5
    at = np.clip((stretch * line + shift + 0.5) * side - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    weights, rows = np.zeros((side, side), np.float32), np.arange(side)
    weights[rows, low] = 1 - (at - low)
    weights[rows, low + 1] = at - low
    return weights


def _inner(a: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    return a[edge:-edge, edge:-edge]


def _reduce(a: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    side = len(a) // by
    means: NDArray[np.float32] = a.reshape(side, by, side, by).mean(axis=(1, 3))
    return means


def _blur(a: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The mean of (2 reach + 1) x (2 reach + 1) pixels."""
    n = 2 * reach + 1
    wide = np.pad(a, ((reach + 1, reach), (reach + 1, reach)), "edge")
    sums = wide.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    whole = sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]
    return np.asarray(whole / n**2, np.float32)


def _fine(a: NDArray[np.float32]) -> NDArray[np.float32]:
    """The fine structure of an image: without anything larger than a tenth of it."""
    return a - _blur(a, max(len(a) // 20, 1))


def _correlate(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / max(float(a.std() * b.std()), 1e-9))


# The copies in a set


MIN_ARRAY_SIDE = 64  # pixels; arrays of smaller images are not searched
SMALL_SETS = ("digits", "cifar10")  # known to be below that without reading them
UNIFORM = 10  # images; so large a group of more than half its class means a uniform class
_PIECE = 16  # images a thread takes at a time


@dataclass(frozen=True)
class Copies:
    """The copies in a set: `groups` of two or more images of the training part, by index, and
    `across`, the number of images of each other part that are copies of a training image.
    `uniform` are classes whose images are too alike to tell copies; `why_not` is the reason where
    the set was not searched.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    across: tuple[tuple[str, int], ...] = ()
    uniform: tuple[str, ...] = ()
    why_not: str = ""


def find_copies(image_set: ImageSet, workers: int) -> Copies:
    """Find the copies among all images of a set. Images that cannot be read are skipped; training
    reports them."""
    if image_set.kind in SMALL_SETS:
        return Copies()
    main = "train" if "train" in image_set.parts else image_set.parts[0]
    parts: dict[str, LabelledImages] = {main: image_set.read(main)}
    images = parts[main].images
    if not isinstance(images, ImageFiles) and min(images.shape[1:3]) < MIN_ARRAY_SIDE:
        return Copies()
    for name in image_set.parts:
        if name != main:
            try:
                parts[name] = image_set.read(name)
            except DataError:  # reported by whoever reads this part
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
    all_groups = group_copies(fingerprints, lambda i: _read_detail(*places[i]), workers)
    names = [name for name, part in parts.items() for _ in range(len(part.labels))]
    across: Counter[str] = Counter()
    groups: list[tuple[int, ...]] = []
    uniform: set[str] = set()
    labels = parts[main].labels
    sizes = np.bincount(labels, minlength=len(image_set.classes))
    for group in all_groups:
        own = [i for i in group if names[i] == main]
        if not own:
            continue
        label, most = Counter(labels[own].tolist()).most_common(1)[0]
        if most >= UNIFORM and most > sizes[label] / 2:
            uniform.add(image_set.classes[label])
            equal_files: dict[bytes, list[int]] = {}
            for i in own:
                equal_files.setdefault(fingerprints[i].content, []).append(i)
            groups += [tuple(equal) for equal in equal_files.values() if len(equal) > 1]
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
    except Exception:  # as above
        return None


def _row(part: LabelledImages, i: int) -> NDArray[np.uint8]:
    """One image of a part of arrays, (H, W, C)."""
    assert not isinstance(part.images, ImageFiles)
    images, ids = part.images, np.array([i])
    read = images[ids] if isinstance(images, np.ndarray | PixelFile) else images.read(ids)
    return np.asarray(read[0], np.uint8)
