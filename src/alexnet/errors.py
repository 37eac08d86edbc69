"""Errors a person can act on. Each message is one line: the value, what was expected, the remedy.

AlexNetError            anything below; the command line prints it and exits 2
├── UsageError          the call contradicts itself or names something that is not there
├── DataError           raw images or labels are missing, damaged or contradictory
│   ├── Unreadable      images of a split that cannot be read, by name
│   └── ReaderEnded     a thread that reads images was ended
├── CheckpointError     a checkpoint or run directory is missing, damaged or foreign
├── Unavailable         an optional package or a network is needed and absent
├── Elsewhere           another process of the same run failed, and says why (exit 1)
├── Diverged            the training itself failed (exit 1: nothing wrong with the call)
└── Differs             an export does not compute what its network does (exit 1)
"""

import difflib
from collections.abc import Iterable, Mapping

from alexnet.support.options import HELP


class AlexNetError(Exception):
    """Base of every error that is the input's fault and not the program's."""

    exit_status = 2


class UsageError(AlexNetError):
    """An option, recipe field or combination that cannot be honoured."""


class DataError(AlexNetError):
    """Raw data that is missing, damaged, hostile or contradictory."""


class Unreadable(DataError):
    """Images of a split that cannot be read. `images` are path and reason by index in the split.

    The message names the first, what else there is, and the `remedy`.
    """

    def __init__(
        self,
        split: str,
        images: Mapping[int, tuple[str, str]],
        remedy: str = "replace or remove it",
    ) -> None:
        path, reason = next(iter(images.values()))
        others = [other for other, _ in images.values()][1:]
        more = f", and {len(others)} more like it ({', '.join(others[:3])})" if others else ""
        super().__init__(f"{path}: {reason}{more}; {remedy}")
        self.split, self.images, self.remedy = split, dict(images), remedy

    def advised(self, other: str) -> "Unreadable":
        """The same with one more remedy."""
        return Unreadable(self.split, self.images, f"{self.remedy}, or {other}")


class ReaderEnded(DataError):
    """A thread that reads images was ended; the message says how to go on."""


class CheckpointError(AlexNetError):
    """A run directory or checkpoint that is missing, damaged or from elsewhere."""


class Unavailable(AlexNetError):
    """Something optional (a package, a network) is needed here and absent."""


class Diverged(AlexNetError):
    """The loss is no longer a number; the last checkpoint before that is kept."""

    exit_status = 1


class Elsewhere(AlexNetError):
    """Another process of the same run failed. Without a message it has said why itself."""

    def __init__(self, message: str = "", exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Differs(AlexNetError):
    """A file that computes something else than it is to; where it was being made, it is not."""

    exit_status = 1


class Interrupted(Exception):
    """A signal asked the work to stop; raised once everything is saved.

    `signum` is the signal; the exit status is 128 + signum (130 SIGINT, 143 SIGTERM).
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum


def did_you_mean(word: str, known: Iterable[str], where: object = "") -> str:
    """Return the end of an error about a misspelt word: the most similar known word, all of them
    where there are few, or the command `where` that lists them."""
    names = list(known)
    if close := difflib.get_close_matches(word, names, n=1):
        return f": did you mean {close[0]!r}?"
    return f": there are {', '.join(names)}" if len(names) <= 12 else f": see `{where or HELP}`"
