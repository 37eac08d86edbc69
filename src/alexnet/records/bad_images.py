"""The files of a run that list the images that could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet.records.base import Entry, Versioned

Fate = Literal["reported", "left out", "removed", "repaired", "replaced"]


@dataclass(frozen=True)
class BadImage(Entry):
    """An image that could not be read, and its `fate`, see `data.bad_images`.

    `path` is its place in the data set, `index` its number in the `split`, and `reason` says why it
    could not be read. `step` is the first update that would have used it. `size` is the size of the
    file in bytes after it was replaced, else -1.
    """

    path: str
    split: str
    index: int
    reason: str
    step: int
    fate: Fate = "reported"
    size: int = -1

    @property
    def is_out(self) -> bool:
        """Whether the training does not use it."""
        return self.fate in ("left out", "removed")


@dataclass(frozen=True, kw_only=True)
class BadImageList(Versioned):
    """The content of unreadable.json: the `images` that could not be read."""

    images: Sequence[BadImage]
