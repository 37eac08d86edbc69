"""The nearest rows of a matrix, by exact search a block at a time."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import DataError, UsageError
from alexnet.metrics import wilson
from alexnet.terminal import progress

Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine")

BLOCK_BYTES = 64 << 20  # of rows held as float32 at a time
SPARE = 8  # candidates beyond k: float32 sums may put near ones in the wrong order


class Matrix(Protocol):
    """A matrix that is read by slices and by lists of rows: an array, a memory map, or images."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class ClassAgreement:
    """How far neighbours share their image's class, over `n` images: the nearest one (`first`, a
    fraction, with its 95 % interval), and all k of them on average (`share`)."""

    n: int
    k: int
    first: float
    first_ci95: tuple[float, float]
    share: float


def nearest_neighbours(
    queries: Matrix,
    keys: Matrix,
    k: int,
    metric: Metric = "euclidean",
    *,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The k keys nearest to each query, the nearest first; equal ones in the order of their rows.

    Shapes: (Q, ...), (N, ...) -> distances (Q, k), rows of keys (Q, k). Rows are flattened; cosine
    is 1 - cosine, and 1 from a row of zeros. Candidates are found in float32, from the middle of
    the keys so that sums of squares stay small, and measured again in float64. DataError where
    there are fewer than k keys, or where a number is not finite. `block_bytes` of rows are held at
    a time.
    """
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r}: {' or '.join(METRICS)}")
    if not 1 <= k <= len(keys):
        raise DataError(f"{k} neighbours of {len(keys):,} images: ask for 1 to {len(keys):,}")
    distances, ids = np.empty((len(queries), k)), np.empty((len(queries), k), np.intp)
    if not len(queries):
        return distances, ids
    width = int(np.prod(np.asarray(keys[0:1]).shape))
    block = max(block_bytes // (4 * width), 1)
    middle = np.zeros(width, np.float32)
    if metric == "euclidean":
        middle = _flat(keys[0:block]).mean(0)
    asked = 4 * block  # each of these blocks reads all keys once
    with progress("searching neighbours", len(queries), "images") as bar:
        for start in range(0, len(queries), asked):
            some = _flat(queries[start : start + asked])
            candidates = _candidates(some, keys, min(k + SPARE, len(keys)), metric, block, middle)
            for i, row in enumerate(candidates):
                row = np.sort(row)
                exact = _measure(some[i], _flat(keys[row]), metric)
                order = np.argsort(exact, kind="stable")[:k]
                distances[start + i], ids[start + i] = exact[order], row[order]
            bar.advance(len(some))
    return distances, ids


def class_agreement(
    ids: NDArray[np.intp], key_labels: NDArray[np.integer], query_labels: NDArray[np.integer]
) -> ClassAgreement:
    """How many of the neighbours (Q, k) of `nearest_neighbours` have their query's class."""
    same = key_labels[ids] == np.asarray(query_labels)[:, None]
    n, right = len(same), int(same[:, 0].sum())
    return ClassAgreement(n, ids.shape[1], right / n, wilson(right, n), float(same.mean()))


def _candidates(
    some: NDArray[np.float32],
    keys: Matrix,
    count: int,
    metric: Metric,
    block: int,
    middle: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Rows of the `count` best keys for each query, in no order."""
    asked = _ready(some, metric, middle)
    best = torch.full((len(some), 0), 0.0)
    where = torch.empty((len(some), 0), dtype=torch.int64)
    for start in range(0, len(keys), block):
        part = _ready(_flat(keys[start : start + block]), metric, middle)
        scores = asked @ part.T
        if metric == "euclidean":  # the same order as the distance's: |q|^2 is the query's own
            scores = scores - part.square().sum(1) / 2
        rows = torch.arange(start, start + len(part)).expand(len(some), -1)
        joined, ids = torch.cat([best, scores], 1), torch.cat([where, rows], 1)
        best, picked = joined.topk(min(count, joined.shape[1]), sorted=False)
        where = ids.gather(1, picked)
    return where.numpy()


def _measure(
    query: NDArray[np.float32], found: NDArray[np.float32], metric: Metric
) -> NDArray[np.float64]:
    one, many = torch.from_numpy(query), torch.from_numpy(found)
    if metric == "euclidean":  # differences have the float's own precision, sums need more
        apart: Tensor = torch.linalg.vector_norm(many - one, dim=1, dtype=torch.float64)
        return apart.numpy()
    cosine = F.normalize(many.double(), dim=1) @ F.normalize(one.double(), dim=0)
    return (1 - cosine).clamp(min=0).numpy()


def _ready(rows: NDArray[np.float32], metric: Metric, middle: NDArray[np.float32]) -> Tensor:
    """What is multiplied: rows from the middle, or of length 1."""
    if not np.isfinite(rows).all():
        raise DataError("a feature is not a finite number: the network's weights are damaged")
    found = torch.from_numpy(rows - middle)
    return F.normalize(found, dim=1) if metric == "cosine" else found


def _flat(block: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(block, np.float32).reshape(len(block), -1)
