"""SIGINT and SIGTERM, noted while something must not be cut in two."""

import signal
import threading
from types import FrameType
from typing import Any

from alexnet.errors import Interrupted


class Signals:
    """While active, SIGINT and SIGTERM are noted and not obeyed; a second one is obeyed at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(number)
        self.received = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
