"""What the recipe.json of a run says beside its recipe."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from alexnet.runs.records.base import LARGEST, Entry, Misfit, Record, apart, optional
from alexnet.runs.records.training import LeftOutImage

LONGEST_NAME = 4096  # letters of a class name, which is a folder's


@dataclass(frozen=True, kw_only=True)
class DataCard(Record):
    """What a run keeps of its data: enough to test and classify without it.

    `kind` is folder, packed, idx or another kind of source, digits, or imported; `path` is where it
    lies, empty of what comes along, `folders` the folder of each part, and `rules` those by which
    class folders were read (`alexnet.data.image_set.RULES`). `digest` is of its
    content, `listing` of its names. `classes` are their names in order, `titles` what people call
    them where they are codes. `counts` are images by split, `splits` says how they were cut, and
    `groups` are images that no cut separates, by name or number. `orient` is what was done about
    EXIF orientation; `left_out` are images that could not be read when the run began. Of training
    images, on the 0-255 scale: `mean`, `std` and `covariance` of the channels, and the digest of
    the mean image (`mean_image`), None where it is not subtracted. `run` is the folder that it was
    read from. Runs of 0.1.0 lack some.
    """

    kind: str = ""
    path: str = ""
    folders: Mapping[str, str] | None = optional()
    rules: int | None = optional()
    digest: str
    listing: str | None = optional()
    classes: Sequence[str]
    titles: Mapping[str, str] | None = optional()
    counts: Mapping[str, int] | None = None
    orient: Literal["apply", "ignore"] | None = optional()
    left_out: Sequence[LeftOutImage] | None = optional()
    splits: str | None = optional()
    groups: Sequence[Sequence[str | int]] | None = optional()
    mean: Sequence[float]
    std: Sequence[float]
    covariance: Sequence[Sequence[float]] = ()
    mean_image: str | None = None
    run: str | None = apart()

    @property
    def where(self) -> str:
        """Where the data lies, or its kind: what a test of it has as `data`."""
        return self.path or self.kind

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        if self.kind == "imported":  # in the order of every version so far
            for key in ("mean", "std", "mean_image", "orient"):
                if key in found:
                    found[key] = found.pop(key)
        return found

    @classmethod
    def read(cls, values: object) -> Self:
        card = super().read(values)
        names = card.classes
        if len(set(names)) < max(2, len(names)) or not all(
            0 < len(name) <= LONGEST_NAME for name in names
        ):
            raise Misfit(list(names), "two names or more, each once", "classes")
        for name, numbers in (("mean", card.mean), ("std", card.std)):
            if not numbers or not all(map(math.isfinite, numbers)):
                raise Misfit(list(numbers), "finite numbers", name)
        if any(len(row) != len(card.covariance) for row in card.covariance):
            raise Misfit(list(card.covariance), "a square of numbers", "covariance")
        return card

    def check_channels(self, channels: int) -> None:
        """Misfit where it is of images with another number of channels than the recipe's."""
        lengths = (1, 3) if channels == 1 else (channels,)  # grey of a colour set: one of three
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in lengths:
                raise Misfit(list(numbers), f"{channels} numbers", name)


@dataclass(frozen=True, kw_only=True)
class RunCall(Entry):
    """What of a call and its machine the weights depend on: so many `processes` on so many `hosts`,
    `towers`, what the `doctor` was to do (stop, say or off), and the `threads` of a process, 0
    where no record has them or a GPU computes."""

    processes: int
    hosts: int
    towers: int
    doctor: str
    threads: int

    @classmethod
    def read(cls, values: object) -> Self:
        call = super().read(values)
        for name in ("processes", "hosts", "towers", "threads"):
            count = getattr(call, name)
            if not int(name != "threads") <= count < LARGEST:
                raise Misfit(count, "a count", name)
        return call


@dataclass(frozen=True, kw_only=True)
class RunInit(Entry):
    """The weights that a run began with: the `path` that was given, its `revision` on a hub, and
    the `sha256` of the weights."""

    path: str
    revision: str | None = optional()
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunStart(Entry):
    """How a run was begun: the `data` it was trained on, the `call`, and the weights given to it
    (`init`); None where it is from before runs kept it, or began with weights of its own."""

    data: DataCard
    call: RunCall | None = optional()
    init: RunInit | None = optional()
