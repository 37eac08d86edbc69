"""The training images of a run by what the network makes of them, to find those near an image."""

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
from alexnet.files import file_error, read_json, sha256_of, write_json
from alexnet.predictor import Predictor
from alexnet.runs.records import ImageIndex
from alexnet.terminal import say

FOLDER = "index"  # within the run
LARGEST = 50_000  # images: of more training images so many, drawn by a fixed rule


@dataclass(frozen=True)
class Index:
    """features float32 (N, D), a memory map, of a `part` for the images of a slice.

    The images stay where the data is, and are read when they are shown.
    """

    part: str
    precision: str
    features: NDArray[np.float32]
    images: Split
    names: list[str]

    def near(self, features: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """(row, Euclidean distance) of the k nearest, the nearest first. Shapes: (D,)."""
        distances, rows = nearest_neighbours(
            features[None], self.features, min(k, len(self.features))
        )
        return list(zip(rows[0].tolist(), distances[0].tolist(), strict=True))


def open_index(predictor: Predictor, dataset: Dataset) -> Index:
    """The index in the run's folder; made, or made anew, where weights or images are others,
    without the images that cannot be read.

    Raises CheckpointError where it cannot be written.
    """
    train, names = dataset.split("train"), dataset.names("train")
    while True:
        try:
            return _index(predictor, train, names)
        except Unreadable as error:
            dataset.note(error)
            rest = np.setdiff1d(np.arange(len(train)), list(error.images))
            if not len(rest):
                raise
            train, names = train.take(rest), [names[i] for i in rest]


def _index(predictor: Predictor, train: Split, names: list[str]) -> Index:
    if len(train) > LARGEST:
        ids = np.sort(draws.permutation(0, 0, len(train), draws.SPLIT)[:LARGEST])
        train, names = train.take(ids), [names[i] for i in ids]
    part, precision = last_hidden(predictor.model), predictor.precision
    made_of = ImageIndex(
        part=part,
        precision=precision,
        weights=sha256_of(predictor.checkpoint / "model.safetensors"),
        images=_digest(names, train),
        shape=(),
    )
    folder = predictor.run.path / FOLDER
    features = _load(folder, made_of)
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
        write_json(folder / "index.json", replace(made_of, shape=shape))
        features = _load(folder, made_of)
        if features is None:
            raise CheckpointError(f"{folder} changed while it was written: serve it once")
    return Index(part, precision, features, train, names)


def _load(folder: Path, made_of: ImageIndex) -> NDArray[np.float32] | None:
    """The features, where they are of these weights and images."""
    try:
        written = ImageIndex.from_json(read_json(folder / "index.json"), str(folder))
        features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    except (CheckpointError, OSError, ValueError):
        return None
    is_same = written == replace(made_of, shape=features.shape) and features.dtype == np.float32
    return features.reshape(len(features), -1) if is_same else None


def _digest(names: list[str], train: Split) -> str:
    h = hashlib.sha256("\0".join(names).encode(errors="surrogateescape"))
    h.update(f"{train.size} {train.channels}".encode())
    h.update(np.ascontiguousarray(train.labels).tobytes())
    return h.hexdigest()
