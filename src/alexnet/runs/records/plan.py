"""The plan of a training, which its first process makes and all carry out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.runs.records.base import Record
from alexnet.runs.records.run_files import DataCard


@dataclass(frozen=True, kw_only=True)
class Pinned(Record):
    """A file or folder that is to be the same wherever it is read."""

    path: str  # where the first process reads it, as it was named
    sha256: str  # of the file; of a checkpoint that of its manifest


@dataclass(frozen=True, kw_only=True)
class RunPlan(Record):
    """What every process of a training is to do.

    The first process makes it, having opened the data, claimed the folder of the run and measured
    what is chosen by measuring. All others get it once, and open the same data for themselves. With
    the same plan, data and number of processes a training has the same bits.
    """

    run: str  # folder of the run
    recipe: Mapping[str, Any]  # every field: precision and layout are settled
    data: DataCard  # as recipe.json has it: path, digest, classes, statistics, copies ...
    threads: int  # of each process
    doctor: Literal["stop", "say", "off"]  # what is done when it finds something
    tensorboard: bool
    signals: Sequence[int]  # that save and stop
    lines: Sequence[str]  # said before the first step
    choice: Sequence[str] = ()  # why it is this recipe, where it was chosen for the data
    settings: Mapping[str, Any] | None = None  # of a new run, for environment.json
    mean_image: str | None = None  # that images are less, packed as text
    init: Pinned | None = None  # weights that a new run starts from
    checkpoint: Pinned | None = None  # that a continued run goes on from
    resumed: Mapping[str, Any] | None = None  # line of the log that a continued run begins with
