"""A packed set: raw pixels in a memory map, or JPEGs read by index out of shards."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from alexnet.data.examine import TURNED
from alexnet.data.image_set import ImageSet, LabelledImages, Opening, make_image_set, reading
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, DataError
from alexnet.records import Misfit, PackedManifest
from alexnet.support.files import read_json
from alexnet.support.options import call


class PackedJpegs:
    """The JPEGs of one split by index, readable from any thread."""

    def __init__(self, root: Path, split: str, index: NDArray[np.int64], shape: tuple[int, ...]):
        self.root, self.split, self.index = root, split, index
        self.shape = (len(index), *shape)
        numbers = np.unique(index[:, 0]).tolist()
        self._paths = {shard: root / f"{split}-{shard:05d}.tar" for shard in numbers}
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.index)

    def read(
        self, ids: NDArray[np.integer], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Images by index, into `out`, or a new array. Shapes: (M,) -> uint8
        (M, size, size, C). DataError for what does not decode."""
        if out is None:
            out = np.empty((len(ids), *self.shape[1:]), np.uint8)
        colours = "RGB" if self.shape[-1] == 3 else "GRAY"
        side = self.shape[1:3]
        for at, pixels, (shard, offset, size) in zip(
            ids.tolist(), out, self.index[ids].tolist(), strict=True
        ):
            with reading(self._paths[shard]):
                data = os.pread(self._descriptor(shard), size, offset)
                shape = simplejpeg.decode_jpeg_header(data)[:2]
                if shape != side:
                    raise DataError(
                        f"{self._paths[shard]}: image {at} is {shape[1]}x{shape[0]}: pack it again"
                    )
                simplejpeg.decode_jpeg(data, colours, fastupsample=True, buffer=pixels)
        return out

    def files(self) -> Iterator[bytes]:
        """Every JPEG as it lies in the shards, in order."""
        for shard, offset, size in self.index.tolist():
            with reading(self._paths[shard]):
                yield os.pread(self._descriptor(shard), size, offset)

    def _descriptor(self, shard: int) -> int:
        file = self._files.get(shard)
        if file is None:
            with self._lock:
                file = self._files.get(shard)
                if file is None:
                    file = self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
        return file

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)


def open_packed(opening: Opening) -> ImageSet | None:
    """The packed set in a folder, or None where there is no manifest."""
    root = opening.root
    if not (root / "manifest.json").is_file():
        if (root / ".packing").is_dir():
            raise DataError(f"{root}: half packed: run the same `{call('data pack')}` to finish it")
        return None
    try:
        manifest = PackedManifest.read(read_json(root / "manifest.json"))
        shape = (manifest.size, manifest.size, manifest.channels)
        readers: dict[str, Callable[[], LabelledImages]] = {}
        for split, count in manifest.counts.items():
            readers[split] = partial(_read, root, split, count, shape, manifest.encoding)
        for name, file in manifest.payload.items():
            if not (root / name).is_file() or (root / name).stat().st_size != file.bytes:
                why = f"missing or cut: restore its copy, or remove {root} and pack again"
                raise DataError(f"{root / name}: {why}")
        covariance = tuple(tuple(row) for row in manifest.covariance)
        mean, std = tuple(manifest.mean), tuple(manifest.std)
        with reading(root / "mean.npy"):
            image = torch.from_numpy(np.load(root / "mean.npy", allow_pickle=False))
        # Of arrays nothing was turned, whatever the manifest says.
        orient = None if manifest.kind in ("idx", "cifar10") else manifest.orient
        turned = count_turned(manifest)
        return make_image_set(
            "packed",
            root,
            tuple(manifest.classes),
            readers,
            digest=manifest.key + manifest.source.sha256,
            titles=manifest.titles,
            orient=orient,
            turned=turned,
            # Of a set that is split when it is read, they would be of its test images too.
            statistics=Statistics(mean, std, covariance, image) if "train" in readers else None,
        )
    except (Misfit, CheckpointError) as error:
        why = " ".join(str(error).split())
        raise DataError(
            f"{root / 'manifest.json'}: damaged ({why}): remove {root} and pack again"
        ) from None


def count_turned(manifest: PackedManifest) -> int:
    """How many files of a packed set had an EXIF orientation, whatever was done about it."""
    return sum(any(TURNED in r for r in file.repairs) for file in manifest.repairs)


def _read(
    root: Path, split: str, count: int, shape: tuple[int, ...], encoding: str
) -> LabelledImages:
    def table(name: str, mapped: bool = False) -> NDArray[np.generic]:
        with reading(root / name):
            rows: NDArray[np.generic] = np.load(
                root / name, allow_pickle=False, mmap_mode="r" if mapped else None
            )
        if len(rows) != count:
            raise DataError(f"{root / name}: {len(rows):,} rows, expected {count:,}: pack again")
        return rows

    labels = table(f"{split}.labels.npy").astype(np.int64)
    if encoding == "raw":
        pixels = table(f"{split}.npy", mapped=True)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise DataError(f"{root / split}.npy: {pixels.dtype} {pixels.shape}: pack again")
        return LabelledImages(
            labels, np.asarray(pixels)
        )  # memmap's own views cost more than a small image
    index = table(f"{split}.index.npy").astype(np.int64)
    return LabelledImages(labels, PackedJpegs(root, split, index, shape))
