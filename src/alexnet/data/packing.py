"""A source packed for speed: decoded once, repaired, measured; killed at any moment, it continues.

    DIR/
    ├── manifest.json      written last: without it there is no packed set
    ├── train.npy          raw: uint8 (N, size, size, C), a memory map that any tool opens
    ├── train-00000.tar    jpeg: shards in the WebDataset layout, KEY.jpg and KEY.cls
    ├── train.index.npy    jpeg: int64 (N, 3): shard, offset, bytes
    ├── train.labels.npy   int64 (N,), -1 where unknown
    ├── train.names.txt    where each image lay in the source
    └── mean.npy           float32 (size, size, C): the mean image of train

The same source and options give the same bytes whatever the number of workers, killed or not.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.archive import ArchiveFiles
from alexnet.data.examine import examine
from alexnet.data.ilsvrc import OFFICIAL
from alexnet.data.image_set import ImageFiles, ImageSet, as_files
from alexnet.data.images import MAX_PIXELS, Orient, image_size
from alexnet.data.read_ahead import read_ahead
from alexnet.data.statistics import Sums
from alexnet.errors import CheckpointError, DataError, Interrupted, UsageError
from alexnet.records import (
    Components,
    IrregularFile,
    PackedManifest,
    PackedSource,
    PackState,
    PayloadFile,
    RepairedFile,
    UnreadFile,
)
from alexnet.support.files import (
    DirLock,
    file_error,
    fsync_dir,
    parse_json,
    read_bytes,
    sha256_of,
    write_atomic,
    write_json,
)
from alexnet.support.options import option
from alexnet.support.signals import DeferredSignals
from alexnet.support.terminal import escaped, progress, say

Encoding = Literal["raw", "jpeg"]

FORMAT = 1
BLOCK = 1024  # images between two points to continue from; also the images of a shard
PIECE = 16  # images a thread takes at a time
ORDER = ("train", "all", "val", "test")  # of the parts in a packed set
_WORK = ".packing"
_PAYLOAD = (".npy", ".tar", ".names.txt")


HEADER = 128  # bytes of a .npy header, whatever the number of images
QUALITY = 90  # of JPEGs that have to be encoded; 95 takes a third more to store and to decode
JPEG_BYTES = 0.7  # a pixel, at QUALITY and 4:2:0, to estimate space
INDEX_ROW = 3 * 8  # bytes that say where one JPEG lies: shard, offset, bytes
SAMPLE_BYTES = 1900  # of an image in a shard beside its pixels: headers, label, filled blocks


SAMPLED = 64  # images, before the work begins


@dataclass(frozen=True)
class PackOptions:
    size: int = 256
    encoding: Encoding = "raw"
    orient: Orient = "ignore"
    channels: int = 3
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class PackSource:
    """The parts of an image set as files, in the order in which they are packed."""

    kind: str
    root: Path
    classes: tuple[str, ...]
    titles: dict[str, str]
    others: dict[str, int]
    parts: dict[str, ImageFiles]
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def list_source(images: ImageSet) -> PackSource:
    """The files of a set; of class folders by name, as every version packed them."""
    if images.kind == "packed":
        raise DataError(f"{images.path}: a packed set already: train on it as it is")
    is_tree = images.folders is not None
    parts, labels = {}, {}
    for part in images.parts:
        loaded = as_files(images, part)
        files = loaded.images
        assert isinstance(files, ImageFiles)
        order = np.arange(len(files))
        if is_tree:
            names = files.names()
            order = np.array(sorted(range(len(files)), key=names.__getitem__))
        parts[part], labels[part] = files.take(order), loaded.labels[order]
    return PackSource(
        "tree" if is_tree else images.kind, Path(images.path), images.classes,
        dict(images.titles), dict(images.others), parts, labels,
    )  # fmt: skip


@dataclass(frozen=True)
class _Done:
    """One image ready to write: its payload, label and name, or why it is refused."""

    name: str
    label: int
    digest: bytes
    repairs: tuple[str, ...] = ()
    refused: str = ""
    payload: bytes = b""


def pack_images(
    images: ImageSet | PackSource,
    out: Path,
    options: PackOptions,
    *,
    expect: dict[str, int] | None,
    workers: int,
    block: int = BLOCK,
    piece: int = PIECE,
) -> PackedManifest:
    """Packs every image of a set; returns the manifest.

    Continues what a killed pack of the same set, options and `block` left in `out`: after each
    `block` images all is on the disk, and so many a shard holds. A thread takes `piece` images at a
    time. DataError where the counts are not the official ones (or those of `expect`), or there is
    too little space.
    """
    source = list_source(images) if isinstance(images, ImageSet) else images
    check_counts(source, expect)
    key = key_of(source, {"format": FORMAT, "quality": QUALITY, **vars(options)})
    finished = out / "manifest.json"
    if finished.is_file():
        manifest = read_finished(out, key)
        _sweep(out)
        say(f"{out} is packed already; its files are whole, the source was not read again")
        return manifest
    work = out / _WORK
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not work.is_dir() and any(name != ".lock" for name in os.listdir(out)):
            raise UsageError(f"{out} is not empty: choose another {option('out')}, or a new folder")
        with DirLock(out):
            work.mkdir(exist_ok=True)
            return _Packer(source, out, options, key, workers, block, piece).run()
    except OSError as error:  # images that cannot be read are a DataError before it comes here
        raise file_error("write", out, error) from None


def _sweep(out: Path) -> None:
    """Clears what packing leaves beside a finished set, also when it was killed at the very end."""
    for left in out.glob(".tmp-*"):
        left.unlink(missing_ok=True)
    shutil.rmtree(out / _WORK, ignore_errors=True)


class _Packer:
    def __init__(
        self,
        source: PackSource,
        out: Path,
        options: PackOptions,
        key: str,
        workers: int,
        block: int,
        piece: int,
    ) -> None:
        self.source, self.out, self.options, self.workers = source, out, options, workers
        self.block, self.piece = block, piece
        o = options
        self.journal = Journal(out / _WORK, key, (o.size, o.size, o.channels))
        if self.journal.is_new:
            images = sum(len(files) for files in source.parts.values())
            check_space(out, expected_bytes(images, o.size, o.channels, o.encoding))

    def run(self) -> PackedManifest:
        splits: list[str] = [s for s in ORDER if s in self.source.parts]
        total = sum(len(self.source.parts[s]) for s in splits)
        before = sum(self.journal.done.values())
        if before:
            say(f"continuing {self.out}: {before:,} of {total:,} images are packed")
            if self.journal.stamps != stamps_of(self.source):
                done = [(s, i) for s in splits for i in range(self.journal.done.get(s, 0))]
                check_unchanged(self.source, done, self.journal.read("digests"))
        self.journal.stamps = stamps_of(self.source)
        with (
            DeferredSignals() as self.signals,
            progress(f"packing {self.source.root.name}", total, "images", before) as bar,
        ):
            for split in splits:
                self._pack_split(split, self.source.parts[split], bar)
        return self._finish(splits)

    # One split

    def _pack_split(self, split: str, files: ImageFiles, bar: Any) -> None:
        done = self.journal.done.get(split, 0)
        while done < len(files):
            stop = min(done + self.block, len(files))
            pieces = range(done, stop, self.piece)

            def prepare(start: int, stop: int = stop) -> tuple[list[_Done], Sums]:
                return self._prepare(split, files, range(start, min(start + self.piece, stop)))

            images: list[_Done] = []
            for piece, sums in read_ahead(prepare, pieces, self.workers):
                images += piece
                self.journal.sums.merge(sums)
                bar.advance(len(piece))
                if self.signals.received is not None:
                    self._stop(split, images, done + len(images))
            self._commit(split, images, stop)
            done = stop

    def _stop(self, split: str, images: list[_Done], done: int) -> NoReturn:
        """Saves what can be and ends. A shard is written whole: its bytes are to be the same."""
        if self.options.encoding == "raw":
            self._commit(split, images, done)
        assert self.signals.received is not None
        raise Interrupted(self.signals.received, "the same command")

    def _prepare(self, split: str, files: ImageFiles, ids: range) -> tuple[list[_Done], Sums]:
        """Reads, decodes and encodes some images; in a thread."""
        o = self.options
        ready = []
        sums = Sums((o.size, o.size, o.channels))
        for i in ids:
            name, label = files.name(i), int(self.source.labels[split][i])
            digest, data = read_and_hash(files, i)
            if isinstance(data, str):
                ready.append(_Done(name, label, digest, refused=data))
                continue
            examined = examine(
                data, name, size=o.size, channels=o.channels, orient=o.orient,
                max_pixels=o.max_pixels,
            )  # fmt: skip
            if examined.pixels is None:
                ready.append(_Done(name, label, digest, refused=examined.refused))
                continue
            pixels, payload = examined.pixels, examined.pixels.tobytes()
            if o.encoding == "jpeg":
                payload = encode_jpeg(data, examined.repairs, pixels)
                seen = examine(payload, name, size=o.size, channels=o.channels).pixels
                assert seen is not None
                pixels = seen
            if split in ("train", "all"):
                sums.add(pixels[None])
            ready.append(_Done(name, label, digest, examined.repairs, "", payload))
        return ready, sums

    def _commit(self, split: str, images: list[_Done], done: int) -> None:
        """Writes a block through to the disk, then the point to continue from."""
        kept = [image for image in images if not image.refused]
        samples = [(image.payload, image.label) for image in kept]
        add_images(self.journal, split, samples, self.options.encoding)
        labels = np.array([image.label for image in kept], np.int64)
        self.journal.append(f"{split}.labels", labels.tobytes())
        names = "".join(f"{escaped(image.name)}\n" for image in kept)
        self.journal.append(f"{split}.names", names.encode())
        noted = [image for image in images if image.repairs or image.refused]
        lines = (
            json.dumps(
                IrregularFile(
                    split=split, path=i.name, repairs=i.repairs, refused=i.refused
                ).to_json()
            )
            for i in noted
        )
        self.journal.append("odd.jsonl", "".join(f"{line}\n" for line in lines).encode())
        self.journal.append("digests", b"".join(image.digest for image in images))
        self.journal.commit(split, done)

    # The end

    def _finish(self, splits: list[str]) -> PackedManifest:
        o, journal, work = self.options, self.journal, self.journal.folder
        for name in os.listdir(self.out):  # of one killed while moving them
            if name.endswith(_PAYLOAD):
                os.replace(self.out / name, work / name)
        lines = journal.read("odd.jsonl").splitlines()
        noted = [IrregularFile.from_json(json.loads(line), "odd.jsonl") for line in lines]
        counts, payload = dict[str, int](), dict[str, PayloadFile]()
        for split in splits:
            labels = np.frombuffer(journal.read(f"{split}.labels"), np.int64)
            counts[split] = len(labels)
            save_array(work / f"{split}.labels.npy", labels)
            write_atomic(work / f"{split}.names.txt", journal.read(f"{split}.names"))
            shape = (len(labels), o.size, o.size, o.channels)
            finish_images(journal, split, shape, o.encoding)
        if not journal.sums.images:
            shutil.rmtree(work, ignore_errors=True)
            first = next(file for file in noted if file.refused)
            raise DataError(
                f"{self.source.root}: no training image could be read, first {first.path}: "
                f"{first.refused}"
            )
        measured = journal.sums.statistics()
        assert measured.image is not None
        save_array(work / "mean.npy", measured.image.numpy())
        names = sorted(name for name in os.listdir(work) if name.endswith(_PAYLOAD))
        with progress("hashing", len(names), "files") as bar:
            for name in names:
                path = work / name
                payload[name] = PayloadFile(bytes=path.stat().st_size, sha256=sha256_of(path))
                bar.advance()
        digests = journal.read("digests")
        manifest = PackedManifest(
            format=FORMAT,
            key=journal.key,
            kind=self.source.kind,
            classes=tuple(self.source.classes),
            titles=dict(self.source.titles),
            counts=counts,
            size=o.size,
            channels=o.channels,
            encoding=o.encoding,
            orient=o.orient,
            source=PackedSource(
                name=self.source.root.name,
                files=sum(journal.done.values()),
                sha256=hashlib.sha256(digests).hexdigest(),
                archives=hash_archives(self.source),
            ),
            mean=measured.mean,
            std=measured.std,
            covariance=measured.covariance,
            pca=Components(**measured.pca()),
            repairs=[RepairedFile(path=x.path, repairs=x.repairs) for x in noted if x.repairs],
            refused=[UnreadFile(path=x.path, reason=x.refused) for x in noted if x.refused],
            across=count_across(digests, [journal.done[s] for s in splits]),
            others=dict(self.source.others),
            payload=payload,
        )
        for name in names:
            os.replace(work / name, self.out / name)
        fsync_dir(self.out)
        write_json(self.out / "manifest.json", manifest)
        _sweep(self.out)
        return manifest


# How far a pack that is not finished has come


class Journal:
    """Files of a folder that grow, and a state that says how far each is committed.

    Killed at any moment, a pack continues from its last commit: what a file holds beyond that is
    cut off when more is added. `key` names the pack. `done` counts the images of each split of the
    source that are committed, and `shards` the shards of JPEGs. `stamps` say when the source was
    last changed. `sums` are of the training images, written with each commit.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...]) -> None:
        """The journal in a folder, or a new one, whose images have the shape (H, W, C).

        UsageError where it is there and its key is another.
        """
        self.folder, self.sums = folder, Sums(shape)
        self.key, self.stamps = key, dict[str, list[int]]()
        self.done, self._bytes = dict[str, int](), dict[str, int]()
        self.shards, self._sums_file = dict[str, int](), ""
        path = folder / "state.json"
        self.is_new = not path.is_file()
        if self.is_new:
            return
        state = PackState.from_json(parse_json(read_bytes(path), path), str(path))
        if state.key != key:
            raise UsageError(
                f"{folder.parent} holds a half-finished pack of another source or other options: "
                f"choose another {option('out')}, or remove it"
            )
        self.done, self._bytes = dict(state.done), dict(state.bytes)
        self.stamps = {split: list(stamps) for split, stamps in (state.stamps or {}).items()}
        self.shards, self._sums_file = dict(state.shards or {}), state.sums or ""
        if state.sums:
            self.sums = Sums.from_bytes(read_bytes(folder / state.sums))

    def size(self, name: str) -> int:
        """How many bytes of a file are committed."""
        return self._bytes.get(name, 0)

    def append(self, name: str, data: bytes, header: int = 0) -> None:
        """Adds to a file, through to the disk, from where the last commit left it; `header` bytes
        are left free at its beginning."""
        at, path = self._bytes.get(name, header), self.folder / name
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._bytes[name] = at + len(data)

    def commit(self, split: str, done: int) -> None:
        """Makes all that was added count, of a split's first `done` images."""
        old, new = self._sums_file, f"sums-{split}-{done}.npz"
        write_atomic(self.folder / new, self.sums.to_bytes())
        self._sums_file = new
        self.done[split] = done
        state = PackState(
            key=self.key,
            done=self.done,
            bytes=self._bytes,
            stamps=self.stamps,
            shards=self.shards or None,
            sums=new,
        )
        write_json(self.folder / "state.json", state)
        if old and old != new:
            (self.folder / old).unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """A file as far as it is committed; empty where nothing was added."""
        path = self.folder / name
        if not path.exists():
            return b""
        with open(path, "rb") as file:
            return file.read(self.size(name))


# The forms in which packed images lie on the disk


def expected_bytes(images: int, size: int, channels: int, encoding: str) -> int:
    """About how much room packed images take."""
    pixels = images * size**2
    return pixels * channels if encoding == "raw" else int(
        pixels * JPEG_BYTES + images * SAMPLE_BYTES
    )  # fmt: skip


def add_images(
    journal: Journal, split: str, samples: Sequence[tuple[bytes, int]], encoding: str
) -> None:
    """Adds a block of (pixels or JPEG, label) to a split: raw to its array, else as a shard."""
    if encoding == "raw":
        journal.append(f"{split}.npy", b"".join(data for data, _ in samples), HEADER)
        return
    index = f"{split}.index"
    first = journal.size(index) // INDEX_ROW
    number = journal.shards.get(split, 0)
    shard, spans = _encode_shard(samples, first)
    rows = [(number, offset, size) for offset, size in spans]
    write_atomic(journal.folder / f"{split}-{number:05d}.tar", shard)
    journal.shards[split] = number + 1
    journal.append(index, np.array(rows, np.int64).tobytes())


def finish_images(journal: Journal, split: str, shape: tuple[int, ...], encoding: str) -> None:
    """What a split's images, of a shape (N, H, W, C) in all, still lack when the last is added."""
    if encoding == "raw":
        _write_header(journal.folder / f"{split}.npy", shape)
    else:
        rows = np.frombuffer(journal.read(f"{split}.index"), np.int64).reshape(-1, 3)
        save_array(journal.folder / f"{split}.index.npy", rows)


def _write_header(path: Path, shape: tuple[int, ...]) -> None:
    """The .npy header in its fixed room before the pixels."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    body = text.ljust(HEADER - 11) + "\n"
    header = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + body.encode()
    assert len(header) == HEADER
    with open(path, "r+b") as file:
        file.truncate(HEADER + int(np.prod(shape)))
        file.write(header)
        file.flush()
        os.fsync(file.fileno())


def encode_jpeg(data: bytes, repairs: tuple[str, ...], pixels: NDArray[np.uint8]) -> bytes:
    """The file as it came where it is what would be shown, else the pixels encoded."""
    size = pixels.shape[0]
    if not repairs:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG" and image.size == (size, size) and image.mode == "RGB":
                return data
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        out, "JPEG", quality=QUALITY, subsampling="4:2:0"
    )
    return out.getvalue()


def _encode_shard(
    samples: Sequence[tuple[bytes, int]], first: int
) -> tuple[bytes, list[tuple[int, int]]]:
    """JPEGs and their labels as a tar in the WebDataset layout, numbered from `first`.

    Returns its bytes, and where in it each JPEG lies: (offset, bytes).
    """
    spans = []
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i, (jpeg, label) in enumerate(samples, first):
            spans.append((out.tell() + tarfile.BLOCKSIZE, len(jpeg)))
            for suffix, data in (("jpg", jpeg), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{i:08d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue(), spans


def save_array(path: Path, array: NDArray[Any]) -> None:
    """A whole .npy, atomically."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    write_atomic(path, out.getvalue())


# What a pack is made from: a digest, counts, and whether it is still the same


def key_of(source: PackSource, options: dict[str, Any]) -> str:
    """Names one packing: the files by name and size, their labels, and the options."""
    h = hashlib.sha256(json.dumps([source.kind, source.classes, options]).encode())
    for split, files in sorted(source.parts.items()):
        h.update(f"{split}:{len(files)};".encode())
        h.update(source.labels[split].tobytes())
        for i in range(len(files)):
            about = f"{files.name(i)}:{max(files.size(i), 0)};"
            h.update(about.encode(errors="surrogateescape"))  # a name need not be UTF-8
    return h.hexdigest()


def check_counts(source: PackSource, expect: dict[str, int] | None) -> None:
    """DataError where the counts are not the official ones, or those that are expected."""
    counts = expect if expect is not None else OFFICIAL.get(source.kind, {})
    for split, count in counts.items():
        if expect is not None and split not in source.parts:
            raise DataError(
                f"{source.root}: has no {split}, of which {count:,} files are expected: there are "
                f"{', '.join(source.parts)}"
            )
        if split in source.parts and len(source.parts[split]) != count:
            there = len(source.parts[split])
            raise DataError(
                f"{source.root}: {split} has {there:,} images and {count:,} are expected: get the "
                f"missing ones, or say that it is meant with {option('expect', {split: there})}"
            )


def read_and_hash(files: ImageFiles, index: int) -> tuple[bytes, bytes | str]:
    """The sha256 of a file and its bytes; zeros, and why, where it cannot be read."""
    try:
        data = files.read(index)
    except DataError as error:
        return bytes(32), str(error)
    return hashlib.sha256(data).digest(), data


def stamps_of(source: PackSource) -> dict[str, list[int]]:
    """When the files of each split were last changed."""
    parts = source.parts.items()
    return {split: [listing.stamp() for listing in files.listings] for split, files in parts}


def check_unchanged(source: PackSource, done: list[tuple[str, int]], digests: bytes) -> None:
    """Reads again what is packed already: (split, index) and 32 bytes of sha256 each, in order."""
    with progress("checking what is packed", len(done), "images") as bar:
        for at, (split, i) in enumerate(done):
            files = source.parts[split]
            if read_and_hash(files, i)[0] != digests[at * 32 : (at + 1) * 32]:
                raise DataError(
                    f"{source.root}: {files.name(i)} has changed since it was packed: put it back, "
                    "or remove what is packed and begin again"
                )
            bar.advance()


def hash_archives(source: PackSource) -> dict[str, PayloadFile]:
    """Size and sha256 of each whole archive, to hold against what its publisher says."""
    parts = source.parts.values()
    listings = [listing for files in parts for listing in files.listings]
    archives = sorted({x.root for x in listings if isinstance(x, ArchiveFiles)})
    with progress("hashing", len(archives), "archives") as bar:
        hashes = {}
        for path in archives:
            hashes[path.name] = PayloadFile(bytes=path.stat().st_size, sha256=sha256_of(path))
            bar.advance()
    return hashes


def read_finished(out: Path, key: str) -> PackedManifest:
    """The manifest of a finished set, once its files are what it says.

    UsageError where it is of something else than `key`, DataError where anything is damaged.
    """
    path, again = out / "manifest.json", f"remove {out} and pack again"
    try:
        manifest = PackedManifest.from_json(parse_json(read_bytes(path), path), str(path))
    except CheckpointError:
        raise DataError(f"{path} is damaged: {again}") from None
    if manifest.key != key:
        raise UsageError(f"{out} holds another packed set: choose another {option('out')}")
    total = sum(file.bytes for file in manifest.payload.values())
    with progress(f"checking {out.name}", total, "bytes") as bar:
        for name, file in manifest.payload.items():
            whole = (out / name).is_file() and (out / name).stat().st_size == file.bytes
            if not whole or sha256_of(out / name) != file.sha256:
                raise DataError(f"{out / name} is missing or damaged: {again}")
            bar.advance(file.bytes)
    return manifest


def count_across(digests: bytes, counts: list[int]) -> int:
    """How many files have the bytes of one of an earlier split: 32 bytes of sha256 each, in order,
    and how many of each split. Those that could not be read have zeros."""
    at, seen, across = 0, set[bytes](), 0
    for count in counts:
        own = [digests[i : i + 32] for i in range(at, at + 32 * count, 32)]
        across += sum(digest in seen and digest != bytes(32) for digest in own)
        seen.update(own)
        at += 32 * count
    return across


def sample_sizes(source: PackSource) -> list[tuple[int, int]]:
    """(H, W) of up to SAMPLED images, evenly over the source, from their headers; those that
    cannot be read so are passed over."""
    total = sum(len(files) for files in source.parts.values())
    sizes = []
    for at in np.linspace(0, total - 1, min(SAMPLED, total), dtype=int).tolist():
        for files in source.parts.values():
            if at < len(files):
                break
            at -= len(files)
        try:
            sizes.append(image_size(files.read(at)))
        except DataError:
            continue
    return sizes


def check_space(out: Path, needed: float) -> None:
    """DataError where the disk of a folder has not so many bytes and 2 % more."""
    needed, free = 1.02 * needed, shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: about {needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free: "
            f"make room, or choose another {option('out')}, {option('size')} or "
            f"{option('encoding')}"
        )
