"""What `inspect` and `report` look at: a run, its data, and where pictures go."""

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
from alexnet.data.slices import Slice, Unread
from alexnet.errors import Unreadable, UsageError
from alexnet.predict import Predictor, load
from alexnet.store.rundir import RunDir

T = TypeVar("T")

MOST = 12  # images asked about in one picture


@dataclass
class View:
    """A run, opened as far as it is needed. `out` names the picture or file to write; without it
    pictures go into the run's figures/, as PNG."""

    run: str | Path
    data: str | Path | None = None
    checkpoint: str = "best"
    out: Path | None = None
    drawn: list[Path] = field(default_factory=list)

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.run, self.checkpoint)

    @cached_property
    def folder(self) -> RunDir:
        return RunDir.open(Path(self.run))

    @cached_property
    def dataset(self) -> Dataset:
        """The run's data."""
        return reopen_dataset(self.predictor.recipe, self.predictor.data, self.data)

    @property
    def name(self) -> str:
        return Path(self.run).resolve().name

    def figure(self, name: str, *, more: str = "") -> Path:
        """Where a picture goes; `more` tells apart what one call draws."""
        if self.out is None:
            path = self.folder.figures / f"{name}{more and f'-{more}'}.png"
        else:
            path = self.out.with_stem(f"{self.out.stem}{more and f'-{more}'}")
        self.drawn.append(path)
        return path

    def around(self, work: Callable[[], T]) -> T:
        """What `work` makes of the run's images, without those that cannot be read."""

        def anew() -> T:
            del self.drawn[before:]
            return work()

        before = len(self.drawn)
        try:
            return anew()
        except Unreadable as error:  # only now: not everything that is drawn needs the data
            self.dataset.pass_over(error)
            return self.dataset.around(anew)

    def split(self, name: str) -> Slice:
        """One split, in memory where it fits."""
        recipe, missing = self.predictor.recipe, Unread()
        most = recipe.memory_gib * 2**30
        kept = self.dataset.split(name).resident(recipe.workers, most, missing.update)
        if missing:
            raise Unreadable(name, missing)
        return kept

    def ask(self, split: str) -> Answers:
        p = self.predictor
        return ask(p.inference, self.split(split), p.preprocess, p.recipe, len(p.classes))

    def some(self, split: Slice, count: int) -> NDArray[np.intp]:
        """`count` images of a split, always the same, of as many classes as it can be."""
        order = draws.permutation(0, 0, len(split), draws.SPLIT)
        labels = split.labels[order]
        turn = np.zeros(len(order), np.int64)  # the how-many-th of its class each one is
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            turn[own] = np.arange(len(own))
        return order[np.argsort(turn, kind="stable")][: min(count, len(order))]

    def decode(self, images: Sequence[str | Path]) -> NDArray[np.uint8]:
        """Image files as they are stored: uint8 (N, size, size, C)."""
        if len(images) > MOST:
            raise UsageError(f"{len(images)} images are too many for one picture: {MOST} at most")
        return np.stack([self.predictor.decode(image, str(image)) for image in images])

    def crop(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stored images (N, size, size, C), or one, cut to what the network is given."""
        p = self.predictor.preprocess
        edge = (p.size - p.crop) // 2
        return images[..., edge : edge + p.crop, edge : edge + p.crop, :]

    def inputs(self, images: NDArray[np.uint8]) -> Tensor:
        """Stored images (N, size, size, C) as the network sees them: (N, C, crop, crop)."""
        device = next(self.predictor.model.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        return self.predictor.preprocess.views(pixels, 1)[0]

    def said(self) -> dict[str, Any]:
        """What every result says of where it comes from."""
        found: dict[str, Any] = {
            "run": str(self.run),
            "figures": [str(path) for path in self.drawn],
        }
        if "predictor" in vars(self):
            found["checkpoint"] = str(self.predictor.checkpoint)
        if "dataset" in vars(self) and self.dataset.unreadable:
            found["unreadable"] = self.dataset.unreadable
        return found
