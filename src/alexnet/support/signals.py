"""Signals of the operating system: deferred while work must not be cut in two, else raised."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

from alexnet.errors import Interrupted, ReaderEnded, UsageError
from alexnet.support.options import option

STOP = (signal.SIGINT, signal.SIGTERM)
PREEMPT = (*STOP, signal.SIGUSR1)  # clusters send SIGUSR1 before they take a machine away

K = TypeVar("K")
T = TypeVar("T")


class DeferredSignals:
    """While active, notes the first signal in `received` and raises Interrupted at the second.

    A `patient` one never raises: launchers such as torchrun send the same signal once more to each
    process of the group. After a signal it leaves all of them ignored until the process ends, so
    that the exit status is that of the first.
    """

    def __init__(self, numbers: Sequence[int] = STOP, patient: bool = False) -> None:
        self.received: int | None = None
        self._numbers, self._patient = numbers, patient
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "DeferredSignals":
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and not self._patient:
            raise Interrupted(number)
        self.received = self.received or number

    def __exit__(self, *error: object) -> None:
        ignore = self._patient and self.received is not None
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if ignore else handler)


@contextmanager
def interrupt_on(numbers: Sequence[int]) -> Iterator[None]:
    """In this context each of these signals raises Interrupted, unless it has a handler already."""
    previous: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) == signal.SIG_DFL:
                    previous[number] = signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # set by a patient DeferredSignals
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def signal_number(name: int | str) -> int:
    """The number of a signal that is named as SIGUSR2, USR2 or 12.

    Raises UsageError where it does not exist or cannot be caught.
    """
    word = str(int(name) if isinstance(name, int) else name).strip().upper()
    numbers = {s.name: int(s) for s in signal.Signals}
    number = int(word) if word.isdigit() else numbers.get(f"SIG{word.removeprefix('SIG')}", 0)
    if number not in numbers.values() or number in (signal.SIGKILL, signal.SIGSTOP):
        raise UsageError(f"stop_signal {name!r}: name a signal that can be caught, as SIGUSR2")
    return number


def report_thread_exit(work: Callable[[K], T]) -> Callable[[K], T]:
    """Wrap the function of a thread: an exception that ends a thread silently, such as SystemExit,
    becomes ReaderEnded."""

    def reporting(key: K) -> T:
        try:
            return work(key)
        except Exception:
            raise
        except BaseException as error:
            raise ReaderEnded(
                f"a thread that reads images was ended ({error!r}): run it again; "
                f"{option('resume', True)} goes on with what is saved, and "
                f"{option('workers', 0)} reads without threads"
            ) from None

    return reporting
