"""The plan of a training, which its first process makes and all carry out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.runs.records.base import Record
from alexnet.runs.records.events import ResumeEvent
from alexnet.runs.records.run_files import DataCard
from alexnet.runs.records.settings import SettingsChoice


@dataclass(frozen=True, kw_only=True)
class Pinned(Record):
    """A file or folder that has to be the same wherever it is read: its `path` as the first process
    names it, and the `sha256` of the file, or of a checkpoint's manifest."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunPlan(Record):
    """What every process of a training has to do.

    The first process makes it, having opened the data, claimed the folder of the run and measured
    what is chosen by measuring. All others get it once, and open the same data for themselves. With
    the same plan, data and number of processes a training has the same bits.

    `run` is the folder of the run. `recipe` has every field; precision and layout are settled.
    `data` is what recipe.json says of the data. Each process computes with so many `threads`.
    `doctor` says what is done when it finds something, `tensorboard` whether that is written,
    `signals` are the numbers of those that save and stop. `lines` are said before the first step.
    `choice` says why it is this recipe, where it was chosen for the data; `settings` are of a new
    run, for environment.json; `mean_image`, which images are less, is packed as text. `init` are
    the weights that a new run starts from, `checkpoint` is what a continued run goes on from, and
    `resumed` the line of the log that it begins with.
    """

    run: str
    recipe: Mapping[str, Any]
    data: DataCard
    threads: int
    doctor: Literal["stop", "say", "off"]
    tensorboard: bool
    signals: Sequence[int]
    lines: Sequence[str]
    choice: Sequence[str] = ()
    settings: SettingsChoice | None = None
    mean_image: str | None = None
    init: Pinned | None = None
    checkpoint: Pinned | None = None
    resumed: ResumeEvent | None = None
