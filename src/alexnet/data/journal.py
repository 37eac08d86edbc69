"""What a pack that is not finished has on the disk, and how much of it counts."""

import os
from pathlib import Path
from typing import Any

from alexnet.data.statistics import Sums
from alexnet.errors import UsageError
from alexnet.files import parse_json, read_bytes, write_atomic, write_json
from alexnet.options import option


class Journal:
    """Files of a folder that grow, and a state that says how far each is committed.

    Killed at any moment, a pack continues from its last commit: what a file holds beyond that is
    cut off when more is added. `state` is what state.json holds; its `bytes` says how many count of
    each file. `sums` are of the training images, written with each commit.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...]) -> None:
        """The journal in a folder, or a new one, whose images have the shape (H, W, C).

        UsageError where it is there and its key is another.
        """
        self.folder, self.sums = folder, Sums(shape)
        self.state: dict[str, Any] = {"key": key, "done": {}, "bytes": {}}
        path = folder / "state.json"
        self.is_new = not path.is_file()
        if self.is_new:
            return
        self.state = parse_json(read_bytes(path), path)
        if self.state.get("key") != key:
            raise UsageError(
                f"{folder.parent} holds a half-finished pack of another source or other options: "
                f"choose another {option('out')}, or remove it"
            )
        if name := self.state.get("sums"):
            self.sums = Sums.from_bytes(read_bytes(folder / name))

    @property
    def done(self) -> dict[str, int]:
        """How many images of each split of the source are committed."""
        found: dict[str, int] = self.state["done"]
        return found

    def append(self, name: str, data: bytes, header: int = 0) -> None:
        """Adds to a file, through to the disk, from where the last commit left it; `header` bytes
        are left free at its beginning."""
        at, path = self.state["bytes"].get(name, header), self.folder / name
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.state["bytes"][name] = at + len(data)

    def commit(self, split: str, done: int) -> None:
        """Makes all that was added count, of a split's first `done` images."""
        old, new = self.state.get("sums"), f"sums-{split}-{done}.npz"
        write_atomic(self.folder / new, self.sums.to_bytes())
        self.state["sums"] = new
        self.done[split] = done
        write_json(self.folder / "state.json", self.state)
        if old and old != new:
            (self.folder / old).unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """A file as far as it is committed; empty where nothing was added."""
        path = self.folder / name
        if not path.exists():
            return b""
        with open(path, "rb") as file:
            return file.read(self.state["bytes"].get(name, 0))
