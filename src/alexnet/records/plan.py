"""The plan of a training, which the first process makes and all processes carry out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.records.base import Record
from alexnet.records.events import ResumeEvent
from alexnet.records.run_files import DataCard
from alexnet.records.settings import SettingsChoice


@dataclass(frozen=True, kw_only=True)
class PinnedFile(Record):
    """A file or folder that must be the same for every process: its `path` on the first process,
    and the `sha256` of the file, or of the manifest of a checkpoint."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunPlan(Record):
    """Everything that the processes of a training must agree on.

    The first process makes the plan: it opens the data, claims the run's folder and measures what
    is chosen by timing. It sends the plan once to the others, which open the same data themselves.
    With the same plan, data and number of processes, a training has the same bits.

    `run` is the folder of the run. `recipe` has every field; precision and layout are no longer
    auto. `data` describes the data, as in recipe.json. `threads` is the number of threads of each
    process. `doctor` says what happens when the guard finds a fault, `tensorboard` whether
    TensorBoard's files are written. `signals` are the numbers of the signals that save and stop.
    `lines` are printed before the first step.

    `choice` says why this recipe was chosen, where it was chosen for the data. `settings` is the
    record of the settings, for the environment.json of a new run. `mean_image` is the mean image
    that preprocessing subtracts, encoded as text. A new run starts from the weights `init`, or from
    random ones; a continued run starts from `checkpoint`, and `resumed` is the first event of its
    log.
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
    init: PinnedFile | None = None
    checkpoint: PinnedFile | None = None
    resumed: ResumeEvent | None = None
