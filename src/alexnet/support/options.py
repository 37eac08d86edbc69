"""Names options and calls in messages as the caller writes them.

A user of the command line reads "--resume" and "alexnet data check", a caller of the package reads
"resume=True" and "alexnet.data_check". Messages are for Python callers unless `command_line()` is
active. It is active for the whole process, and not for a thread or a context: messages come from
reading threads too. What is written to a run is in words of the command line, whoever trains it:
see `in_flags`.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_speaks_flags = False
_writes_flags: ContextVar[bool] = ContextVar("writes_flags", default=False)
_FUNCTIONS = {"import": "import_weights"}  # functions that are not called as their verbs
_PARAMETERS = {"as": "model"}  # parameters that are not called as their flags


class Placeholder(str):
    """Stands for a value that the reader chooses, as FILE.npy: it is never quoted."""


DIR, FILE, RUN = Placeholder("DIR"), Placeholder("FILE"), Placeholder("RUN")


@contextmanager
def command_line() -> Iterator[None]:
    """While it is active, messages name flags."""
    global _speaks_flags
    before, _speaks_flags = _speaks_flags, True
    try:
        yield
    finally:
        _speaks_flags = before


def in_flags(text: Callable[[], str]) -> str:
    """Return the text that `text` makes, with flags in it, whoever calls: for files of a run, which
    are equal where recipe and data are."""
    token = _writes_flags.set(True)
    try:
        return text()
    finally:
        _writes_flags.reset(token)


def _names_flags() -> bool:
    return _speaks_flags or _writes_flags.get()


def option(name: str, value: Any = ...) -> str:
    """An option, and the value that it should have.

    `name` is the flag's without its dashes, with underscores: option("bad_images", "skip") is
    "--bad-images skip" or "bad_images='skip'". Without a value it is "--bad-images" or
    "bad_images=...".
    """
    if not _names_flags():
        return f"{_PARAMETERS.get(name, name)}={'...' if value is ... else _literal(value)}"
    return " ".join(_words(name, value, str))


def argument(name: str, *, flag: bool) -> str:
    """The name of a parameter as the caller writes it: of the command line "--max-pixels" where it
    is a flag, else and in Python its name."""
    return f"--{name.replace('_', '-')}" if flag and _names_flags() else name


@dataclass(frozen=True)
class AdvisedCall:
    """A call that a message advises, rendered by `str`: "alexnet train --resume --run r" or
    "alexnet.train(resume=True, run='r')". Without arguments it names the verb alone."""

    verb: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def also(self, **options: Any) -> "AdvisedCall":
        """The same call with more options."""
        return replace(self, options=self.options | options)

    def __str__(self) -> str:
        if _names_flags():
            words = ["alexnet", self.verb, *map(_quoted, self.arguments)]
            for name, value in self.options.items():
                words += _words(name, value, _quoted)
            return " ".join(words)
        function = _FUNCTIONS.get(self.verb, self.verb.replace(" ", "_"))
        inner = [_literal(value) for value in self.arguments]
        inner += [f"{_PARAMETERS.get(k, k)}={_literal(v)}" for k, v in self.options.items()]
        return f"alexnet.{function}({', '.join(inner)})" if inner else f"alexnet.{function}"


class Help:
    """Where everything is listed."""

    def __str__(self) -> str:
        return "alexnet --help" if _names_flags() else "help(alexnet)"


HELP = Help()


def call(verb: str, *arguments: Any, **options: Any) -> AdvisedCall:
    """The call of a verb, which is named as on the command line."""
    return AdvisedCall(verb, arguments, options)


def _words(name: str, value: Any, write: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is ... or value is True:
        return [flag]
    if value is False:
        return [f"--no-{flag[2:]}"]
    if isinstance(value, dict):
        return [flag, *(f"{key}={one}" for key, one in value.items())]
    values = value if isinstance(value, tuple) else (value,)
    return [flag, *(f"{x:g}" if isinstance(x, float) else write(x) for x in values)]


def _quoted(value: Any) -> str:
    return value if isinstance(value, Placeholder) else shlex.quote(str(value))


def _literal(value: Any) -> str:
    if isinstance(value, Placeholder):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return repr(str(value)) if isinstance(value, Path) else repr(value)
