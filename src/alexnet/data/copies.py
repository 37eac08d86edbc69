"""Copies of a picture whose bytes differ: saved anew, resized, made grey, brighter, cut a little at
the edges, mirrored or turned by a quarter.

Two steps. A digest of 64 bits, the signs of an image's lowest frequencies, finds pairs that may be
one picture: few of the bits of two copies differ, of two pictures half. Each pair is then laid one
upon the other, and is one picture only where every part of the two agrees: two photos of a burst,
or forms that are filled in otherwise, differ somewhere. Drawings on an empty ground, which have
little to agree in, must be equal as they are.
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
from alexnet.terminal import progress

SURE = 3  # differing bits up to which two digests alone are taken for copies
POSSIBLE = 12  # up to which a pair is compared by its pixels
MANY = 200_000  # images, above which only pairs that agree in 16 bits in a row are met
NEAREST = 8  # pairs that are compared for one image, at most
SMALLEST = 32  # pixels; of a shorter side nothing is told apart

FLAT = 2.5  # grey levels, the least deviation of an image's fine structure
DISAGREEMENT = 0.4  # between the worst parts of two images, as a share of what is seen there
AGREEMENT = 0.9  # correlation of the whole
SHAPE = 0.15  # difference of the logarithms of width / height
EMPTY = 0.55  # share of an image without fine structure, above which it is plain
DRAWN = 0.8  # share of its pixels that have one of two greys (of 16), above which it is plain too
EQUAL = 8  # grey levels by which a part of two plain images may differ; of colours twice that

AS_IT_IS = (1.0, 0.0, 1.0, 0.0)  # neither stretched nor shifted

_SIDE = 32  # of what the digest is computed from
_FINE = 128  # of what pairs are compared by
_KEPT = 2048  # images at that size in memory
_ROWS = 1024  # images whose pairs are looked for at once
_PAIRS = 1 << 22  # pairs whose bits are counted at once


# The digest


def _cosines() -> NDArray[np.float32]:
    n = np.arange(_SIDE)
    return np.cos(np.pi * (2 * n + 1) * np.arange(8)[:, None] / (2 * _SIDE)).astype(np.float32)


_COSINES = _cosines()  # (8, _SIDE): the eight lowest of a discrete cosine transform


def perceptual_digest(pixels: NDArray[np.uint8]) -> int:
    """64 bits that change little when an image is saved anew, resized or made brighter; 0 of one
    with too little in it to be told from others. Shapes: uint8 (H, W, C), C 1 or 3.

    What is computed here is kept in runs: it does not change. (A bit may, where a frequency is next
    to nothing: machines round otherwise.)
    """
    image = as_image(pixels)
    if min(image.size) < SMALLEST:
        return 0
    small = _shrink(image.convert("L"), _SIDE)
    if (small - _blur(small, 2)).std() < FLAT:
        return 0
    bits = _COSINES @ small @ _COSINES.T > 0
    bits[0, 0] = True  # brightness says nothing; so no digest is 0
    return int.from_bytes(np.packbits(bits).tobytes())


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Shapes: uint8 (H, W, C), C 1 or 3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _shrink(image: Image.Image, side: int) -> NDArray[np.float32]:
    fitted = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(fitted, np.float32)


def turn_digests(digests: NDArray[np.uint64], turn: int) -> NDArray[np.uint64]:
    """The digests of the same images turned, see `turn_pixels`."""
    bits = np.unpackbits(digests.astype(">u8").view(np.uint8).reshape(-1, 8, 1), axis=2)
    if turn & 4:
        bits = bits.transpose(0, 2, 1)
    odd = np.arange(8) % 2
    bits = bits ^ (odd[:, None] * (turn >> 1 & 1) ^ odd * (turn & 1)).astype(np.uint8)
    return np.packbits(bits, axis=2).reshape(-1, 8).view(">u8")[:, 0].astype(np.uint64)


def turn_pixels(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """One of eight: transposed (4), then upside down (2), then mirrored (1). (H, W, ...)."""
    if turn & 4:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]


def near_any(
    new: NDArray[np.uint64], known: NDArray[np.uint64], within: int = SURE
) -> NDArray[np.bool_]:
    """Which of `new` are digests of a copy of one of `known`, as it is or turned. (N,) -> (N,).

    Nothing but digests is compared: see benchmarks/near_copies.py for how often that is wrong.
    """
    found = np.zeros(len(new), bool)
    for pairs in _near_pairs(new, known, within, width=16 if within <= SURE else 8):
        found[pairs[:, 0]] = True
    return found


def _near_pairs(
    new: NDArray[np.uint64], known: NDArray[np.uint64], within: int, width: int
) -> Iterator[NDArray[np.int64]]:
    """Pairs that differ in `within` bits at most, (M, 4): place in `new`, in `known`, turn, bits.

    Only pairs that have one of the 64 / `width` pieces of their bits in common are met: all that
    differ in fewer bits than there are pieces, and most of the others. Yielded in order of `new`.
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


# What is kept of an image, and what is read again where it may be a copy


@dataclass(frozen=True)
class Fingerprint:
    """What tells images apart at little cost: the perceptual digest, the digest of the bytes, and
    `shape`, log(width / height)."""

    digest: int
    content: bytes
    shape: float = 0.0


@dataclass(frozen=True)
class Detail:
    """An image to be compared: grey uint8 (128, 128), colour uint8 (16, 16, 2), `shape` as that of
    a `Fingerprint`; `plain` where it is a drawing, or mostly empty."""

    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    shape: float
    plain: bool


def fingerprint_image(image: Image.Image, content: bytes = b"") -> Fingerprint:
    """An opened image; of a JPEG no more is decoded than is needed, unless it is loaded. `content`
    is a digest of its bytes."""
    shape = float(np.log(image.width / image.height))
    if min(image.size) < SMALLEST:
        return Fingerprint(0, content, shape)
    image.draft("L", (4 * _SIDE, 4 * _SIDE))
    return Fingerprint(perceptual_digest(fit_image(image, channels=1, size=None)), content, shape)


def read_detail(image: Image.Image) -> Detail:
    """The detail of an opened image, as of `fingerprint_image`."""
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
    """Images that are copies of each other, in groups of two or more, by place in `fingerprints`.

    Files of the same bytes are copies whatever they show. `read` gives an image's detail, or None
    where it cannot be read. In order of their first members.
    """
    groups = _Groups(len(fingerprints))
    digests = np.array([one.digest for one in fingerprints], np.uint64)
    first: dict[bytes, int] = {}
    for i, one in enumerate(fingerprints):
        groups.join(first.setdefault(one.content, i), i)
        if first[one.content] != i:
            digests[i] = 0  # its twin stands for it
    shapes = np.array([one.shape for one in fingerprints])
    pairs = _candidates(digests, shapes)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    recalled = lru_cache(_KEPT)(read)

    def find_copies(k: int) -> list[tuple[int, int]]:
        mine = pairs[starts[k] : starts[k + 1] if k + 1 < len(starts) else None]
        one = recalled(int(mine[0, 0]))
        same = []
        for i, j, turn, _ in mine.tolist():
            other = recalled(j)
            if one is not None and other is not None and same_picture(one, other, turn):
                same.append((i, j))
        return same

    with progress("comparing", len(starts), "images") as bar:
        for same in read_ahead(find_copies, range(len(starts)), workers):
            for i, j in same:
                groups.join(i, j)
            bar.advance(1)
    return groups.several()


def _candidates(digests: NDArray[np.uint64], shapes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs (M, 4) to be compared, as of `_near_pairs`, the nearest of each image."""
    many = len(digests) > MANY
    found = [np.zeros((0, 4), np.int64)]
    for pairs in _near_pairs(digests, digests, POSSIBLE, width=16 if many else 8):
        i, j, turn, _ = pairs.T
        shape = np.where(turn & 4, -shapes[i], shapes[i])
        pairs = pairs[(i < j) & (np.abs(shape - shapes[j]) <= SHAPE)]
        pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 3], pairs[:, 0]))]
        starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
        place = np.arange(len(pairs)) - np.repeat(starts, np.diff([*starts, len(pairs)]))
        found.append(pairs[place < NEAREST])
    return np.concatenate(found)


class _Groups:
    """Which of N belong together (union-find)."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def _top(self, i: int) -> int:
        while self._above[i] != i:
            self._above[i] = i = self._above[self._above[i]]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self._top(i), self._top(j)))
        self._above[high] = low

    def several(self) -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for i in range(len(self._above)):
            members.setdefault(self._top(i), []).append(i)
        return [group for group in members.values() if len(group) > 1]


# Two images, one upon the other


def same_picture(one: Detail, other: Detail, turn: int = 0) -> bool:
    """Whether two images show the same in every part, once the first is turned (`turn_pixels`),
    moved and stretched by a few per cent, and its contrast and brightness made the other's."""
    return disagreement(one, other, turn) <= DISAGREEMENT


def disagreement(one: Detail, other: Detail, turn: int = 0) -> float:
    """0 of the same picture, about 1 of two that have nothing to do with each other: the part where
    they differ most, difference by what is seen there. Infinite where a part is not needed to see
    that they are two."""
    if abs((-one.shape if turn & 4 else one.shape) - other.shape) > SHAPE:
        return np.inf
    left = turn_pixels(one.grey, turn).astype(np.float32)
    right = other.grey.astype(np.float32)
    strict = one.plain or other.plain
    small = _reduce(left, 4), _reduce(right, 4)
    place = AS_IT_IS if strict else _lay_upon(*small)
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
    # What is not there cannot agree: a share of the whole, and noise, are allowed for.
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
    if min(a.std(), b.std()) < 4:  # one of the two is grey
        return True
    return bool((a * b).mean() > 0.6 * a.std() * b.std())


def _lay_upon(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, ...] | None:
    """Stretch and shift, by width and height and as a share of the side, that make `a` of `b`
    (Gauss and Newton, with gain and offset); None where it does not become it."""
    side = len(a)
    line = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    inside = np.s_[3:-3, 3:-3]
    place = np.array(AS_IT_IS)
    for _ in range(8):
        moved = _move(a, tuple(place))
        dy, dx = (np.asarray(np.gradient(moved, 1 / side, axis=i), np.float32) for i in (0, 1))
        columns = (dx * line, dx, dy * line[:, None], dy, moved, np.ones_like(moved))
        slopes = np.stack([column[inside].ravel() for column in columns], axis=1).astype(float)
        squares = slopes.T @ slopes
        squares += np.diag(1e-6 * squares.diagonal() + 1e-9)
        solved = np.linalg.solve(squares, slopes.T @ b[inside].ravel())
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
    """Of a line of pixels, for linear interpolation. (side, side)."""
    line = (np.arange(side) + 0.5) / side - 0.5
    at = np.clip((stretch * line + shift + 0.5) * side - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    found, rows = np.zeros((side, side), np.float32), np.arange(side)
    found[rows, low] = 1 - (at - low)
    found[rows, low + 1] = at - low
    return found


def _inner(a: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    return a[edge:-edge, edge:-edge]


def _reduce(a: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    side = len(a) // by
    found: NDArray[np.float32] = a.reshape(side, by, side, by).mean(axis=(1, 3))
    return found


def _blur(a: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The mean of (2 reach + 1) x (2 reach + 1) pixels."""
    n = 2 * reach + 1
    wide = np.pad(a, ((reach + 1, reach), (reach + 1, reach)), "edge")
    sums = wide.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    whole = sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]
    return np.asarray(whole / n**2, np.float32)


def _fine(a: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left of an image without what is larger than a tenth of it."""
    return a - _blur(a, max(len(a) // 20, 1))


def _correlate(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / max(float(a.std() * b.std()), 1e-9))


# The copies in a set


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


def find_copies(image_set: ImageSet, workers: int) -> Copies:
    """Looks at every image of a set, at the files as they are or the arrays as they lie.

    What cannot be read is no copy: who trains on it says why.
    """
    if image_set.kind in SMALL:
        return Copies()
    main = "train" if "train" in image_set.parts else image_set.parts[0]
    parts: dict[str, LabelledImages] = {main: image_set.read(main)}
    images = parts[main].images
    if not isinstance(images, ImageFiles) and min(images.shape[1:3]) < ARRAYS:
        return Copies()
    for name in image_set.parts:
        if name != main:
            try:
                parts[name] = image_set.read(name)
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
    sizes = np.bincount(labels, minlength=len(image_set.classes))
    for group in found:
        own = [i for i in group if names[i] == main]
        if not own:
            continue
        label, most = Counter(labels[own].tolist()).most_common(1)[0]
        if most >= UNIFORM and most > sizes[label] / 2:
            uniform.add(image_set.classes[label])
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
