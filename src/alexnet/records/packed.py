"""The files of a packed set: its manifest, and the state of a pack that is not finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alexnet.records.base import Entry, Record, optional
from alexnet.records.evaluation import UnreadFile


@dataclass(frozen=True, kw_only=True)
class PayloadFile(Entry):
    """The size of a file in `bytes`, and its `sha256`."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackedSource(Entry):
    """The source of a packed set: the `name` of its folder, the number of its `files`, the `sha256`
    of the digests of all files in order, and its `archives` by name."""

    name: str = ""
    files: int = 0
    sha256: str
    archives: Mapping[str, PayloadFile] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RepairedFile(Entry):
    """The `path` of an irregular file that was read, and the `repairs`."""

    path: str = ""
    repairs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Components(Entry):
    """Principal components of colour: the `eigenvalues` of the covariance, and the `eigenvectors`,
    a row for each."""

    eigenvalues: Sequence[float]
    eigenvectors: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class PackedManifest(Record):
    """The manifest.json of a packed set.

    `format` is the number of the format. `key` names source and options. `kind` is that of the
    source. `classes`, `titles` and `counts` are as in DataCard. Images have `size` pixels a side
    and a number of `channels`; `encoding` is raw or jpeg. `orient` says what was done about EXIF
    orientation. `source` describes the source. `mean`, `std`, `covariance` and their components
    (`pca`) are those of the training images, on the 0-255 scale. `repairs` are irregular files that
    were read, `refused` are files that could not be read. `across` counts files with the bytes of a
    file in an earlier split. `others` counts the files that are no images, by file name extension.
    `payload` are the files of the set by name.
    """

    format: int | None = None
    key: str
    kind: str = ""
    classes: Sequence[str]
    titles: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int]
    size: int
    channels: int
    encoding: str
    orient: Literal["apply", "ignore"] | None = "ignore"
    source: PackedSource
    mean: Sequence[float]
    std: Sequence[float]
    covariance: Sequence[Sequence[float]]
    pca: Components | None = None
    repairs: Sequence[RepairedFile] = ()
    refused: Sequence[UnreadFile] = ()
    across: int = 0
    others: Mapping[str, int] = field(default_factory=dict)
    payload: Mapping[str, PayloadFile]


@dataclass(frozen=True, kw_only=True)
class IrregularFile(Entry):
    """A line of a pack's odd.jsonl: a file of a `split` by its `path`, its `repairs`, and why it
    was `refused`, empty where it was read."""

    split: str
    path: str
    repairs: Sequence[str]
    refused: str


@dataclass(frozen=True, kw_only=True)
class PackState(Record):
    """The state.json of a pack that is not finished.

    `key` is that of the manifest. `done` counts the images that are packed, by split. `bytes` are
    the sizes of the files, as far as they count. `stamps` say when the files of the source were
    last changed, by split. `shards` counts the shards of JPEGs, by split. `sums` is the name of
    the file with the sums of the training images.
    """

    key: str
    done: Mapping[str, int]
    bytes: Mapping[str, int]
    stamps: Mapping[str, Sequence[int]] | None = optional()
    shards: Mapping[str, int] | None = optional()
    sums: str | None = optional()
