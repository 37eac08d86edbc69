"""The index.json of a run's index of training images, which serving builds."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.records.base import Record


@dataclass(frozen=True, kw_only=True)
class ImageIndex(Record):
    """What the features of an index were computed from: the `part` of the network, the `precision`,
    the digests of `weights` and `images`, and the `shape` of the features. An index of other
    content is built anew."""

    part: str
    precision: str
    weights: str
    images: str
    shape: Sequence[int]
