"""Results of `alexnet data get`, `check` and `pack`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexnet.records.base import Record
from alexnet.records.evaluation import UnreadFile


@dataclass(frozen=True, kw_only=True)
class DataGetResult(Record):
    """The folder (`path`) of the data set called `name`."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class DataCheckResult(Record):
    """The result of `alexnet data check`.

    Of `images` image files, `ok` are sound, `repairable` are irregular but can be read, and
    `refused` cannot be read. `others` counts the files that are no images, by file name extension.
    `duplicates` and `across` are groups of paths with the same bytes, within a split and across
    splits; `two_classes` are the groups with more than one class. `near_copies`, `near_across` and
    `near_two_classes` are groups of files that show the same picture in different bytes. `counts`
    are readable images by split and class. `classes` has the names of classes that are empty, tiny
    or in one_split only. `note` says why the data cannot be packed as it is, or is empty. Images
    were decoded at `images_per_s`; the check took `wall_s` seconds.
    """

    images: int
    ok: int
    others: Mapping[str, int]
    repairable: Sequence[UnreadFile]
    refused: Sequence[UnreadFile]
    duplicates: Sequence[Sequence[str]]
    across: Sequence[Sequence[str]]
    two_classes: Sequence[Sequence[str]]
    near_copies: Sequence[Sequence[str]]
    near_across: Sequence[Sequence[str]]
    near_two_classes: Sequence[Sequence[str]]
    counts: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, Sequence[str]]
    note: str
    images_per_s: float
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class DataPackResult(Record):
    """The result of `alexnet data pack`.

    `out` is the folder of the packed set. It has `counts` images by split, a number of `classes`,
    `size` pixels a side, an `encoding` (raw or jpeg), and a total of `bytes`. `repaired` counts
    irregular files that were read, `refused` are the files that could not be read. `empty` are
    classes without a training image. `across` counts files with the bytes of a file in an earlier
    split. `others` counts the files that are no images, by file name extension. It took `wall_s`
    seconds.
    """

    out: str
    classes: int
    counts: Mapping[str, int]
    size: int
    encoding: str
    repaired: int
    refused: Sequence[UnreadFile]
    empty: Sequence[str]
    across: int
    others: Mapping[str, int]
    bytes: int
    wall_s: float
