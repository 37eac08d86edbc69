"""Files on a network drive, which may be away for seconds."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alexnet.errors import DataError
from alexnet.support.terminal import say

T = TypeVar("T")

LOOK_S = 0.1  # between two looks whether it is back
AWAY = {
    errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO,
}  # fmt: skip
"""What reading a file of a drive that is away ends with."""

SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What a file cannot help: this process, or this machine, has no more of it."""


class DriveAway(DataError):
    """A folder that did not come back in time."""


class Drive:
    """Files below `root`, read by any number of threads. Where the whole folder of a file is away,
    it is waited for, `patience` seconds at most, and said once; where the file alone is missing,
    not. `gives_up` is asked meanwhile whether to wait no longer.
    """

    def __init__(self, root: str | Path, patience: float) -> None:
        self.root, self.patience = Path(root), patience
        self.gives_up: Callable[[], bool] = lambda: False
        self._waiting = threading.Lock()
        self._gone = False

    def read(self, file: Path, work: Callable[[], T]) -> T:
        """The result of `work` on a file. DriveAway where the folder does not come back."""
        again = False
        while True:
            try:
                return work()
            except DataError as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in AWAY:
                    raise
                if not self._is_there(file):
                    self._wait(file, cause)
                elif again:  # it may have come back in between, so it is tried once more
                    raise
                again = True

    def _is_there(self, file: Path) -> bool:
        """Where a drive is not mounted, its folder is missing or empty."""
        try:
            with os.scandir(file.parent) as entries:
                return next(entries, None) is not None
        except OSError:
            return False

    def _wait(self, file: Path, cause: OSError) -> None:
        with self._waiting:  # one waits and says so, the others wait for it
            if self._is_there(file):
                self._gone = False
                return
            began = time.monotonic()
            if not self._gone and self.patience:
                why = (cause.strerror or str(cause)).lower()
                say(f"{file.parent} is away ({why}): waiting up to {self.patience:g} s for it")
                while time.monotonic() - began < self.patience and not self.gives_up():
                    time.sleep(LOOK_S)
                    if self._is_there(file):
                        say(f"{file.parent} is back after {time.monotonic() - began:.1f} s")
                        return
            self._gone = True
        raise DriveAway(
            f"{file.parent} is away, and was waited for {self.patience:g} s: bring {self.root} back"
        ) from cause
