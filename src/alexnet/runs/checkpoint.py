"""Checkpoints that survive kills, full disks and bit rot.

    checkpoints/
    ├── step-120/            appears whole, by one rename
    │   ├── model.safetensors
    │   ├── optimizer.safetensors
    │   ├── state.json
    │   └── manifest.json    format, step, size and SHA-256 of the files above
    ├── best -> step-80      replaced atomically
    └── last -> step-120     replaced atomically; the final act of a save

While a step is saved again, its earlier version is `step-120.old` and still counts as step 120.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from alexnet.files import cannot, fsync_dir, parse_json, read_bytes, read_json, write_synced
from alexnet.options import Placeholder, option

FORMAT = 1
HEADER_LIMIT = 16 * 2**20
"""Largest safetensors header read, in bytes; AlexNet's takes about two thousand."""

_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; tensors are on the CPU."""

    step: int
    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """What `Trainer.load_state_dict` takes."""
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
    """Commit `root`/step-<step> and return it; then keep it, `keep` - 1 others and the best.

    `state` holds what JSON holds, with text as keys. One writer at a time (see `DirLock`). Raises
    CheckpointError if the system refuses; every earlier checkpoint is then still there.
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
        files = {name: _seal(data) for name, data in zip(_FILES, contents, strict=True)}
        body = {"format": FORMAT, "step": step, "files": files}
        manifest = json.dumps(body | {"sha256": _digest(body)}, indent=2)
        write_synced(temporary / "manifest.json", manifest.encode())
        fsync_dir(temporary)
        if final.exists():
            _discard(_spare(final))
            os.rename(final, _spare(final))
        os.rename(temporary, final)
        # `last` comes last: a resume from the step before decides about `best` again.
        for name in ("best", "last") if best else ("last",):
            _link(root / name, final.name)
        fsync_dir(root)
        _prune(root, keep)
    except OSError as error:
        raise cannot("save", final, error) from error
    finally:
        _sweep(root)
    return final


def load_checkpoint(path: Path, *, optimizer: bool = True) -> Checkpoint:
    """Read and verify one checkpoint folder. Raises CheckpointError naming what is wrong with it.

    What was hashed is what is parsed: each file is read once. Without `optimizer` its file, two
    thirds of a checkpoint, is neither read nor needed, and the checkpoint has no tensors of it.
    """
    manifest = _read_manifest(path)
    try:
        # Names with a dot in front are the file system's or the desktop's business.
        there = {name for name in os.listdir(path) if not name.startswith(".")}
    except OSError as error:
        raise cannot("read", path, error) from error
    if extra := there - {*_FILES, "manifest.json"}:
        raise CheckpointError(
            f"{path} holds {', '.join(sorted(extra))}, which its manifest does not name; "
            "move what does not belong there elsewhere"
        )

    def read(name: str) -> bytes:
        return _read_sealed(path / name, manifest["files"].get(name))

    model, moments, state = _FILES
    return Checkpoint(  # one file after the other: the bytes of two need not be held
        step=manifest["step"],
        path=path,
        model=unpack_tensors(read(model), path / model),
        optimizer=unpack_tensors(read(moments), path / moments) if optimizer else {},
        state=parse_json(read(state), path / state),
    )


def load_latest(root: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint in `root` that loads; `warn` gets one line for each damaged one passed.

    Raises CheckpointError if none loads.
    """
    paths = _newest_first(root)
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; trying the checkpoint before it")
    tried = f"; damaged: {', '.join(path.name for path in paths)}" if paths else ""
    raise CheckpointError(f"{root} holds no loadable checkpoint{tried}; start the run anew")


def find_checkpoint(root: Path, name: str = "best") -> Path:
    """The folder of checkpoint "best", "last" or "step-<n>"; it may still prove damaged.

    Raises CheckpointError naming those there are.
    """
    paths = _newest_first(root)
    wanted = _linked(root / name) if name in ("best", "last") else _step_of(name)
    if wanted is None and name in ("best", "last") and paths:  # links are lost in some copies
        with contextlib.suppress(CheckpointError, KeyError, TypeError):
            watch = read_json(paths[0] / "state.json")["watch"]
            best = int(watch["best_step"]) or None  # 0: no validation was made yet
            wanted = _step_of(paths[0].name) if name == "last" else best
    for path in paths:
        if wanted is not None and _step_of(path.name) == wanted:
            return path
    there = ", ".join(f"step-{_step_of(path.name)}" for path in paths) or "none"
    why = ""
    if name == "best" and paths and not _linked(root / name):
        last = option("checkpoint", "last")
        why = f": no validation was made before it ended; {last} is as far as it came"
    raise CheckpointError(f"{root} has no checkpoint {name!r}{why}; there are: {there}")


def _else() -> str:
    other = option("checkpoint", Placeholder("step-N"))
    return f"restore it from a copy or use another checkpoint ({other})"


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The safetensors form. Values and shapes are kept; strides and shared storage are not."""
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    # Without room for the file and its copy `save` panics in Rust; this is a MemoryError, and free.
    bytearray(2 * sum(copy.nbytes for copy in copies.values()))
    return save(copies, metadata={"format": "pt"})


def unpack_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """Inverse of `pack_tensors`. Raises CheckpointError naming `source` if malformed."""
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER_LIMIT, len(data) - 8):
        limit = f"at most {HEADER_LIMIT} and within the file"
        raise CheckpointError(
            f"{source} is damaged: header {length} bytes, expected {limit}; {_else()}"
        )
    parse_json(data[8 : 8 + length], source)  # safetensors accepts a name that occurs twice
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{source} is damaged: {why}; {_else()}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    source = path / "manifest.json"
    if not os.path.isfile(source):
        raise CheckpointError(
            f"{path} is no checkpoint: expected a manifest.json in it; choose a step-<n> folder"
        )
    manifest = read_json(source)
    body = {key: manifest.get(key) for key in ("format", "step", "files")}
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{source} says format {body['format']!r}, expected {FORMAT}; "
            "use the version of alexnet that wrote it"
        )
    whole = isinstance(body["step"], int) and isinstance(body["files"], dict)
    if not whole or manifest.get("sha256") != _digest(body):
        raise CheckpointError(f"{source} is damaged: expected its own SHA-256 to match; {_else()}")
    return body


def _read_sealed(path: Path, expected: object) -> bytes:
    data = read_bytes(path)
    found = _seal(data)
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: its {len(data)} bytes are not those that were written; {_else()}"
        )
    return data


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _seal(data: bytes) -> dict[str, str | int]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _step_of(name: str) -> int | None:
    match = re.fullmatch(r"step-([0-9]{1,18})(\.old)?", name)
    return int(match[1]) if match else None


def _spare(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _linked(link: Path) -> int | None:
    """The step that `best` or `last` names, whether or not it is there."""
    try:
        return _step_of(os.readlink(link))
    except OSError:
        return None


def _newest_first(root: Path) -> list[Path]:
    """One folder for each committed step, from `last` downwards.

    Steps beyond `last` come after those: a run that went back has left them behind.
    """
    found: dict[int, Path] = {}
    for path in sorted(root.glob("step-*"), reverse=True):  # step-9.old before step-9, which wins
        if (step := _step_of(path.name)) is not None:
            found[step] = path
    last = _linked(root / "last")
    order = sorted(found, key=lambda step: (last is None or step <= last, step), reverse=True)
    return [found[step] for step in order]


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".tmp-{link.name}-{os.getpid()}")
    os.symlink(target, temporary)
    os.replace(temporary, link)


def _prune(root: Path, keep: int) -> None:
    """Remove what retention does not ask for; a failure leaves it to the next save."""
    paths, best = _newest_first(root), _linked(root / "best")
    kept = paths[:keep] + [path for path in paths if _step_of(path.name) == best]
    for path in root.glob("step-*"):
        if path not in kept and _step_of(path.name) is not None:
            with contextlib.suppress(OSError):
                _discard(path)


def _discard(path: Path) -> None:
    """Mark a committed folder for the sweep, by a rename: half removed it would pass for whole."""
    if path.exists():
        os.rename(path, path.with_name(f".tmp-{path.name}-old"))


def _sweep(root: Path) -> None:
    for path in root.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
