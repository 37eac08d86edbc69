"""A source of images as it is packed: splits of labelled files, wherever their bytes lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1


class Readable(Protocol):
    """Files by index: a `Listing`, or whatever else has names and bytes."""

    @property
    def names(self) -> list[str]: ...
    @property
    def sizes(self) -> NDArray[np.int64]: ...
    @property
    def stamp(self) -> int: ...
    def read(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class Files:
    """The images of one split in their order. labels (N,) int64, UNLABELLED where nobody knows."""

    listings: tuple[Readable, ...]
    places: NDArray[np.int64]  # (N, 2): which listing, which file of it
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The path inside the source."""
        listing, at = self.places[index]
        return str(self.listings[listing].names[at])

    def read(self, index: int) -> bytes:
        listing, at = map(int, self.places[index])
        data: bytes = self.listings[listing].read(at)
        return data


@dataclass(frozen=True)
class Arranged:
    """A whole source. `classes` are in label order, `titles` what they are called by people,
    `others` how many files are no images, by the ending of their names."""

    kind: str
    root: Path
    classes: tuple[str, ...]
    parts: Mapping[str, Files]
    titles: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


def make_files(listings: tuple[Readable, ...], rows: Iterable[tuple[int, int, int]]) -> Files:
    """One split, a row an image: which listing, which file of it, which label."""
    table = np.array(list(rows), np.int64).reshape(-1, 3)
    return Files(listings, table[:, :2], table[:, 2])
