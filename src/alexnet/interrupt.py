"""What ends a program from outside: signals, noted while something must not be cut in two."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from alexnet.errors import DataError, Interrupted

K = TypeVar("K")
T = TypeVar("T")


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


def outspoken(work: Callable[[K], T]) -> Callable[[K], T]:
    """The same for a thread: what would end the program without a word is a DataError."""

    def whole(key: K) -> T:
        try:
            return work(key)
        except Exception:
            raise
        except BaseException as error:
            raise DataError(
                f"a thread that reads images was ended ({error!r}): run it again; --resume goes "
                "on with what is saved, and --workers 0 reads without threads"
            ) from None

    return whole
