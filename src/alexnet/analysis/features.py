"""What the parts of a network say of every image of a split, in bounded memory."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.augment import Preprocess
from alexnet.data.loader import batches_in_order
from alexnet.data.slices import Slice
from alexnet.errors import Unavailable, UsageError
from alexnet.files import open_atomic
from alexnet.models.net import Net
from alexnet.runtime import autocast
from alexnet.terminal import progress

BATCH = 100  # images in a forward pass
GROUP_BYTES = 16 << 20  # of features in a row group


class Crops:
    """The centre crops of a split as rows of pixels, read when asked for."""

    def __init__(self, split: Slice, crop: int) -> None:
        self._split, self._edge, self._crop = split, (split.size - crop) // 2, crop

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        images = self._split.read(np.arange(len(self))[rows])
        return images[:, self._edge :, self._edge :][:, : self._crop, : self._crop]


def last_hidden(model: Net) -> str:
    """The part that the last layer reads, without dropout, which is still when testing: relu7."""
    names = list(model.parts)
    return next(n for n in reversed(names[: names.index(model.layers[-1])]) if n[:4] != "drop")


@torch.inference_mode()
def iter_features(
    model: Net,
    split: Slice,
    preprocess: Preprocess,
    parts: Sequence[str],
    *,
    precision: str = "fp32",
    workers: int = 2,
    most: int = 0,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(index of the first image, each part's output float32 (n, ...)), a batch at a time.

    With `most`, maps of more numbers than that are averaged over squares to fewer. A part that is
    not there is a UsageError.
    """
    for name in parts:
        model.part(name)
    device = next(model.parameters()).device
    model.eval()
    starts = range(0, len(split), BATCH)

    with progress("reading features", len(split), "images") as bar:
        for block in batches_in_order(split, starts, BATCH, workers, device):
            x = preprocess.views(block.images.to(device), 1)[0]
            with autocast(device, precision):
                _, found = model.activations(x, parts)
            yield int(block.ids[0]), {k: _pooled(v.float(), most).cpu() for k, v in found.items()}
            bar.advance(len(block.ids))


def gather_features(
    model: Net, split: Slice, preprocess: Preprocess, parts: Sequence[str], **how: Any
) -> dict[str, NDArray[np.float32]]:
    """Each part's outputs for a whole split, in memory: for parts made small with `most`."""
    found: dict[str, list[Tensor]] = {name: [] for name in parts}
    for _, block in iter_features(model, split, preprocess, parts, **how):
        for name, rows in block.items():
            found[name].append(rows.flatten(1))
    return {name: torch.cat(rows).numpy() for name, rows in found.items()}


def write_features(
    out: Path, model: Net, split: Slice, preprocess: Preprocess, part: str, **how: Any
) -> tuple[int, ...]:
    """A part's output for every image of a split into an .npy file, which appears when whole.

    Returns its shape (N, ...), float32 in the split's order. Memory is that of one batch:
    `numpy.load(out, mmap_mode="r")` reads it the same way.
    """
    shape: tuple[int, ...] = ()
    with open_atomic(out) as file:
        for _, found in iter_features(model, split, preprocess, [part], **how):
            rows = found[part].contiguous().numpy()
            if not shape:
                shape = (len(split), *rows.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows.astype("<f4", copy=False).tobytes())
    return shape


def write_parquet(
    out: Path,
    model: Net,
    split: Slice,
    preprocess: Preprocess,
    part: str,
    columns: Mapping[str, Sequence[Any]],
    **how: Any,
) -> tuple[int, ...]:
    """The same into a Parquet file: `columns`, one value an image each, and `features`, a list of
    float32 of fixed length, flattened in C order; `shape` and `part` stand in the file's metadata.

    Memory is that of one row group, 16 MiB. Raises Unavailable where pyarrow is missing.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise Unavailable(
            f"{out} needs a package that is not installed: pip install 'alexnet[parquet]'"
        ) from None
    given = {name: arrow.array(values) for name, values in columns.items()}
    shape: tuple[int, ...] = ()
    writer: Any = None
    waiting: list[NDArray[np.float32]] = []
    done = 0

    def flush() -> None:
        nonlocal done
        rows = np.concatenate(waiting).reshape(-1)
        waiting.clear()
        block = arrow.FixedSizeListArray.from_arrays(arrow.array(rows), int(np.prod(shape[1:])))
        parts = {name: values.slice(done, len(block)) for name, values in given.items()}
        writer.write_table(arrow.table({**parts, "features": block}, schema=schema))
        done += len(block)

    with open_atomic(out) as file:
        for _, found in iter_features(model, split, preprocess, [part], **how):
            rows = found[part].contiguous().numpy()
            if writer is None:
                shape = (len(split), *rows.shape[1:])
                kind = arrow.list_(arrow.float32(), int(np.prod(shape[1:])))
                fields = [(name, values.type) for name, values in given.items()]
                told = {"part": part, "shape": json.dumps(shape[1:])}
                schema = arrow.schema([*fields, ("features", kind)], metadata=told)
                writer = parquet.ParquetWriter(file, schema, compression="zstd")
            waiting.append(rows)
            if sum(block.nbytes for block in waiting) >= GROUP_BYTES:
                flush()
        if waiting:
            flush()
        writer.close()
    return shape


def activation_parts(model: Net) -> list[str]:
    """The outputs that are compared layer by layer: each activation, and the logits."""
    return [name for name in model.parts if name.startswith("relu")] + [model.layers[-1]]


def _pooled(x: Tensor, most: int) -> Tensor:
    if x.dim() != 4 or not most or x[0].numel() <= most:
        return x
    side = int((most / x.shape[1]) ** 0.5)
    if not side:
        raise UsageError(f"{x.shape[1]} channels are more than {most} numbers: raise it")
    return F.adaptive_avg_pool2d(x, side)
