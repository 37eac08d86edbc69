"""Nearest neighbours among the rows of a matrix, by exact search in blocks."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import DataError, UsageError
from alexnet.metrics import wilson
from alexnet.support.terminal import progress

Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine")

BLOCK_BYTES = 64 << 20  # of rows in memory as float32 at a time
EXTRA_CANDIDATES = 8  # beyond k: float32 sums may put near rows in the wrong order
QUERY_BLOCKS = 4  # blocks of queries for which all keys are read once


class Matrix(Protocol):
    """Rows that are read by slices and by lists of indices: an array, a memory map, or images."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class ClassAgreement:
    """How often neighbours have the class of their query, as fractions over `n` queries.

    `first`: the nearest neighbour, with its 95 % interval; `share`: all k neighbours.
    """

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
    """The k keys nearest to each query, the nearest first; equally near ones in key order.

    Shapes: (Q, ...), (N, ...) -> distances (Q, k), indices of keys (Q, k). Rows are flattened. The
    cosine distance is 1 - cosine, and 1 for a row of zeros. Candidates are selected in float32,
    with the mean of the keys subtracted so that sums of squares stay small, and measured again in
    float64. `block_bytes` of rows are in memory at a time. Raises DataError where there are fewer
    than k keys, or a number is not finite.
    """
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r} is unknown: use {' or '.join(METRICS)}")
    if not 1 <= k <= len(keys):
        raise DataError(f"{k} neighbours of {len(keys):,} images: ask for 1 to {len(keys):,}")
    distances, ids = np.empty((len(queries), k)), np.empty((len(queries), k), np.intp)
    if not len(queries):
        return distances, ids
    width = int(np.prod(np.asarray(keys[0:1]).shape))
    block = max(block_bytes // (4 * width), 1)
    centre = np.zeros(width, np.float32)
    if metric == "euclidean":
        centre = _flat(keys[0:block]).mean(0)
    count = min(k + EXTRA_CANDIDATES, len(keys))
    with progress("searching neighbours", len(queries), "images") as bar:
        for start in range(0, len(queries), QUERY_BLOCKS * block):
            query_rows = _flat(queries[start : start + QUERY_BLOCKS * block])
            candidates = _find_candidates(query_rows, keys, count, metric, block, centre)
            for i, candidate_ids in enumerate(np.sort(candidates, 1)):
                exact = _measure_distances(query_rows[i], _flat(keys[candidate_ids]), metric)
                order = np.argsort(exact, kind="stable")[:k]
                distances[start + i], ids[start + i] = exact[order], candidate_ids[order]
            bar.advance(len(query_rows))
    return distances, ids


def class_agreement(
    ids: NDArray[np.intp], key_labels: NDArray[np.integer], query_labels: NDArray[np.integer]
) -> ClassAgreement:
    """How often the keys `ids` (Q, k) of `nearest_neighbours` have the class of their query."""
    same = key_labels[ids] == np.asarray(query_labels)[:, None]
    n, hits = len(same), int(same[:, 0].sum())
    return ClassAgreement(n, ids.shape[1], hits / n, wilson(hits, n), float(same.mean()))


def _find_candidates(
    queries: NDArray[np.float32],
    keys: Matrix,
    count: int,
    metric: Metric,
    block: int,
    centre: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Indices (Q, count) of the keys nearest to each query in float32, in no order."""
    query_rows = _prepare(queries, metric, centre)
    best_scores = torch.full((len(queries), 0), 0.0)
    best_ids = torch.empty((len(queries), 0), dtype=torch.int64)
    for start in range(0, len(keys), block):
        key_rows = _prepare(_flat(keys[start : start + block]), metric, centre)
        scores = query_rows @ key_rows.T
        if metric == "euclidean":
            # Orders keys as the distance does, whose |query|^2 is the same for all of them.
            scores = scores - key_rows.square().sum(1) / 2
        key_ids = torch.arange(start, start + len(key_rows)).expand(len(queries), -1)
        scores, ids = torch.cat([best_scores, scores], 1), torch.cat([best_ids, key_ids], 1)
        best_scores, places = scores.topk(min(count, scores.shape[1]), sorted=False)
        best_ids = ids.gather(1, places)
    return best_ids.numpy()


def _measure_distances(
    query: NDArray[np.float32], keys: NDArray[np.float32], metric: Metric
) -> NDArray[np.float64]:
    """Distances (n,) of keys (n, D) from a query (D,), in float64."""
    query_row, key_rows = torch.from_numpy(query), torch.from_numpy(keys)
    if metric == "euclidean":  # float32 is enough for differences, but not for their sums
        distances: Tensor = torch.linalg.vector_norm(
            key_rows - query_row, dim=1, dtype=torch.float64
        )
        return distances.numpy()
    cosine = F.normalize(key_rows.double(), dim=1) @ F.normalize(query_row.double(), dim=0)
    return (1 - cosine).clamp(min=0).numpy()


def _prepare(rows: NDArray[np.float32], metric: Metric, centre: NDArray[np.float32]) -> Tensor:
    """Rows less the centre, and of length 1 for the cosine."""
    if not np.isfinite(rows).all():
        raise DataError("a feature is not a finite number: the network's weights are damaged")
    centred = torch.from_numpy(rows - centre)
    return F.normalize(centred, dim=1) if metric == "cosine" else centred


def _flat(block: NDArray[Any]) -> NDArray[np.float32]:
    """Rows (n, D) as contiguous float32."""
    return np.ascontiguousarray(block, np.float32).reshape(len(block), -1)
