"""The folder of a run: recipe.json, metrics.jsonl, checkpoints/, figures/ and a lock."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.errors import CheckpointError, UsageError
from alexnet.recipe import Recipe
from alexnet.records import (
    DataCard,
    Environment,
    Event,
    Misfit,
    MissingKey,
    RecordedEnvironment,
    ResumeEvent,
    RunStart,
    SettingsChoice,
    read_event,
)
from alexnet.runs.checkpoint import pack_tensors, unpack_tensors
from alexnet.support.files import (
    DirLock,
    file_error,
    read_bytes,
    read_json,
    write_atomic,
    write_json,
)
from alexnet.support.options import call, option

DIGESTS = "image-digests.safetensors"
ENVIRONMENT = "environment.json"
RESTART_FILE = "starting-again.json"  # the journal of a restart, see `runs.restart`
_WRITTEN_BEFORE_STEP_1 = {  # by a training, before its first checkpoint
    DIGESTS, "mean.safetensors", "recipe.json", "recipe.toml", ENVIRONMENT, "checkpoints",
    "tensorboard", "files.npz", "unreadable.json",
}  # fmt: skip


class RunDir:
    """A run on disk, from `create` or `open`. Without `writes`, `log` does nothing: only the first
    process of a training writes."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._log: int | None = None

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Create a folder, which `write_recipe` makes a run.

        Raises UsageError where `path` is a file, a run, or a folder with other files.
        """
        if os.path.isfile(path):
            raise UsageError(
                f"{path} is a file; expected a folder to create; choose another {option('run')}"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = {name for name in os.listdir(path) if not name.startswith((".lock", ".tmp-"))}
        except OSError as error:
            raise file_error("create", path, error) from error
        if "recipe.json" in names and cls(path).is_begun:
            raise UsageError(
                f"{path} already holds a run; add {option('resume', True)} to continue it or "
                f"choose another {option('run')}"
            )
        # A run that was killed before its first checkpoint cannot be continued, but started anew.
        replaceable = _WRITTEN_BEFORE_STEP_1 if "recipe.json" in names else set[str]()
        if foreign := sorted(names - replaceable):
            raise UsageError(
                f"{path} is no run and holds {foreign[0]!r}; expected a new or empty folder; "
                f"choose another {option('run')}"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open an existing run. Raises CheckpointError where `path` is none."""
        if not os.path.isfile(path / "recipe.json"):
            why = "it holds no recipe.json" if os.path.isdir(path) else "no such folder"
            if os.path.isfile(path):
                raise CheckpointError(f"{path} is a file and no run directory: name a run")
            raise CheckpointError(
                f"{path} is no run directory: {why}; "
                f"name one that is, or make one with `{call('train', run=path)}`"
            )
        return cls(path)

    @property
    def is_begun(self) -> bool:
        """Whether the run can be continued: it has a checkpoint, or a kill interrupted its restart
        (see `runs.restart`)."""
        return (self.checkpoints / "last").is_symlink() or (self.path / RESTART_FILE).is_file()

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, which the first save creates."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of figures, created on access. Raises CheckpointError where that fails."""
        folder = self.path / "figures"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise file_error("create", folder, error) from error
        return folder

    @property
    def recipe(self) -> dict[str, Any]:
        """The content of recipe.json. Raises CheckpointError where it is missing or damaged."""
        return read_json(self.path / "recipe.json")

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write recipe.json atomically, which makes the folder a run."""
        write_json(self.path / "recipe.json", recipe)

    def start(self) -> RunStart:
        """The content of recipe.json. Raises CheckpointError where it is missing or damaged."""
        return RunStart.from_json(self.recipe, str(self.path / "recipe.json"))

    def environment(self, *, required: bool = False) -> RecordedEnvironment:
        """The content of environment.json, empty where there is none. Raises CheckpointError where
        it is damaged, or `required` and missing."""
        file = self.path / ENVIRONMENT
        return RecordedEnvironment(read_json(file) if required or file.is_file() else {})

    def write_environment(self, environment: Environment) -> None:
        """Write environment.json atomically."""
        write_json(self.path / ENVIRONMENT, environment)

    def write_settings(self, settings: SettingsChoice) -> None:
        """Replace the settings in environment.json."""
        file = self.path / ENVIRONMENT
        machine = Environment.from_json(read_json(file), str(file))
        write_json(file, replace(machine, settings=settings))

    def write_mean_image(self, image: Tensor) -> None:
        """Save the mean image of the training images, which preprocessing subtracts."""
        write_atomic(self.path / "mean.safetensors", pack_tensors({"mean": image}))

    def mean_image(self) -> Tensor:
        """Read the saved mean image. Raises CheckpointError where it is missing or damaged."""
        path = self.path / "mean.safetensors"
        tensors = unpack_tensors(read_bytes(path), path)
        if "mean" not in tensors:
            raise CheckpointError(f"{path} holds no mean image; restore it from a copy")
        return tensors["mean"]

    def write_digests(self, splits: Mapping[str, Tensor]) -> None:
        """Save the digests of the images that the run learns from, by split: int64 (N,)."""
        write_atomic(self.path / DIGESTS, pack_tensors(splits))

    def digests(self) -> dict[str, Tensor] | None:
        """Read the saved digests; None where the run has none, as those of 0.1.0. Raises
        CheckpointError where they are damaged."""
        path = self.path / DIGESTS
        if not path.is_file():
            return None
        splits = unpack_tensors(read_bytes(path), path)
        if not all(one.dtype == torch.int64 and one.dim() == 1 for one in splits.values()):
            raise CheckpointError(f"{path} holds no digests of images: restore it from a copy")
        return splits

    def lock(self) -> DirLock:
        """A lock against other processes that would write this run: `with run.lock(): ...`."""
        return DirLock(self.path)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl. Raises CheckpointError where that fails."""
        if not self.writes:
            return
        path = self.path / "metrics.jsonl"
        line = json.dumps(dict(event), separators=(",", ":")).encode() + b"\n"
        try:
            if self._log is None:
                self._log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                size = os.fstat(self._log).st_size
                if size and os.pread(self._log, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a kill or a full disk has cut the line before
            if os.write(self._log, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()
            raise file_error("write", path, error) from error

    def close(self) -> None:
        """Close metrics.jsonl; the next `log` opens it again."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def events(self) -> list[Event]:
        """The run's events in order, without incomplete lines and without superseded events: a
        resume from step s takes back every earlier event of a step beyond s.

        Raises CheckpointError for a complete line that no run writes: the file was edited.
        """
        path, events = self.path / "metrics.jsonl", list[Event]()
        lines = read_bytes(path).splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(values, dict):
                continue
            event = read_event(values, f"{path}, line {number}")
            if isinstance(event, ResumeEvent) and event.step is not None:
                resumed_from = event.step
                events = [e for e in events if e.step is None or e.step <= resumed_from]
            events.append(event)
        return events


def read_recipe(run: RunDir) -> tuple[Recipe, DataCard]:
    """Read the recipe of a run, and the description of its data, with the run's path in `run`.

    Raises CheckpointError where recipe.json is damaged, or the recipe's digest does not fit.
    """
    values, file = run.recipe, run.path / "recipe.json"
    foreign = "it is not from this program, or was edited"
    try:
        start = RunStart.read(values)
        recipe = Recipe.from_dict(start.recipe)
        start.data.check_channels(recipe.channels)
    except MissingKey as misfit:
        raise CheckpointError(f"{file} {misfit}: {foreign}") from None
    except Misfit as misfit:
        raise CheckpointError(f"{file}: {misfit}; {foreign}: restore a copy") from None
    if start.digest != recipe.digest:
        raise CheckpointError(
            f"{file} was edited: its digest is {start.digest} and its fields give "
            f"{recipe.digest}; put the original back, or start a new run with the changed fields"
        )
    return recipe, replace(start.data, run=str(run.path))


def fresh_run_path(root: Path, name: str) -> Path:
    """The path `root`/`name`-<n>, with n one above the highest of the existing runs."""
    return root / f"{name}-{max(_numbered(root, name), default=0) + 1}"


def latest_run(root: Path, name: str) -> Path | None:
    """The path of the run `root`/`name`-<n> with the highest n, or None."""
    paths = _numbered(root, name)
    runs = [number for number, path in paths.items() if (path / "recipe.json").is_file()]
    return paths[max(runs)] if runs else None


def _numbered(root: Path, name: str) -> dict[int, Path]:
    """The paths `root`/`name`-<n> by n."""
    pattern = re.compile(re.escape(name) + "-([0-9]{1,18})")
    paths = root.iterdir() if root.is_dir() else ()
    return {int(match[1]): path for path in paths if (match := pattern.fullmatch(path.name))}
