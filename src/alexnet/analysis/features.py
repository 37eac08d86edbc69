"""Features: outputs of a network's parts for every image of a split, in bounded memory."""

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
from alexnet.data.splits import Split
from alexnet.errors import Unavailable, UsageError
from alexnet.models.net import Net
from alexnet.runtime import autocast
from alexnet.support.files import open_atomic
from alexnet.support.terminal import progress

BATCH = 100  # images in a forward pass
ROW_GROUP_BYTES = 16 << 20  # of features in a row group of a Parquet file


class Crops:
    """Centre crops of a split, uint8 (N, crop, crop, C), read on access."""

    def __init__(self, split: Split, crop: int) -> None:
        self._split, self._margin, self._crop = split, (split.size - crop) // 2, crop

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        images = self._split.read(np.arange(len(self))[rows])
        return images[:, self._margin :, self._margin :][:, : self._crop, : self._crop]


def last_hidden(model: Net) -> str:
    """Name of the input of the last layer, such as relu7; dropout, idle in a test, is skipped."""
    names = list(model.parts)
    before_last = names[: names.index(model.layers[-1])]
    return next(name for name in reversed(before_last) if not name.startswith("drop"))


@torch.inference_mode()
def iter_features(
    model: Net,
    split: Split,
    preprocess: Preprocess,
    parts: Sequence[str],
    *,
    precision: str = "fp32",
    workers: int = 2,
    most: int = 0,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield for each batch the index of its first image, and the parts' outputs float32 (n, ...).

    Feature maps of more than `most` numbers an image are averaged over squares until they fit; 0
    leaves all as they are. Raises UsageError for a part that the network does not have.
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
                _, outputs = model.activations(x, parts)
            pooled = {part: _pooled(maps.float(), most).cpu() for part, maps in outputs.items()}
            yield int(block.ids[0]), pooled
            bar.advance(len(block.ids))


def gather_features(
    model: Net, split: Split, preprocess: Preprocess, parts: Sequence[str], **how: Any
) -> dict[str, NDArray[np.float32]]:
    """Outputs (N, D) of each part for a whole split, in memory.

    `how` are the options of `iter_features`; use `most` for parts with large maps.
    """
    batches: dict[str, list[Tensor]] = {name: [] for name in parts}
    for _, outputs in iter_features(model, split, preprocess, parts, **how):
        for name, rows in outputs.items():
            batches[name].append(rows.flatten(1))
    return {name: torch.cat(rows).numpy() for name, rows in batches.items()}


def write_features(
    out: Path, model: Net, split: Split, preprocess: Preprocess, part: str, **how: Any
) -> tuple[int, ...]:
    """Write a part's outputs for every image of a split into an .npy file.

    Returns their shape (N, ...); they are float32, in the split's order. The file appears when it
    is complete. Memory is that of one batch; `numpy.load(out, mmap_mode="r")` reads the file in the
    same way. `how` are the options of `iter_features`.
    """
    shape: tuple[int, ...] = ()
    with open_atomic(out) as file:
        for _, outputs in iter_features(model, split, preprocess, [part], **how):
            rows = outputs[part].contiguous().numpy()
            if not shape:
                shape = (len(split), *rows.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows.astype("<f4", copy=False).tobytes())
    return shape


def write_parquet(
    out: Path,
    model: Net,
    split: Split,
    preprocess: Preprocess,
    part: str,
    columns: Mapping[str, Sequence[Any]],
    **how: Any,
) -> tuple[int, ...]:
    """Write a part's outputs for every image of a split into a Parquet file; returns their shape.

    Its columns are `columns`, with one value for each image, and `features`, lists of float32 of
    fixed length, flattened in C order. The file's metadata have the `part` and the `shape` of one
    image. Memory is that of one row group, 16 MiB. Raises Unavailable where pyarrow is missing.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise Unavailable(
            f"{out}: Parquet files need a package that is not installed: pip install "
            "'alexnet[parquet]'"
        ) from None
    column_arrays = {name: arrow.array(values) for name, values in columns.items()}
    shape: tuple[int, ...] = ()
    writer: Any = None
    pending: list[NDArray[np.float32]] = []
    rows_written = 0

    def write_row_group() -> None:
        nonlocal rows_written
        numbers = np.concatenate(pending).reshape(-1)
        pending.clear()
        width = int(np.prod(shape[1:]))
        features = arrow.FixedSizeListArray.from_arrays(arrow.array(numbers), width)
        others = {
            name: values.slice(rows_written, len(features))
            for name, values in column_arrays.items()
        }
        writer.write_table(arrow.table({**others, "features": features}, schema=schema))
        rows_written += len(features)

    with open_atomic(out) as file:
        for _, outputs in iter_features(model, split, preprocess, [part], **how):
            rows = outputs[part].contiguous().numpy()
            if writer is None:
                shape = (len(split), *rows.shape[1:])
                kind = arrow.list_(arrow.float32(), int(np.prod(shape[1:])))
                fields = [(name, values.type) for name, values in column_arrays.items()]
                metadata = {"part": part, "shape": json.dumps(shape[1:])}
                schema = arrow.schema([*fields, ("features", kind)], metadata=metadata)
                writer = parquet.ParquetWriter(file, schema, compression="zstd")
            pending.append(rows)
            if sum(batch.nbytes for batch in pending) >= ROW_GROUP_BYTES:
                write_row_group()
        if pending:
            write_row_group()
        writer.close()
    return shape


def activation_parts(model: Net) -> list[str]:
    """Parts for a comparison layer by layer: each activation, and the logits."""
    return [name for name in model.parts if name.startswith("relu")] + [model.layers[-1]]


def _pooled(x: Tensor, most: int) -> Tensor:
    """Maps (N, C, H, W) averaged over squares, so that an image has at most `most` numbers."""
    if x.dim() != 4 or not most or x[0].numel() <= most:
        return x
    side = int((most / x.shape[1]) ** 0.5)
    if not side:
        raise UsageError(
            f"an image's features are limited to {most} numbers, but the part has {x.shape[1]} "
            f"channels: raise the limit to {x.shape[1]} or more"
        )
    return F.adaptive_avg_pool2d(x, side)
