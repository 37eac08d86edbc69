"""A run opened for inspection: its network, its images, and where its pictures go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.analysis.answers import Answers, ask
from alexnet.data import draws
from alexnet.data.dataset import Dataset, reopen_dataset
from alexnet.data.splits import Split
from alexnet.errors import Unreadable, UsageError
from alexnet.evaluation_set import (
    EvaluationSet,
    open_evaluation_set,
    open_own,
    read_digests,
)
from alexnet.predictor import Predictor, load
from alexnet.runs.rundir import RunDir
from alexnet.support.terminal import say

T = TypeVar("T")

LEARNT = "what it was trained on"  # key of these images, beside the splits
MOST_IMAGES = 12  # of the user's own in one picture


@dataclass
class InspectedRun:
    """A run whose network and images are opened once they are needed. `out` names the picture or
    file to write; without it pictures go into the run's figures/, as PNG."""

    path: str | Path
    data: str | Path | None = None
    checkpoint: str = "best"
    out: Path | None = None
    ignore_unknown: bool = False
    with_seen: bool = False
    precision: str = "auto"
    drawn: list[Path] = field(default_factory=list)
    _opened: dict[str | None, EvaluationSet] = field(default_factory=dict)

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.path, self.checkpoint, self.precision)

    @cached_property
    def folder(self) -> RunDir:
        return RunDir.open(Path(self.path))

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the run was trained on: at `data` if it was moved there."""
        p = self.predictor
        at_data = None
        if self.data is not None:
            at_data = open_own(p.recipe, p.data, self.data, read_digests(self.folder))
        return at_data or reopen_dataset(p.recipe, p.data)

    def open(self, split: str | None = None) -> EvaluationSet:
        """A split of the run's own data (default val, so that test is read only where it is asked
        for), or of `data` where that is other images."""
        if split not in self._opened:
            p = self.predictor
            opened = open_evaluation_set(
                p.recipe,
                p.data,
                self.data,
                split,
                run=self.folder,
                ignore_unknown=self.ignore_unknown,
                with_seen=self.with_seen,
                default="val",
            )
            for note in opened.notes():
                say(note)
            self._opened[split] = opened
        return self._opened[split]

    @property
    def name(self) -> str:
        name = Path(self.path).resolve().name
        return f"{name} on {Path(self._others).name}" if self._others else name

    @property
    def _others(self) -> str:
        """The folder of opened images that are not the run's own; else nothing."""
        opened = (e for key, e in self._opened.items() if key != LEARNT and not e.own)
        return next((e.path for e in opened), "")

    def figure(self, name: str, *, more: str = "") -> Path:
        """The file of a picture; `more` tells apart the pictures of one call."""
        if self.out is None:
            more = "-".join(word for word in (more, self._others and "other-data") if word)
            path = self.folder.figures / f"{name}{more and f'-{more}'}.png"
        else:
            path = self.out.with_stem(f"{self.out.stem}{more and f'-{more}'}")
        self.drawn.append(path)
        return path

    def retry_without_unreadable(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns. Where it meets images that cannot be read, they are left out
        and it starts again."""
        before = len(self.drawn)
        while True:
            del self.drawn[before:]
            try:
                return work()
            except Unreadable as error:
                opened = [e for e in self._opened.values() if e.images.name == error.split]
                if not opened:
                    raise
                opened[-1].leave_out(error)

    def training_images(self) -> EvaluationSet:
        """The images that the run was trained on, wherever `data` has others."""
        if LEARNT not in self._opened:
            p, where = self.predictor, self.data
            if where is not None:
                own = open_own(p.recipe, p.data, where, read_digests(self.folder))
                where = None if own is None else where
            self._opened[LEARNT] = open_evaluation_set(
                p.recipe, p.data, where, "train", run=self.folder
            )
        return self._opened[LEARNT]

    def learnt_from(self, images: Split) -> bool:
        """Whether these opened images are those that the run was trained on."""
        return any(
            e.images is images and e.own and e.split == "train" for e in self._opened.values()
        )

    def predict(self, split: str | None = None) -> Answers:
        """The network's answers on the images of `open(split)`."""
        p = self.predictor
        return ask(p.inference, self.open(split).images, p.preprocess, p.recipe, len(p.classes))

    def pick(self, split: Split, count: int) -> NDArray[np.intp]:
        """Indices of `count` images of a split: always the same, of as many classes as possible."""
        order = draws.permutation(0, 0, len(split), draws.SPLIT)
        labels = split.labels[order]
        turn = np.zeros(len(order), np.int64)  # an image's place among those of its class
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            turn[own] = np.arange(len(own))
        return order[np.argsort(turn, kind="stable")][: min(count, len(order))]

    def decode(self, images: Sequence[str | Path]) -> NDArray[np.uint8]:
        """Image files as they are stored: uint8 (N, size, size, C)."""
        if len(images) > MOST_IMAGES:
            raise UsageError(
                f"{len(images)} images are too many for one picture: {MOST_IMAGES} at most"
            )
        return np.stack([self.predictor.decode(image, str(image)) for image in images])

    def crop(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cuts stored images (N, size, size, C), or one, to the network's input."""
        p = self.predictor.preprocess
        edge = (p.size - p.crop) // 2
        return images[..., edge : edge + p.crop, edge : edge + p.crop, :]

    def inputs(self, images: NDArray[np.uint8]) -> Tensor:
        """Preprocesses stored images (N, size, size, C) for the network: (N, C, crop, crop)."""
        device = next(self.predictor.model.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        return self.predictor.preprocess.views(pixels, 1)[0]

    def source(self, *, answers: bool = True) -> dict[str, Any]:
        """The fields of InspectResult that name run, checkpoint, images and pictures; with
        `answers` of the network also their precision."""
        fields: dict[str, Any] = {
            "run": str(self.path),
            "figures": [str(path) for path in self.drawn],
        }
        if answers:
            fields["precision"] = self.predictor.precision
        if "predictor" in vars(self):
            fields["checkpoint"] = str(self.predictor.checkpoint)
        for key, opened in self._opened.items():
            if opened.unreadable:
                fields["unreadable"] = opened.unreadable
            if key != LEARNT:
                fields |= {"data": opened.path, **opened.figures().by_field()}
        return fields
