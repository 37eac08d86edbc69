"""Images and archives that tests make: good ones, odd ones, and ILSVRC's official shapes."""

import io
import os
import signal
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data import PackOptions, open_image_set, pack_images

Tree = Mapping[str, bytes]


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth RGB image with some noise, another one for every seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 5, 3), np.uint8)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth).astype(int) + random.integers(-9, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 40, height: int = 30) -> bytes:
    return encode(picture(seed, width, height), "JPEG", quality=90)


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, of what Pillow does not write: what is declared need not be what is there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


PICTURE = picture(0)
JPEG = jpeg(0)


def with_adobe(data: bytes, transform: int) -> bytes:
    """A CMYK JPEG whose Adobe marker says how its colours are coded: 0 CMYK, 2 YCCK."""
    place = data.index(b"Adobe") + 11
    return data[:place] + bytes([transform]) + data[place + 1 :]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(PICTURE, exif=exif)


CMYK = with_adobe(encode(PICTURE.convert("CMYK")), 0)


# containers


def write_files(root: Path, files: Tree) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar_bytes(files: Tree) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def write_tar(path: Path, files: Tree) -> Path:
    path.write_bytes(tar_bytes(files))
    return path


def write_zip(path: Path, files: Tree) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


# Two classes without splits: one odd image, one copy, one file that is no image.
FLAT = {f"{c}/{i}.jpg": jpeg(10 * i + len(c), 12, 10) for c in ("cat", "horse") for i in range(3)}
FLAT |= {"cat/odd.jpg": CMYK, "horse/copy.jpg": FLAT["horse/0.jpg"], "horse/bad.jpg": b"text"}

# ILSVRC

WNIDS = ("n03000001", "n01000002", "n02000004", "n01500003")  # by ID from 1, not in sorted order
TITLES = {wnid: f"thing {wnid[-1]}, other name" for wnid in WNIDS}


def write_kit(
    root: Path,
    kind: str,
    counts: Mapping[str, int],
    truth: Sequence[int | str],
    wnids: Sequence[str] = WNIDS,
    titles: Mapping[str, str] = TITLES,
    name: str = "",
) -> Path:
    """A development kit as published: meta.mat, with rows of inner nodes after the leaves, and the
    validation ground truth. kind is ILSVRC2012 or ILSVRC2010; counts are training images."""
    from scipy.io import savemat

    fields = ("ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    names = (f"{kind}_ID", *fields[1:], "num_train_images")
    leaves = [
        (i, wnid, titles.get(wnid, wnid), f"gloss of {wnid}", 0, [], 0, counts[wnid])
        for i, wnid in enumerate(wnids, 1)
    ]
    n = len(leaves)
    inner = [
        (n + 1, "n00001740", "entity", "that which is", 2, [1, n + 2], 2, 0),
        (n + 2, "n00001930", "physical entity", "that is there", n - 1, [*range(2, n + 1)], 1, 0),
    ]
    table = np.zeros((n + 2, 1), [(name, object) for name in names])
    for i, row in enumerate(leaves + inner):
        for field, value in zip(names, row, strict=True):
            number = not isinstance(value, str)
            table[field][i, 0] = np.array(value, float, ndmin=2) if number else value
    meta = io.BytesIO()
    savemat(meta, {"synsets": table})
    top = {"ILSVRC2012": "ILSVRC2012_devkit_t12", "ILSVRC2010": "devkit-1.0"}[kind]
    files = {
        f"{top}/readme.txt": b"read me",
        f"{top}/data/meta.mat": meta.getvalue(),
        f"{top}/data/{kind}_validation_ground_truth.txt": "".join(f"{i}\n" for i in truth).encode(),
    }
    archives = {
        "ILSVRC2012": "ILSVRC2012_devkit_t12.tar.gz",
        "ILSVRC2010": "ILSVRC2010_devkit-1.0.tar.gz",
    }
    path = root / (name or archives[kind])
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for inside, content in files.items():
            member = tarfile.TarInfo(inside)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def train_tar(classes: Mapping[str, Tree]) -> bytes:
    """A tar of one tar a class, as ILSVRC's training images come."""
    return tar_bytes({f"{wnid}.tar": tar_bytes(files) for wnid, files in classes.items()})


# a pack that dies


@contextmanager
def before_each_change(tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, `tell` is called before each change that reaches the disk, with what it is."""
    real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "rmdir")}

    def told(name: str, *args: Any, **options: Any) -> Any:
        tell(name)
        return real[name](*args, **options)

    # Patched because a process cannot be killed in the middle of a write in another way.
    for name in real:
        setattr(os, name, partial(told, name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def pack_in_blocks(
    source: Path, out: Path, size: int = 16, *, block: int, workers: int = 2, piece: int = 16,
    **options: Any,
) -> Path:  # fmt: skip
    """Several shards and several points to continue from, of few images."""
    found = open_image_set(source)
    chosen = PackOptions(size, **options)
    pack_images(found, out, chosen, expect=None, workers=workers, block=block, piece=piece)
    return out


def pack_and_die(
    source: str, out: str, encoding: str, block: int, deadly: int, size: int = 16
) -> None:
    """Packs in blocks of `block` images and kills itself before the deadly-th change that reaches
    the disk (counted from 0). Runs in a process of its own."""
    left = deadly

    def count(change: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    options = PackOptions(size, encoding)  # type: ignore[arg-type]
    with before_each_change(count):
        pack_images(
            open_image_set(Path(source)), Path(out), options, expect={}, workers=2, block=block
        )
