"""A checkpoint save that dies, or is refused, at each of its calls to the system."""

import builtins
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from alexnet.errors import CheckpointError
from alexnet.runs import Checkpoint, load_latest, save_checkpoint
from faults.tally import Tally, in_child

CALLS = ("fsync", "rename", "replace", "symlink", "mkdir", "unlink", "rmdir", "open")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


def killed(count: int, seed: int, folder: Path) -> Tally:
    """SIGKILL before every call of a save, and in the middle of every write."""
    tally = Tally()
    for name, (earlier, step) in _saves().items():
        for index in range(10**6):
            root = folder / f"{name}-{index}"
            for before in earlier:
                _save(root, before)

            def save(root: Path = root, step: int = step, index: int = index) -> str:
                with _at_call(index, _die):
                    _save(root, step)
                return "ended"

            status, said = in_child(save)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                tally.losses.append(f"{name}, call {index}: {said}")
            loaded = load_latest(root, tally.losses.append)
            tally.outcomes["the step before" if loaded.step < step else "the new step"] += 1
            _judge(tally, f"{name}, call {index}", root, loaded, max(earlier, default=0))
            _save(root, step + 1)
            if left := [path.name for path in root.glob(".tmp*")]:
                tally.losses.append(f"{name}, call {index}: {left} stayed")
    return tally


def refused(count: int, seed: int, folder: Path) -> Tally:
    """No space, a disk error, no permission at every call of a save."""
    tally = Tally()
    for name, (earlier, step) in _saves().items():
        for code in ERRORS:
            for index in range(10**6):
                root = folder / f"{name}-{code}-{index}"
                for before in earlier:
                    _save(root, before)
                where = f"{name}, {errno.errorcode[code]} at call {index}"
                with _at_call(index, _raiser(code)) as reached:
                    try:
                        _save(root, step)
                        outcome = "saved all the same"
                    except CheckpointError as error:
                        outcome = "one line"
                        if "\n" in str(error) or str(root) not in str(error):
                            tally.losses.append(f"{where}: {error}")
                    except OSError as error:
                        outcome = "another error"
                        tally.losses.append(f"{where}: {error!r}")
                if not reached:
                    break
                tally.outcomes[outcome] += 1
                loaded = load_latest(root, tally.losses.append)
                _judge(tally, where, root, loaded, step if outcome[0] == "s" else max(earlier))
                left = [path.name for path in root.glob(".tmp*")]
                if left and outcome == "saved all the same":  # it was the sweep that was refused
                    _save(root, step + 1)
                    left = [path.name for path in root.glob(".tmp*")]
                if left:
                    tally.losses.append(f"{where}: {left} stayed")
    return tally


def _saves() -> dict[str, tuple[tuple[int, ...], int]]:
    """Steps saved before, and the step saved: one more with the oldest to go, or the same again."""
    return {"next": ((1, 2), 3), "again": ((1, 2), 2)}


def _save(root: Path, step: int) -> None:
    tensors = {"weight": torch.full((2_000,), float(step))}
    save_checkpoint(
        root, step, model=tensors, optimizer=tensors, state={"step": step}, best=True, keep=2
    )


def _judge(tally: Tally, where: str, root: Path, loaded: Checkpoint, least: int) -> None:
    if loaded.step < least:
        tally.losses.append(f"{where}: step {loaded.step} loads, {least} was committed")
    tensors = [*loaded.model.values(), *loaded.optimizer.values()]
    if not all(bool((t == loaded.step).all()) for t in tensors):
        tally.losses.append(f"{where}: step {loaded.step} holds other numbers")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raiser(code: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


@contextmanager
def _at_call(index: int, strike: Callable[[], None]) -> Iterator[list[int]]:
    """Strikes at the index-th call; what is given is empty as long as it was not reached."""
    seen, struck = [0], list[int]()

    def due() -> bool:
        seen[0] += 1
        if seen[0] - 1 == index:
            struck.append(index)
        return seen[0] - 1 == index

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if due():
                strike()
            return real(*args, **options)

        return call

    real_open = builtins.open

    def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = real_open(path, mode, *args, **options)
        if "w" in mode and isinstance(path, Path):
            write = file.write

            def half(data: bytes) -> int:
                if due():
                    write(data[: len(data) // 2])
                    file.flush()
                    strike()
                return int(write(data))

            stand_in = mock.MagicMock(wraps=file)
            stand_in.write = half
            stand_in.__enter__.side_effect = lambda: stand_in
            stand_in.__exit__.side_effect = lambda *_: file.close()
            return stand_in
        return file

    with ExitStack() as stack:
        # Patched because a disk that is full, or a kill between two calls, comes no other way.
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, guarded(getattr(os, name))))
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        yield struck
