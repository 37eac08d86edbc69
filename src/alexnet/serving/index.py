"""Index of a run's training images by their features, to find those nearest to an image."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.analysis.features import last_hidden, write_features
from alexnet.analysis.neighbours import nearest_neighbours
from alexnet.data import draws
from alexnet.data.dataset import Dataset
from alexnet.data.splits import Split
from alexnet.errors import CheckpointError, Unreadable
from alexnet.predictor import Predictor
from alexnet.records import ImageIndex
from alexnet.support.files import file_error, read_json, sha256_of, write_json
from alexnet.support.terminal import say

FOLDER = "index"  # within the run
MAX_IMAGES = 50_000  # of an index; more training images are sampled by a fixed rule


@dataclass(frozen=True)
class Index:
    """Features of images: the output of a `part`, float32 (N, D), as a memory map.

    The images themselves are read from the data when they are shown.
    """

    part: str
    precision: str
    features: NDArray[np.float32]
    images: Split
    names: list[str]

    def near(self, features: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """Return (row, Euclidean distance) of the k nearest to (D,), the nearest first."""
        distances, rows = nearest_neighbours(
            features[None], self.features, min(k, len(self.features))
        )
        return list(zip(rows[0].tolist(), distances[0].tolist(), strict=True))


def open_index(predictor: Predictor, dataset: Dataset) -> Index:
    """Open the index in the run's folder; build it if missing, or if weights or images differ.

    Images that cannot be read are left out. Raises CheckpointError if it cannot be written.
    """
    train, names = dataset.split("train"), dataset.names("train")
    while True:
        try:
            return _open_or_build(predictor, train, names)
        except Unreadable as error:
            dataset.report_unreadable(error)
            readable = np.setdiff1d(np.arange(len(train)), list(error.images))
            if not len(readable):
                raise
            train, names = train.take(readable), [names[i] for i in readable]


def _open_or_build(predictor: Predictor, train: Split, names: list[str]) -> Index:
    if len(train) > MAX_IMAGES:
        ids = np.sort(draws.permutation(0, 0, len(train), draws.SPLIT)[:MAX_IMAGES])
        train, names = train.take(ids), [names[i] for i in ids]
    part, precision = last_hidden(predictor.model), predictor.precision
    contents = ImageIndex(
        part=part,
        precision=precision,
        weights=sha256_of(predictor.checkpoint / "model.safetensors"),
        images=_digest(names, train),
        shape=(),
    )
    folder = predictor.run.path / FOLDER
    features = _load(folder, contents)
    if features is None:
        say(f"building the index of {len(train):,} training images in {folder}")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise file_error("write", folder, error) from error
        shape = write_features(
            folder / "features.npy", predictor.model, train, predictor.preprocess, part,
            precision=precision, workers=predictor.recipe.workers,
        )  # fmt: skip
        write_json(folder / "index.json", replace(contents, shape=shape))
        features = _load(folder, contents)
        if features is None:
            raise CheckpointError(
                f"{folder} changed while it was written: start one server of this run at a time"
            )
    return Index(part, precision, features, train, names)


def _load(folder: Path, contents: ImageIndex) -> NDArray[np.float32] | None:
    """Load the features; None unless they are of these weights and images."""
    try:
        recorded = ImageIndex.from_json(read_json(folder / "index.json"), str(folder))
        features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    except (CheckpointError, OSError, ValueError):
        return None
    matches = recorded == replace(contents, shape=features.shape) and features.dtype == np.float32
    return features.reshape(len(features), -1) if matches else None


def _digest(names: list[str], train: Split) -> str:
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogateescape"))
    digest.update(f"{train.size} {train.channels}".encode())
    digest.update(np.ascontiguousarray(train.labels).tobytes())
    return digest.hexdigest()
