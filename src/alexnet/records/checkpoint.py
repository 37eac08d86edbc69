"""The files of a checkpoint: its manifest, and the state of the training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from alexnet.records.base import Entry, Misfit, Record, Versioned, optional


@dataclass(frozen=True, kw_only=True)
class SealedFile(Entry):
    """The `sha256` of a file, and its size in `bytes`."""

    sha256: str
    bytes: int


def seal_file(content: bytes) -> SealedFile:
    """The digest and size of a file with this content."""
    return SealedFile(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest(Versioned):
    """The manifest.json of a checkpoint: its `step`, its `files` by name, and the `sha256` of these
    values."""

    step: int
    files: Mapping[str, SealedFile]
    sha256: str

    @classmethod
    def of(cls, step: int, files: Mapping[str, bytes]) -> Self:
        """The manifest of files with these contents."""
        seals = {name: seal_file(data) for name, data in files.items()}
        unsealed = cls(format=cls.FORMAT, step=step, files=seals, sha256="")
        return cls(format=cls.FORMAT, step=step, files=seals, sha256=unsealed._digest())

    @classmethod
    def read(cls, values: object) -> Self:
        manifest = super().read(values)
        if manifest.sha256 != manifest._digest():
            raise Misfit(manifest.sha256, manifest._digest(), "sha256")
        return manifest

    def _digest(self) -> str:
        body = {key: value for key, value in self.to_json().items() if key != "sha256"}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class WatchState(Entry):
    """What validation has shown so far.

    `best_top1` is the best accuracy, -1 before the first validation; `best_loss` and `best_step`
    are of the same validation. `stale` counts the validations since then, `waited` those since then
    or since the last drop of the learning rate, and `drops` these drops.
    """

    best_top1: float
    best_loss: float
    best_step: int
    stale: int
    waited: int
    drops: int


@dataclass(frozen=True, kw_only=True)
class SavedState(Record):
    """The state.json of a checkpoint: what a training needs beside weights and optimizer.

    `step` updates were made in `seconds`. `sums` are the images, loss, top-1 hits and top-5 hits of
    the epoch so far, with several processes a row for each. `watch` is what validation has shown.
    `finished` says why the training ended, or is empty. `due` is true where a validation at this
    step is still to be made. `recipe` is the digest of the recipe.
    """

    step: int
    sums: Sequence[float] | Sequence[Sequence[float]]
    watch: WatchState
    seconds: float
    finished: str
    due: bool | None = optional()
    recipe: str


@dataclass(frozen=True)
class RecordedState:
    """The content of a state.json that is not checked: a store of checkpoints takes any state."""

    content: Mapping[str, Any]

    @property
    def recipe(self) -> Any:
        """The digest of the recipe, or None."""
        return self.content.get("recipe")

    @property
    def has_ended(self) -> bool:
        """Whether the training had ended."""
        return bool(self.content.get("finished"))

    @property
    def best_step(self) -> int | None:
        """The step of the best validation; None where there was none, or it is not recorded."""
        try:
            return int(self.content["watch"]["best_step"]) or None
        except (KeyError, TypeError, ValueError):
            return None
