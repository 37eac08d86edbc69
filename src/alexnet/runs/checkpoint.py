"""Checkpoints that survive kills, full disks and bit rot.

    checkpoints/
    ├── step-120/            appears complete, by one rename
    │   ├── model.safetensors
    │   ├── optimizer.safetensors
    │   ├── state.json
    │   └── manifest.json    format, step, size and SHA-256 of the files above
    ├── best -> step-80      replaced atomically
    └── last -> step-120     replaced atomically, at the end of a save

While a step is saved again, its earlier version, `step-120.old`, still loads as step 120.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from alexnet.errors import CheckpointError, UsageError
from alexnet.records import (
    CheckpointManifest,
    Misfit,
    OtherFormat,
    RecordedState,
    SealedFile,
    seal_file,
)
from alexnet.support.files import (
    file_error,
    fsync_dir,
    parse_json,
    read_bytes,
    read_json,
    write_synced,
)
from alexnet.support.options import Placeholder, option

HEADER_LIMIT = 16 * 2**20
"""Largest safetensors header that is read, in bytes; AlexNet's has about two thousand."""

_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. Tensors are on the CPU; `state` is the content of state.json, of a
    training that of a SavedState."""

    step: int
    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: Mapping[str, Any]

    @property
    def has_ended(self) -> bool:
        """Whether the training had ended at this step."""
        return RecordedState(self.state).has_ended

    def state_dict(self) -> dict[str, Any]:
        """The argument for `Trainer.load_state_dict`."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "state": self.state,
            "source": str(self.path),
        }


def save_checkpoint(
    root: Path,
    step: int,
    *,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    best: bool,
    keep: int = 2,
) -> Path:
    """Save a checkpoint as `root`/step-<step>, and return that folder.

    Afterwards the newest `keep` checkpoints and the best one stay, others are removed. `state` is
    written as JSON, so its keys must be text. Only one process may write at a time (see `DirLock`).
    Raises CheckpointError where the operating system refuses; all earlier checkpoints then remain.
    """
    if keep < 1:
        raise UsageError(f"keep {keep} checkpoints: expected 1 or more; choose a larger number")
    contents = (pack_tensors(model), pack_tensors(optimizer), json.dumps(dict(state)).encode())
    final, temporary = root / f"step-{step}", root / f".tmp-step-{step}-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        fsync_dir(root.parent)
        _sweep(root)
        temporary.mkdir()
        for name, data in zip(_FILES, contents, strict=True):
            write_synced(temporary / name, data)
        manifest = CheckpointManifest.of(step, dict(zip(_FILES, contents, strict=True)))
        write_synced(temporary / "manifest.json", json.dumps(manifest, indent=2).encode())
        fsync_dir(temporary)
        if final.exists():
            _discard(_old_version(final))
            os.rename(final, _old_version(final))
        os.rename(temporary, final)
        # `last` comes last: after a kill in between, a resume starts before this step and decides
        # about `best` again.
        for name in ("best", "last") if best else ("last",):
            _link(root / name, final.name)
        fsync_dir(root)
        _prune(root, keep)
    except OSError as error:
        raise file_error("save", final, error) from error
    finally:
        _sweep(root)
    return final


def load_checkpoint(path: Path, *, optimizer: bool = True) -> Checkpoint:
    """Read and verify a checkpoint folder. Raises CheckpointError, which names the fault.

    Each file is read once, so the bytes that are parsed are those whose digest was verified.
    Without `optimizer` that file, two thirds of a checkpoint, is not read and may be missing.
    """
    manifest = _read_manifest(path)
    try:
        # File systems and desktops add files whose names begin with a dot.
        names = {name for name in os.listdir(path) if not name.startswith(".")}
    except OSError as error:
        raise file_error("read", path, error) from error
    if extra := names - {*_FILES, "manifest.json"}:
        raise CheckpointError(
            f"{path} holds {', '.join(sorted(extra))}, which its manifest does not name; "
            "move these files elsewhere"
        )

    def read(name: str) -> bytes:
        return _read_sealed(path / name, manifest.files.get(name))

    model, moments, state = _FILES
    return Checkpoint(  # one file after the other, so that memory holds the bytes of one only
        step=manifest.step,
        path=path,
        model=unpack_tensors(read(model), path / model),
        optimizer=unpack_tensors(read(moments), path / moments) if optimizer else {},
        state=parse_json(read(state), path / state),
    )


def load_latest(root: Path, warn: Callable[[str], None]) -> Checkpoint:
    """Load the newest checkpoint in `root` that is not damaged. `warn` gets a line for each damaged
    one before it. Raises CheckpointError where none loads."""
    paths = _newest_first(root)
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; trying the checkpoint before it")
    tried = f"; damaged: {', '.join(path.name for path in paths)}" if paths else ""
    raise CheckpointError(f"{root} holds no loadable checkpoint{tried}; start the run anew")


def find_checkpoint(root: Path, name: str = "best") -> Path:
    """The folder of the checkpoint "best", "last" or "step-<n>", which is not verified yet.

    Raises CheckpointError, which lists the existing checkpoints, where there is none of this name.
    """
    paths = _newest_first(root)
    step = _linked_step(root / name) if name in ("best", "last") else _step_of(name)
    if step is None and name in ("best", "last") and paths:  # some copies lose links
        with contextlib.suppress(CheckpointError):
            best_step = read_state(paths[0]).best_step
            step = _step_of(paths[0].name) if name == "last" else best_step
    for path in paths:
        if step is not None and _step_of(path.name) == step:
            return path
    existing = ", ".join(f"step-{_step_of(path.name)}" for path in paths) or "none"
    why = ""
    if name == "best" and paths and not _linked_step(root / name):
        newest = option("checkpoint", "last")
        why = f": no validation was made before it ended; {newest} is the newest one"
    raise CheckpointError(f"{root} has no checkpoint {name!r}{why}; there are: {existing}")


def _remedy() -> str:
    other = option("checkpoint", Placeholder("step-N"))
    return f"restore it from a copy or use another checkpoint ({other})"


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors in the safetensors format. Strides and shared storage are lost."""
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    # Where memory is short for the file and a copy of it, `save` panics in Rust. This allocation
    # raises MemoryError instead, and costs nothing: its pages are never touched.
    bytearray(2 * sum(copy.nbytes for copy in copies.values()))
    return save(copies, metadata={"format": "pt"})


def unpack_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """The inverse of `pack_tensors`. Raises CheckpointError, which names `source`, for bad data."""
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER_LIMIT, len(data) - 8):
        limit = f"at most {HEADER_LIMIT} and within the file"
        raise CheckpointError(
            f"{source} is damaged: header {length} bytes, expected {limit}; {_remedy()}"
        )
    parse_json(data[8 : 8 + length], source)  # safetensors would accept a name that occurs twice
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{source} is damaged: {why}; {_remedy()}") from error


def read_state(path: Path) -> RecordedState:
    """The state of a checkpoint folder, without the verification of its digest."""
    return RecordedState(read_json(path / "state.json"))


def _read_manifest(path: Path) -> CheckpointManifest:
    source = path / "manifest.json"
    if not os.path.isfile(source):
        raise CheckpointError(
            f"{path} is no checkpoint: expected a manifest.json in it; choose a step-<n> folder"
        )
    values = read_json(source)
    try:
        return CheckpointManifest.read(values)
    except OtherFormat as misfit:
        raise CheckpointError(
            f"{source} says format {misfit.value!r}, expected {misfit.expected}; "
            "use the version of alexnet that wrote it"
        ) from None
    except Misfit:
        raise CheckpointError(
            f"{source} is damaged: expected its own SHA-256 to match; {_remedy()}"
        ) from None


def _read_sealed(path: Path, expected: SealedFile | None) -> bytes:
    data = read_bytes(path)
    if seal_file(data) != expected:
        raise CheckpointError(
            f"{path} is damaged: its {len(data)} bytes are not those that were written; {_remedy()}"
        )
    return data


def _step_of(name: str) -> int | None:
    match = re.fullmatch(r"step-([0-9]{1,18})(\.old)?", name)
    return int(match[1]) if match else None


def _old_version(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _linked_step(link: Path) -> int | None:
    """The step that the link `best` or `last` names; its folder may be missing."""
    try:
        return _step_of(os.readlink(link))
    except OSError:
        return None


def _newest_first(root: Path) -> list[Path]:
    """One folder for each saved step: those up to `last`, the newest first, then those beyond
    `last`, which a run that resumed from an earlier step has left behind."""
    folders: dict[int, Path] = {}
    for path in sorted(root.glob("step-*"), reverse=True):  # step-9.old before step-9, which wins
        if (step := _step_of(path.name)) is not None:
            folders[step] = path
    last = _linked_step(root / "last")
    order = sorted(folders, key=lambda step: (last is None or step <= last, step), reverse=True)
    return [folders[step] for step in order]


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".tmp-{link.name}-{os.getpid()}")
    os.symlink(target, temporary)
    os.replace(temporary, link)


def _prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best. What cannot be removed stays until
    the next save."""
    paths, best = _newest_first(root), _linked_step(root / "best")
    retained = paths[:keep] + [path for path in paths if _step_of(path.name) == best]
    for path in root.glob("step-*"):
        if path not in retained and _step_of(path.name) is not None:
            with contextlib.suppress(OSError):
                _discard(path)


def _discard(path: Path) -> None:
    """Rename a saved folder, so that `_sweep` removes it. Removed in place it could be interrupted,
    and a half-removed folder would count as a checkpoint."""
    if path.exists():
        os.rename(path, path.with_name(f".tmp-{path.name}-old"))


def _sweep(root: Path) -> None:
    """Remove temporary files and folders, also those of a save that was killed."""
    for path in root.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
