"""What the verbs of data return."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexnet.runs.records.base import Record
from alexnet.runs.records.evaluation import UnreadFile


@dataclass(frozen=True, kw_only=True)
class DataGetResult(Record):
    """Where the data set `name` lies: the folder `path`."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class DataCheckResult(Record):
    """What `alexnet data check` returns.

    Of `images` files `ok` are fine, `repairable` are odd but can be read, and `refused` cannot.
    `others` counts files that are no images by their names, by ending. `duplicates` and `across`
    are groups of paths with the same bytes, within a split and across splits; `two_classes` are
    those whose classes differ. `near_copies`, `near_across` and `near_two_classes` are the same of
    files that show one picture though their bytes differ. `counts` are readable images by split and
    class, `classes` the names of those that are empty, tiny or in one_split only. `note` says why
    it cannot be packed as it is, or is empty. `images_per_s` were decoded in `wall_s` seconds.
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
    """What `alexnet data pack` returns.

    `out` is the packed set: `counts` images by split, of so many `classes`, at `size` pixels a
    side, in an `encoding` (raw or jpeg), in all `bytes`. `repaired` counts odd files that were
    read, `refused` are those that could not be. `empty` are classes without a training image,
    `across` counts files with the bytes of one of an earlier split, `others` files that are no
    images by their names, by ending. It took `wall_s` seconds.
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
