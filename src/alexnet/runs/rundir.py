"""The folder of one run: recipe.json, metrics.jsonl, checkpoints/, figures/ and a lock."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.errors import CheckpointError, UsageError
from alexnet.files import DirLock, cannot, read_bytes, read_json, write_atomic, write_json
from alexnet.options import call, option
from alexnet.runs.checkpoint import pack_tensors, unpack_tensors
from alexnet.runs.records import Event, ResumeEvent, read_event

DIGESTS = "image-digests.safetensors"
AGAIN = "starting-again.json"  # while it is there, a run starts again: see `begin_again`
_BEGUN = {DIGESTS, "mean.safetensors", "recipe.json", "recipe.toml", "environment.json"}
_BEGUN |= {"checkpoints", "tensorboard", "files.npz", "unreadable.json"}


class RunDir:
    """One run on disk; made by `create` or `open`. With `writes` off it logs nothing."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._log: int | None = None

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """A new, empty run folder; it becomes a run with `write_recipe`.

        Raises UsageError if `path` is a file, a run or a folder with other things in it.
        """
        if os.path.isfile(path):
            raise UsageError(
                f"{path} is a file; expected a folder to create; choose another {option('run')}"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            others = [name for name in os.listdir(path) if not name.startswith((".lock", ".tmp-"))]
        except OSError as error:
            raise cannot("create", path, error) from error
        if "recipe.json" in others and cls(path).is_begun:
            raise UsageError(
                f"{path} already holds a run; add {option('resume', True)} to continue it or "
                f"choose another {option('run')}"
            )
        # Killed before its first checkpoint a run has nothing to continue, and may start anew.
        if others := sorted(set(others) - (_BEGUN if "recipe.json" in others else set())):
            raise UsageError(
                f"{path} is no run and holds {others[0]!r}; expected a new or empty folder; "
                f"choose another {option('run')}"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run. Raises CheckpointError if `path` is none."""
        if not os.path.isfile(path / "recipe.json"):
            there = "it holds no recipe.json" if os.path.isdir(path) else "no such folder"
            if os.path.isfile(path):
                raise CheckpointError(f"{path} is a file and no run directory: name a run")
            raise CheckpointError(
                f"{path} is no run directory: {there}; "
                f"name one that is, or make one with `{call('train', run=path)}`"
            )
        return cls(path)

    @property
    def is_begun(self) -> bool:
        """Whether there is something to continue: a checkpoint, or a new start that a kill cut
        short (see `begin_again`)."""
        return (self.checkpoints / "last").is_symlink() or (self.path / AGAIN).is_file()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go; the first save creates it."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Where figures go; created here. Raises CheckpointError if that is refused."""
        folder = self.path / "figures"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot("create", folder, error) from error
        return folder

    @property
    def recipe(self) -> dict[str, Any]:
        """What recipe.json says now. Raises CheckpointError if it is missing or damaged."""
        return read_json(self.path / "recipe.json")

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write recipe.json atomically; from here on the folder is a run."""
        write_json(self.path / "recipe.json", recipe)

    def write_mean_image(self, image: Tensor) -> None:
        """Keep the mean image of the training slice, which preprocessing subtracts."""
        write_atomic(self.path / "mean.safetensors", pack_tensors({"mean": image}))

    def mean_image(self) -> Tensor:
        """What `write_mean_image` kept. Raises CheckpointError if it is missing or damaged."""
        path = self.path / "mean.safetensors"
        found = unpack_tensors(read_bytes(path), path)
        if "mean" not in found:
            raise CheckpointError(f"{path} holds no mean image; restore it from a copy")
        return found["mean"]

    def write_digests(self, splits: Mapping[str, Tensor]) -> None:
        """Keep the digests of the images of each split that the run learns from: int64 (N,)."""
        write_atomic(self.path / DIGESTS, pack_tensors(splits))

    def digests(self) -> dict[str, Tensor] | None:
        """What `write_digests` kept; None of a run that kept none. CheckpointError if damaged."""
        path = self.path / DIGESTS
        if not path.is_file():
            return None
        splits = unpack_tensors(read_bytes(path), path)
        if not all(x.dtype == torch.int64 and x.dim() == 1 for x in splits.values()):
            raise CheckpointError(f"{path} holds no digests of images: restore it from a copy")
        return splits

    def lock(self) -> DirLock:
        """`with run.lock():` keeps other processes from writing this run."""
        return DirLock(self.path)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl. Raises CheckpointError if the disk refuses."""
        if not self.writes:
            return
        path = self.path / "metrics.jsonl"
        line = json.dumps(dict(event), separators=(",", ":")).encode() + b"\n"  # of a Record too
        try:
            if self._log is None:
                self._log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                size = os.fstat(self._log).st_size
                if size and os.pread(self._log, 1, size - 1) != b"\n":
                    line = b"\n" + line  # ends the line that a kill or a full disk cut short
            if os.write(self._log, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()
            raise cannot("write", path, error) from error

    def close(self) -> None:
        """Close metrics.jsonl; the next `log` opens it again."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def events(self) -> list[Event]:
        """The run's events in order, without broken lines and without what a resume superseded:
        one at step s takes back every earlier event whose step is beyond s.

        Raises CheckpointError where a whole line says what no run writes: it was edited.
        """
        path, kept = self.path / "metrics.jsonl", list[Event]()
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
                since = event.step
                kept = [e for e in kept if e.step is None or e.step <= since]
            kept.append(event)
        return kept


def fresh_run_path(root: Path, name: str) -> Path:
    """`root`/`name`-<n>, n one above the highest there is, so that `latest_run` will find it."""
    return root / f"{name}-{max(_numbered(root, name), default=0) + 1}"


def latest_run(root: Path, name: str) -> Path | None:
    """The run `root`/`name`-<n> with the highest n, or None."""
    found = _numbered(root, name)
    runs = [number for number, path in found.items() if (path / "recipe.json").is_file()]
    return found[max(runs)] if runs else None


def _numbered(root: Path, name: str) -> dict[int, Path]:
    pattern = re.compile(re.escape(name) + "-([0-9]{1,18})")
    paths = root.iterdir() if root.is_dir() else ()
    return {int(m[1]): path for path in paths if (m := pattern.fullmatch(path.name))}
