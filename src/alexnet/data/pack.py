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
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from alexnet.data.examine import examine
from alexnet.data.identity import (
    check_counts,
    check_space,
    check_unchanged,
    count_across,
    hash_archives,
    key_of,
    read_and_hash,
    read_finished,
    stamps_of,
)
from alexnet.data.images import MAX_PIXELS, Orient
from alexnet.data.journal import Journal
from alexnet.data.labelled import Arranged, Files
from alexnet.data.loader import read_ahead
from alexnet.data.payload import (
    QUALITY,
    add_images,
    encode_jpeg,
    expected_bytes,
    finish_images,
    save_array,
)
from alexnet.data.statistics import Sums
from alexnet.errors import DataError, Interrupted, UsageError
from alexnet.files import (
    DirLock,
    file_error,
    fsync_dir,
    sha256_of,
    write_atomic,
    write_json,
)
from alexnet.signals import DeferredSignals
from alexnet.terminal import escaped, progress, say

Encoding = Literal["raw", "jpeg"]

FORMAT = 1
BLOCK = 1024  # images between two points to continue from; also the images of a shard
PIECE = 16  # images a thread takes at a time
_WORK = ".packing"
_PAYLOAD = (".npy", ".tar", ".names.txt")


@dataclass(frozen=True)
class PackOptions:
    size: int = 256
    encoding: Encoding = "raw"
    orient: Orient = "ignore"
    channels: int = 3
    max_pixels: int = MAX_PIXELS


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
    source: Arranged,
    out: Path,
    options: PackOptions,
    *,
    expect: dict[str, int] | None,
    workers: int,
    block: int = BLOCK,
    piece: int = PIECE,
) -> dict[str, Any]:
    """Packs every image of a source; returns the manifest.

    Continues what a killed pack of the same source, options and `block` left in `out`: after each
    `block` images all is on the disk, and so many a shard holds. A thread takes `piece` images at a
    time. DataError where the counts are not the official ones (or those of `expect`), or there is
    too little space.
    """
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
            raise UsageError(f"{out} is not empty: choose another --out, or a new folder")
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
        source: Arranged,
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

    def run(self) -> dict[str, Any]:
        splits = [s for s in ("train", "all", "val", "test") if s in self.source.parts]
        total = sum(len(self.source.parts[s]) for s in splits)
        before = sum(self.journal.done.values())
        if before:
            say(f"continuing {self.out}: {before:,} of {total:,} images are packed")
            if self.journal.state.get("stamps") != stamps_of(self.source):
                done = [(s, i) for s in splits for i in range(self.journal.done.get(s, 0))]
                check_unchanged(self.source, done, self.journal.read("digests"))
        self.journal.state["stamps"] = stamps_of(self.source)
        with (
            DeferredSignals() as self.signals,
            progress(f"packing {self.source.root.name}", total, "images", before) as bar,
        ):
            for split in splits:
                self._pack_split(split, self.source.parts[split], bar)
        return self._finish(splits)

    # One split

    def _pack_split(self, split: str, files: Files, bar: Any) -> None:
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

    def _prepare(self, split: str, files: Files, ids: range) -> tuple[list[_Done], Sums]:
        """Reads, decodes and encodes some images; in a thread."""
        o = self.options
        ready = []
        sums = Sums((o.size, o.size, o.channels))
        for i in ids:
            name, label = files.name(i), int(files.labels[i])
            digest, data = read_and_hash(files, i)
            if isinstance(data, str):
                ready.append(_Done(name, label, digest, refused=data))
                continue
            found = examine(
                data, name, size=o.size, channels=o.channels, orient=o.orient,
                max_pixels=o.max_pixels,
            )  # fmt: skip
            if found.pixels is None:
                ready.append(_Done(name, label, digest, refused=found.refused))
                continue
            pixels, payload = found.pixels, found.pixels.tobytes()
            if o.encoding == "jpeg":
                payload = encode_jpeg(data, found.repairs, pixels)
                seen = examine(payload, name, size=o.size, channels=o.channels).pixels
                assert seen is not None
                pixels = seen
            if split in ("train", "all"):
                sums.add(pixels[None])
            ready.append(_Done(name, label, digest, found.repairs, "", payload))
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
        odd = [image for image in images if image.repairs or image.refused]
        lines = (
            json.dumps({"split": split, "path": i.name, "repairs": i.repairs, "refused": i.refused})
            for i in odd
        )
        self.journal.append("odd.jsonl", "".join(f"{line}\n" for line in lines).encode())
        self.journal.append("digests", b"".join(image.digest for image in images))
        self.journal.commit(split, done)

    # The end

    def _finish(self, splits: list[str]) -> dict[str, Any]:
        o, journal, work = self.options, self.journal, self.journal.folder
        for name in os.listdir(self.out):  # of one killed while moving them
            if name.endswith(_PAYLOAD):
                os.replace(self.out / name, work / name)
        odd = [json.loads(line) for line in journal.read("odd.jsonl").splitlines()]
        counts, payload = {}, {}
        for split in splits:
            labels = np.frombuffer(journal.read(f"{split}.labels"), np.int64)
            counts[split] = len(labels)
            save_array(work / f"{split}.labels.npy", labels)
            write_atomic(work / f"{split}.names.txt", journal.read(f"{split}.names"))
            shape = (len(labels), o.size, o.size, o.channels)
            finish_images(journal, split, shape, o.encoding)
        if not journal.sums.images:
            shutil.rmtree(work, ignore_errors=True)
            first = next(x for x in odd if x["refused"])
            raise DataError(
                f"{self.source.root}: no training image could be read, first {first['path']}: "
                f"{first['refused']}"
            )
        measured = journal.sums.statistics()
        assert measured.image is not None
        save_array(work / "mean.npy", measured.image.numpy())
        names = sorted(name for name in os.listdir(work) if name.endswith(_PAYLOAD))
        with progress("hashing", len(names), "files") as bar:
            for name in names:
                path = work / name
                payload[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                bar.advance()
        digests = journal.read("digests")
        manifest = {
            "format": FORMAT,
            "key": journal.state["key"],
            "kind": self.source.kind,
            "classes": list(self.source.classes),
            "titles": dict(self.source.titles),
            "counts": counts,
            "size": o.size,
            "channels": o.channels,
            "encoding": o.encoding,
            "orient": o.orient,
            "source": {
                "name": self.source.root.name,
                "files": sum(journal.done.values()),
                "sha256": hashlib.sha256(digests).hexdigest(),
                "archives": hash_archives(self.source),
            },
            "mean": measured.mean,
            "std": measured.std,
            "covariance": measured.covariance,
            "pca": measured.pca(),
            "repairs": [{"path": x["path"], "repairs": x["repairs"]} for x in odd if x["repairs"]],
            "refused": [{"path": x["path"], "reason": x["refused"]} for x in odd if x["refused"]],
            "across": count_across(digests, [journal.done[s] for s in splits]),
            "others": dict(self.source.others),
            "payload": payload,
        }
        for name in names:
            os.replace(work / name, self.out / name)
        fsync_dir(self.out)
        write_json(self.out / "manifest.json", manifest)
        _sweep(self.out)
        return manifest
