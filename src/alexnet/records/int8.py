"""The int8.json of a run: the ranges of its network in int8."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from alexnet.records.base import Entry, Misfit, Versioned
from alexnet.records.evaluation import Interval


@dataclass(frozen=True, kw_only=True)
class Int8Figures(Entry):
    """The accuracy of a network in int8.

    `top1` (with its interval `top1_ci95`) is that of int8 and `network_top1` that of the network on
    `n` images of `split`; both classify the fraction `same` alike. Ranges were measured on
    `calibration_images` other images.
    """

    calibration_images: int
    split: str
    n: int
    top1: float
    top1_ci95: Interval
    network_top1: float
    same: float


@dataclass(frozen=True, kw_only=True)
class Int8Ranges(Entry):
    """The `ranges` of a checkpoint: the lowest and highest input of each layer in int8, by its
    name. `sha256` is that of their JSON."""

    ranges: Mapping[str, Interval]
    sha256: str

    @staticmethod
    def digest(ranges: Mapping[str, Interval]) -> str:
        """The sha256 of ranges."""
        return hashlib.sha256(json.dumps(dict(ranges)).encode()).hexdigest()

    @classmethod
    def read(cls, values: object) -> Self:
        entry = super().read(values)
        if entry.sha256 != entry.digest(entry.ranges):
            raise Misfit(entry.sha256, "that of the ranges", "sha256")
        return entry


@dataclass(frozen=True, kw_only=True)
class Int8Entry(Int8Ranges, Int8Figures):
    """The ranges of a checkpoint and the accuracy with them, as int8.json has them."""


@dataclass(frozen=True, kw_only=True)
class Int8File(Versioned):
    """The content of int8.json: `checkpoints` has an Int8Entry by the digest of a checkpoint's
    weights. An entry is checked where it is used."""

    FORMAT: ClassVar[int] = 2

    checkpoints: Mapping[str, Any]
