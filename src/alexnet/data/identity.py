"""What a pack was made from: named by a digest, counted, and held against what is there now."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.ilsvrc import OFFICIAL
from alexnet.data.images import image_size
from alexnet.data.labelled import Arranged, Files
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.files import parse_json, read_bytes, sha256_of
from alexnet.options import option
from alexnet.terminal import progress

SAMPLED = 64  # images, before the work begins


def key_of(source: Arranged, options: dict[str, Any]) -> str:
    """Names one packing: the files by name and size, their labels, and the options."""
    h = hashlib.sha256(json.dumps([source.kind, source.classes, options]).encode())
    for split, files in sorted(source.parts.items()):
        h.update(f"{split}:{len(files)};".encode())
        h.update(files.labels.tobytes())
        for i in range(len(files)):
            listing, at = files.places[i]
            about = f"{files.name(i)}:{files.listings[listing].sizes[at]};"
            h.update(about.encode(errors="surrogateescape"))  # a name need not be UTF-8
    return h.hexdigest()


def check_counts(source: Arranged, expect: dict[str, int] | None) -> None:
    """DataError where the counts are not the official ones, or those that are expected."""
    wanted = expect if expect is not None else OFFICIAL.get(source.kind, {})
    for split, count in wanted.items():
        if expect is not None and split not in source.parts:
            raise DataError(
                f"{source.root}: has no {split}, of which {count:,} files are expected: there are "
                f"{', '.join(source.parts)}"
            )
        if split in source.parts and len(source.parts[split]) != count:
            found = len(source.parts[split])
            raise DataError(
                f"{source.root}: {split} has {found:,} images and {count:,} are expected: get the "
                f"missing ones, or say that it is meant with {option('expect', {split: found})}"
            )


def read_and_hash(files: Files, index: int) -> tuple[bytes, bytes | str]:
    """The sha256 of a file and its bytes; zeros, and why, where it cannot be read."""
    try:
        data = files.read(index)
    except DataError as error:
        return bytes(32), str(error)
    return hashlib.sha256(data).digest(), data


def stamps_of(source: Arranged) -> dict[str, list[int]]:
    """When the files of each split were last changed."""
    parts = source.parts.items()
    return {split: [listing.stamp for listing in files.listings] for split, files in parts}


def check_unchanged(source: Arranged, done: list[tuple[str, int]], digests: bytes) -> None:
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


def hash_archives(source: Arranged) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each whole archive, to hold against what its publisher says."""
    parts = source.parts.values()
    roots = {getattr(listing, "root", None) for files in parts for listing in files.listings}
    archives = sorted(root for root in roots if root is not None and root.is_file())
    with progress("hashing", len(archives), "archives") as bar:
        found = {}
        for path in archives:
            found[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            bar.advance()
    return found


def read_finished(out: Path, key: str) -> dict[str, Any]:
    """The manifest of a finished set, once its files are what it says.

    UsageError where it is of something else than `key`, DataError where anything is damaged.
    """
    path, again = out / "manifest.json", f"remove {out} and pack again"
    try:
        manifest = parse_json(read_bytes(path), path)
    except CheckpointError:
        raise DataError(f"{path} is damaged: {again}") from None
    if manifest.get("key") != key:
        raise UsageError(f"{out} holds another packed set: choose another {option('out')}")
    payload = manifest["payload"]
    total = sum(said["bytes"] for said in payload.values())
    with progress(f"checking {out.name}", total, "bytes") as bar:
        for name, said in payload.items():
            whole = (out / name).is_file() and (out / name).stat().st_size == said["bytes"]
            if not whole or sha256_of(out / name) != said["sha256"]:
                raise DataError(f"{out / name} is missing or damaged: {again}")
            bar.advance(said["bytes"])
    return manifest


def count_across(digests: bytes, counts: list[int]) -> int:
    """How many files have the bytes of one of an earlier split: 32 bytes of sha256 each, in order,
    and how many of each split. Those that could not be read have zeros."""
    at, seen, found = 0, set[bytes](), 0
    for count in counts:
        own = [digests[i : i + 32] for i in range(at, at + 32 * count, 32)]
        found += sum(digest in seen and digest != bytes(32) for digest in own)
        seen.update(own)
        at += 32 * count
    return found


def sample_sizes(source: Arranged) -> list[tuple[int, int]]:
    """(H, W) of up to SAMPLED images, evenly over the source, from their headers; those that
    cannot be read so are passed over."""
    total = sum(len(files) for files in source.parts.values())
    found = []
    for at in np.linspace(0, total - 1, min(SAMPLED, total), dtype=int).tolist():
        for files in source.parts.values():
            if at < len(files):
                break
            at -= len(files)
        try:
            found.append(image_size(files.read(at)))
        except DataError:
            continue
    return found


def check_space(out: Path, needed: float) -> None:
    """DataError where the disk of a folder has not so many bytes and 2 % more."""
    needed, free = 1.02 * needed, shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: about {needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free: "
            f"make room, or choose another {option('out')}, {option('size')} or "
            f"{option('encoding')}"
        )
