"""What ends a program from outside: signals, noted while something must not be cut in two."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

from alexnet.errors import Interrupted, ReaderEnded, UsageError
from alexnet.options import option

STOP = (signal.SIGINT, signal.SIGTERM)
PREEMPT = (*STOP, signal.SIGUSR1)  # the last is what clusters send before they take a machine away

K = TypeVar("K")
T = TypeVar("T")


class Signals:
    """While active, signals are noted and not obeyed; a second one is obeyed at once.

    `patient` notes all of them: a launcher passes on what its group of processes got anyway. Once
    one came they are ignored to the end of the process, whose status is to be of the first.
    """

    def __init__(self, numbers: Sequence[int] = STOP, patient: bool = False) -> None:
        self.received: int | None = None
        self._numbers, self._patient = numbers, patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and not self._patient:
            raise Interrupted(number)
        self.received = self.received or number

    def __exit__(self, *error: object) -> None:
        ends = self._patient and self.received is not None
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)


@contextmanager
def obeying(numbers: Sequence[int]) -> Iterator[None]:
    """Inside, each of these signals raises Interrupted, where it is nobody else's business."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) == signal.SIG_DFL:
                    before[number] = signal.signal(number, _obey)
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # by `Signals`, to the end
                signal.signal(number, handler)


def _obey(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def signal_named(name: str) -> int:
    """SIGUSR2, USR2 or 12. One that does not exist or cannot be caught is a UsageError."""
    word = name.strip().upper()
    known = {s.name: int(s) for s in signal.Signals}
    number = int(word) if word.isdigit() else known.get(f"SIG{word.removeprefix('SIG')}", 0)
    if number not in known.values() or number in (signal.SIGKILL, signal.SIGSTOP):
        raise UsageError(f"stop_signal {name!r}: name a signal that can be caught, as SIGUSR2")
    return number


def outspoken(work: Callable[[K], T]) -> Callable[[K], T]:
    """The same for a thread: what would end the program without a word is an error."""

    def whole(key: K) -> T:
        try:
            return work(key)
        except Exception:
            raise
        except BaseException as error:
            raise ReaderEnded(
                f"a thread that reads images was ended ({error!r}): run it again; "
                f"{option('resume', True)} goes "
                f"on with what is saved, and {option('workers', 0)} reads without threads"
            ) from None

    return whole
