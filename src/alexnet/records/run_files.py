"""The recipe.json of a run, and the journal of a restart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from alexnet.records.base import INT_LIMIT, Entry, Misfit, Record, not_in_json, optional
from alexnet.records.training import LeftOutImage

MAX_NAME_LENGTH = 4096  # characters of a class name, which is the name of a folder


@dataclass(frozen=True, kw_only=True)
class DataCard(Record):
    """The description of a run's data: enough to test and classify without the data itself.

    `kind` is that of the source: folder, packed, idx and so on, digits, or imported. `path` is its
    place, empty for data that is part of a package, `folders` the folder of each part,
    and `rules` the rules by which class folders were read (`alexnet.data.image_set.RULES`).
    `digest` is that of the content, `listing` that of the names. `classes` are the class names in
    order, `titles` their readable names, where class names are codes. `counts` are images by split,
    `splits` says how the splits were made, and `groups` are images that stay in the same split, by
    name or index. `orient` says what was done about EXIF orientation. `left_out` are images that
    could not be read when the run began.

    Over the training images, on the 0-255 scale: `mean`, `std` and `covariance` of the channels,
    and the digest of the mean image (`mean_image`), None where it is not subtracted. `run` is the
    folder that this description was read from. Runs of 0.1.0 lack some of these.
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
    run: str | None = not_in_json()

    @property
    def where(self) -> str:
        """The path of the data, or its kind where it has no path. Tests record it as `data`."""
        return self.path or self.kind

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        if self.kind == "imported":  # every version has written these last
            for key in ("mean", "std", "mean_image", "orient"):
                if key in values:
                    values[key] = values.pop(key)
        return values

    @classmethod
    def read(cls, values: object) -> Self:
        card = super().read(values)
        names = card.classes
        if len(set(names)) < max(2, len(names)) or not all(
            0 < len(name) <= MAX_NAME_LENGTH for name in names
        ):
            raise Misfit(list(names), "two names or more, each once", "classes")
        for name, numbers in (("mean", card.mean), ("std", card.std)):
            if not numbers or not all(map(math.isfinite, numbers)):
                raise Misfit(list(numbers), "finite numbers", name)
        if any(len(row) != len(card.covariance) for row in card.covariance):
            raise Misfit(list(card.covariance), "a square of numbers", "covariance")
        return card

    def check_channels(self, channels: int) -> None:
        """Raise Misfit where the statistics do not fit a recipe with this number of `channels`."""
        lengths = (1, 3) if channels == 1 else (channels,)  # a colour set shown in grey has three
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in lengths:
                raise Misfit(list(numbers), f"{channels} numbers", name)


@dataclass(frozen=True, kw_only=True)
class RunCall(Entry):
    """The options of a call, and the properties of its machine, that affect the weights: the number
    of `processes`, `hosts` and `towers`, the mode of the `doctor` (stop, say or off), and the
    number of `threads` of a process, 0 where it was not recorded or a GPU computed."""

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
            if not int(name != "threads") <= count < INT_LIMIT:
                raise Misfit(count, "a count", name)
        return call


@dataclass(frozen=True, kw_only=True)
class RunInit(Entry):
    """The weights that a run started from: their `path` as the user named it, the `revision` on a
    hub, and the `sha256` of the weights."""

    path: str
    revision: str | None = optional()
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunStart(Record):
    """The content of a run's recipe.json.

    `recipe` has the fields of the recipe, and `digest` is its digest. `data` describes the data it
    was trained on. `call` is None in runs of 0.1.0; `init` are the initial weights, None where they
    were random. `imported` are the options of `alexnet import`, for imported weights only.
    """

    recipe: Mapping[str, Any]
    digest: str
    data: DataCard
    call: RunCall | None = optional()
    init: RunInit | None = optional()
    imported: Sequence[str] | None = optional("import")


@dataclass(frozen=True, kw_only=True)
class RestartJournal(Record):
    """The content of a run's starting-again.json, see `runs.restart`: the new texts of files by
    their names (`records`), and the new `line` of the log."""

    records: Mapping[str, str]
    line: Mapping[str, Any]
