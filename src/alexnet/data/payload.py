"""The forms in which packed images lie on the disk."""

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.journal import Journal
from alexnet.files import write_atomic

HEADER = 128  # bytes of a .npy header, whatever the number of images
QUALITY = 90  # of JPEGs that have to be encoded; 95 takes a third more to store and to decode
JPEG_BYTES = 0.7  # a pixel, at QUALITY and 4:2:0, to estimate space
INDEX_ROW = 3 * 8  # bytes that say where one JPEG lies: shard, offset, bytes
SAMPLE_BYTES = 1900  # of an image in a shard beside its pixels: headers, label, filled blocks


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
    first = journal.state["bytes"].get(index, 0) // INDEX_ROW
    shards = journal.state.setdefault("shards", {})
    number = shards.get(split, 0)
    shard, spans = _encode_shard(samples, first)
    rows = [(number, offset, size) for offset, size in spans]
    write_atomic(journal.folder / f"{split}-{number:05d}.tar", shard)
    shards[split] = number + 1
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
