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

from alexnet.data.examine import Orient, examine
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
from alexnet.data.images import MAX_PIXELS
from alexnet.data.labelled import Arranged, Files
from alexnet.data.loader import read_ahead
from alexnet.data.payload import (
    HEADER,
    QUALITY,
    encode_jpeg,
    encode_shard,
    expected_bytes,
    save_array,
    write_header,
)
from alexnet.data.statistics import Sums
from alexnet.errors import DataError, Interrupted, UsageError
from alexnet.files import (
    DirLock,
    cannot,
    fsync_dir,
    parse_json,
    read_bytes,
    sha256_of,
    write_atomic,
    write_json,
)
from alexnet.interrupt import Signals
from alexnet.terminal import escaped, progress, say

Encoding = Literal["raw", "jpeg"]

FORMAT = 1
COMMIT = 1024  # images between two points to continue from; also the images of a shard
PIECE = 16  # images a thread takes at a time
_WORK = ".packing"
_PAYLOAD = (".npy", ".tar", ".names.txt")


@dataclass(frozen=True)
class Options:
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


def pack(
    source: Arranged, out: Path, options: Options, *, expect: dict[str, int] | None, workers: int
) -> dict[str, Any]:
    """Packs every image of a source; returns the manifest.

    Continues what a killed pack of the same source and options left in `out`. DataError where the
    counts are not the official ones (or those of `expect`), or there is too little space.
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
            return _Packer(source, out, options, key, workers).run()
    except OSError as error:  # images that cannot be read are a DataError before it comes here
        raise cannot("write", out, error) from None


def _sweep(out: Path) -> None:
    """Clears what packing leaves beside a finished set, also when it was killed at the very end."""
    for left in out.glob(".tmp-*"):
        left.unlink(missing_ok=True)
    shutil.rmtree(out / _WORK, ignore_errors=True)


class _Packer:
    def __init__(
        self, source: Arranged, out: Path, options: Options, key: str, workers: int
    ) -> None:
        self.source, self.out, self.options, self.workers = source, out, options, workers
        self.work = out / _WORK
        self.state: dict[str, Any] = {"key": key, "done": {}, "bytes": {}}
        self.sums = Sums((options.size, options.size, options.channels))
        state = self.work / "state.json"
        if state.is_file():
            self.state = parse_json(read_bytes(state), state)
            if self.state.get("key") != key:
                raise UsageError(
                    f"{out} holds a half-finished pack of another source or other options: "
                    "choose another --out, or remove it"
                )
            if name := self.state.get("sums"):
                self.sums = Sums.from_bytes(read_bytes(self.work / name))
        else:
            images = sum(len(files) for files in source.parts.values())
            o = options
            check_space(out, expected_bytes(images, o.size, o.channels, o.encoding))

    def run(self) -> dict[str, Any]:
        splits = [s for s in ("train", "all", "val", "test") if s in self.source.parts]
        total = sum(len(self.source.parts[s]) for s in splits)
        before = sum(self.state["done"].values())
        if before:
            say(f"continuing {self.out}: {before:,} of {total:,} images are packed")
            if self.state.get("stamps") != stamps_of(self.source):
                done = [(s, i) for s in splits for i in range(self.state["done"].get(s, 0))]
                check_unchanged(self.source, done, self._read("digests"))
        self.state["stamps"] = stamps_of(self.source)
        with (
            Signals() as self.signals,
            progress(f"packing {self.source.root.name}", total, "images", before) as bar,
        ):
            for split in splits:
                self._pack_split(split, self.source.parts[split], bar)
        return self._finish(splits)

    # One split

    def _pack_split(self, split: str, files: Files, bar: Any) -> None:
        done = self.state["done"].get(split, 0)
        while done < len(files):
            stop = min(done + COMMIT, len(files))
            pieces = range(done, stop, PIECE)

            def prepare(start: int, stop: int = stop) -> tuple[list[_Done], Sums]:
                return self._prepare(split, files, range(start, min(start + PIECE, stop)))

            images: list[_Done] = []
            for piece, sums in read_ahead(prepare, pieces, self.workers):
                images += piece
                self.sums.merge(sums)
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
        if self.options.encoding == "raw":
            self._append(f"{split}.npy", b"".join(image.payload for image in kept), HEADER)
        else:
            self._write_shard(split, kept)
        labels = np.array([image.label for image in kept], np.int64)
        self._append(f"{split}.labels", labels.tobytes())
        names = "".join(f"{escaped(image.name)}\n" for image in kept)
        self._append(f"{split}.names", names.encode())
        odd = [image for image in images if image.repairs or image.refused]
        lines = (
            json.dumps({"split": split, "path": i.name, "repairs": i.repairs, "refused": i.refused})
            for i in odd
        )
        self._append("odd.jsonl", "".join(f"{line}\n" for line in lines).encode())
        self._append("digests", b"".join(image.digest for image in images))
        old, new = self.state.get("sums"), f"sums-{split}-{done}.npz"
        write_atomic(self.work / new, self.sums.to_bytes())
        self.state["sums"] = new
        self.state["done"][split] = done
        write_json(self.work / "state.json", self.state)
        if old and old != new:
            (self.work / old).unlink(missing_ok=True)

    def _append(self, name: str, data: bytes, header: int = 0) -> None:
        """Adds to a file of the work folder, from where the last commit left it."""
        at = self.state["bytes"].get(name, header)
        with open(self.work / name, "r+b" if (self.work / name).exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.state["bytes"][name] = at + len(data)

    def _write_shard(self, split: str, images: list[_Done]) -> None:
        first = self.state["bytes"].get(f"{split}.labels", 0) // 8
        shards = self.state.setdefault("shards", {})
        number = shards.get(split, 0)
        samples = [(image.payload, image.label) for image in images]
        shard, spans = encode_shard(samples, first)
        rows = [(number, offset, size) for offset, size in spans]
        write_atomic(self.work / f"{split}-{number:05d}.tar", shard)
        shards[split] = number + 1
        self._append(f"{split}.index", np.array(rows, np.int64).tobytes())

    # The end

    def _finish(self, splits: list[str]) -> dict[str, Any]:
        o = self.options
        for name in os.listdir(self.out):  # of one killed while moving them
            if name.endswith(_PAYLOAD):
                os.replace(self.out / name, self.work / name)
        odd = [json.loads(line) for line in self._read("odd.jsonl").splitlines()]
        counts, payload = {}, {}
        for split in splits:
            labels = np.frombuffer(self._read(f"{split}.labels"), np.int64)
            counts[split] = len(labels)
            save_array(self.work / f"{split}.labels.npy", labels)
            write_atomic(self.work / f"{split}.names.txt", self._read(f"{split}.names"))
            if o.encoding == "raw":
                shape = (len(labels), o.size, o.size, o.channels)
                write_header(self.work / f"{split}.npy", shape)
            else:
                rows = np.frombuffer(self._read(f"{split}.index"), np.int64).reshape(-1, 3)
                save_array(self.work / f"{split}.index.npy", rows)
        if not self.sums.images:
            shutil.rmtree(self.work, ignore_errors=True)
            first = next(x for x in odd if x["refused"])
            raise DataError(
                f"{self.source.root}: no training image could be read, first {first['path']}: "
                f"{first['refused']}"
            )
        measured = self.sums.statistics()
        assert measured.image is not None
        save_array(self.work / "mean.npy", measured.image.numpy())
        names = sorted(name for name in os.listdir(self.work) if name.endswith(_PAYLOAD))
        with progress("hashing", len(names), "files") as bar:
            for name in names:
                path = self.work / name
                payload[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                bar.advance()
        manifest = {
            "format": FORMAT,
            "key": self.state["key"],
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
                "files": sum(self.state["done"].values()),
                "sha256": hashlib.sha256(self._read("digests")).hexdigest(),
                "archives": hash_archives(self.source),
            },
            "mean": measured.mean,
            "std": measured.std,
            "covariance": measured.covariance,
            "pca": measured.pca(),
            "repairs": [{"path": x["path"], "repairs": x["repairs"]} for x in odd if x["repairs"]],
            "refused": [{"path": x["path"], "reason": x["refused"]} for x in odd if x["refused"]],
            "across": count_across(self._read("digests"), [self.state["done"][s] for s in splits]),
            "others": dict(self.source.others),
            "payload": payload,
        }
        for name in names:
            os.replace(self.work / name, self.out / name)
        fsync_dir(self.out)
        write_json(self.out / "manifest.json", manifest)
        _sweep(self.out)
        return manifest

    def _read(self, name: str) -> bytes:
        """A file of the work folder as far as it is committed."""
        if not (self.work / name).exists():
            return b""
        with open(self.work / name, "rb") as file:
            return file.read(self.state["bytes"].get(name, 0))
