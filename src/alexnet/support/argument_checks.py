"""Checks arguments of public functions by their annotations.

`checked` wraps a function: before it runs, each argument is converted to the type that its
annotation names, or refused with a UsageError of one line. A path is a str or os.PathLike, a number
may be NumPy's, and a single item stands for a list of one where the annotation has both. The fields
of a recipe are checked by the same converters.
"""

import collections.abc
import difflib
import functools
import inspect
import math
import numbers
import os
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

from alexnet.errors import UsageError
from alexnet.support.options import argument
from alexnet.support.terminal import escaped

F = TypeVar("F", bound=Callable[..., Any])

INT_LIMIT = 2**63  # whole numbers of this size or more do not fit into 64 bits
PATH_LIMIT, NAME_LIMIT = 4096, 255  # bytes of a path, and of a name in it, on any common system
TEXT_LIMIT = 1000  # characters of a name, a token or another text
FAR = 10**6  # an upper limit of this size or more is only against slips
SHOWN = 80  # characters of a value in a message


class Mismatch(Exception):
    """A value does not fit its annotation; `place` leads to it in the argument, as [2]; `hint` ends
    the message."""

    def __init__(self, value: object, expected: str, place: str = "", hint: str = "") -> None:
        super().__init__(value, expected, place, hint)
        self.value, self.expected, self.place, self.hint = value, expected, place, hint


@dataclass(frozen=True)
class Range:
    """The numbers that an argument takes. `above` and `below` are not among them."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def describe(self, value: float) -> str:
        """What a value outside of the range must be. A far upper limit is named only where it is
        passed, since nobody means such numbers."""
        if self.high is not None and self.high >= FAR:
            passed = value > self.high
            return str(replace(self, low=None, above=None) if passed else replace(self, high=None))
        return str(self)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:,} to {self.high:,}"
        if self == Range(low=0):
            return "0 or more"
        words = [("at least", self.low), ("above", self.above)]
        words += [("at most", self.high), ("below", self.below)]
        return " and ".join(f"{word} {limit:,}" for word, limit in words if limit is not None)


def checked(**ranges: Range) -> Callable[[F], F]:
    """Decorate a function so that its arguments are checked; `ranges` are of its numbers."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        parameters = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.annotation is not inspect.Parameter.empty
            and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        assert ranges.keys() <= parameters.keys(), f"{function} has no such parameter: {ranges}"

        @functools.wraps(function)
        def checking(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error says what is missing
            for name in [n for n in bound.arguments if n in parameters]:
                parameter, value = parameters[name], bound.arguments[name]
                flag = parameter.kind is inspect.Parameter.KEYWORD_ONLY
                called = argument(name, flag=flag)
                bound.arguments[name] = check_argument(
                    called, value, parameter.annotation, ranges.get(name)
                )
            return function(*bound.args, **bound.kwargs)

        return cast(F, checking)

    return decorate


def check_argument(name: str, value: Any, annotation: Any, within: Range | None = None) -> Any:
    """The value as `annotation` has it. UsageError, which names it as `name`, for one that does not
    fit or is not `within` a range."""
    try:
        converted = convert(value, annotation)
    except Mismatch as mismatch:
        raise UsageError(
            f"{name}{mismatch.place} is {quote_value(mismatch.value)}; it takes {mismatch.expected}"
            f"{mismatch.hint}"
        ) from None
    if within is None:
        return converted  # a list may be a loader, whose batches are read once
    for number in converted if isinstance(converted, list | tuple) else (converted,):
        if isinstance(number, int | float) and number not in within:
            raise UsageError(
                f"{name} is {quote_value(value)}; it must be {within.describe(number)}"
            )
    return converted


def quote_value(value: object) -> str:
    """A value in a message: its repr, on one line, without control characters, shortened."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = SHOWN
    short.maxlong, short.maxlevel = 24, 2
    try:
        text = short.repr(value)
    except Exception:  # a repr of anybody's, and whole numbers of more than 4,300 digits
        text = f"a {type(value).__name__} that cannot be printed"
    text = escaped(" ".join(text.split()))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def convert(value: Any, annotation: Any) -> Any:
    """The value as `annotation` has it, or Mismatch."""
    return _converter(annotation)(value)


Converter = Callable[[Any], Any]


@functools.cache
def _converter(annotation: Any) -> Converter:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _union_converter(inner)
    if origin is Literal:
        return _choice_converter(inner)
    if origin in (tuple, list, Sequence):
        return _list_converter(tuple if origin is tuple else list, inner[0])
    if origin is dict:
        return _table_converter(*inner)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if origin is collections.abc.Callable:
        return _instance_converter(callable, "a function")
    if origin is Iterable:
        return _instance_converter(
            lambda v: isinstance(v, Iterable) and not isinstance(v, str | bytes), "an iterable"
        )
    if annotation is Any:
        return lambda value: value
    kind = origin or annotation
    names = {"Mapping": "a dictionary", "ndarray": "an array"}
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    expected = names.get(kind.__name__, f"{article} {kind.__name__}")
    return _instance_converter(lambda v: isinstance(v, kind), expected)


def _instance_converter(fits: Callable[[Any], bool], expected: str) -> Converter:
    def convert_instance(value: Any) -> Any:
        if not fits(value):
            raise Mismatch(value, expected)
        return value

    return convert_instance


def _union_converter(members: Sequence[Any]) -> Converter:
    """Paths come first; a list that a single item may stand for comes last. Of images an array of
    more than three dimensions is such a list."""
    takes_none, takes_path = type(None) in members, Path in members
    rest = [m for m in members if m is not type(None) and not (takes_path and m in (str, Path))]
    lists = [m for m in rest if typing.get_origin(m) in (tuple, list, Sequence)]
    converters: list[Converter] = [_convert_path] if takes_path else []
    converters += [_converter(m) for m in rest if m not in lists]
    list_converters = [_converter(m) for m in lists]
    of_one = bool(converters) and bool(lists)

    def convert_union(value: Any) -> Any:
        if value is None and takes_none:
            return None
        mismatches = []
        is_batch = of_one and getattr(value, "ndim", 0) > 3
        for converter in converters if not is_batch else ():
            try:
                converted = converter(value)
            except Mismatch as mismatch:
                mismatches.append(mismatch)
            else:
                return [converted] if of_one else converted
        for converter in list_converters:
            try:
                return converter(value)
            except Mismatch as mismatch:
                if mismatch.place:
                    raise
                mismatches.append(mismatch)
        expected = [m.expected for m in mismatches] + ["None"] * takes_none
        hint = next((m.hint for m in mismatches if m.hint), "")
        raise Mismatch(value, one_of(dict.fromkeys(expected)), hint=hint)

    return convert_union


def one_of(words: Iterable[str]) -> str:
    """Words as an alternative: "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _choice_converter(choices: tuple[Any, ...]) -> Converter:
    expected = f"one of {', '.join(map(str, choices))}"

    def convert_choice(value: Any) -> Any:
        for choice in choices:
            if isinstance(choice, int):
                with_number = _is_whole(value) and value == choice
            else:
                with_number = isinstance(value, str) and value == choice
            if with_number:
                return choice
        close = difflib.get_close_matches(value, map(str, choices), 1) if _is_text(value) else []
        raise Mismatch(value, expected, hint=f": did you mean {close[0]!r}?" if close else "")

    return convert_choice


def _list_converter(kind: type, item: Any) -> Converter:
    convert_item = _converter(item)
    try:
        convert_item(_NOTHING)
    except Mismatch as mismatch:
        one = mismatch.expected
    expected = f"a list, each {one}"

    def convert_list(value: Any) -> Any:
        if not isinstance(value, Iterable) or isinstance(
            value, str | bytes | Mapping | os.PathLike
        ):
            raise Mismatch(value, expected)
        if getattr(value, "ndim", 1) == 0:  # an array of NumPy that is one number
            raise Mismatch(value, expected)
        converted = []
        for i, inner in enumerate(value):
            try:
                converted.append(convert_item(inner))
            except Mismatch as mismatch:
                place = f"[{i}]{mismatch.place}"
                raise Mismatch(mismatch.value, mismatch.expected, place) from None
        return kind(converted)

    return convert_list


def _table_converter(key: Any, item: Any) -> Converter:
    convert_key, convert_item = _converter(key), _converter(item)

    def convert_table(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Mismatch(value, "a dictionary")
        converted = {}
        for name, inner in value.items():
            try:
                converted[convert_key(name)] = convert_item(inner)
            except Mismatch as mismatch:
                place = f"[{quote_value(name)}]"
                raise Mismatch(mismatch.value, mismatch.expected, place) from None
        return converted

    return convert_table


_NOTHING = object()  # fits no annotation


def _convert_path(value: Any) -> str | Path:
    path = value
    if isinstance(value, os.PathLike) and not isinstance(value, Path):
        path = os.fspath(value)
        path = Path(path) if isinstance(path, str) else path
    if not isinstance(path, str | Path):
        raise Mismatch(value, "a path")
    text = str(path)
    if not text:
        raise Mismatch(value, "a path that is not empty")
    if "\0" in text:
        raise Mismatch(value, "a path without a NUL byte")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise Mismatch(value, "a path that this system can encode") from None
    if len(encoded) > PATH_LIMIT or max(map(len, encoded.split(b"/"))) > NAME_LIMIT:
        raise Mismatch(value, f"a path of at most {PATH_LIMIT:,} bytes, {NAME_LIMIT} a name")
    return path


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LIMIT


def _convert_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch(value, "str")
    if "\0" in value:
        raise Mismatch(value, "str without a NUL byte")
    if len(value) > TEXT_LIMIT:
        raise Mismatch(value, f"str of at most {TEXT_LIMIT:,} characters")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _convert_int(value: Any) -> int:
    if not _is_whole(value):
        raise Mismatch(value, "int")
    if abs(number := int(value)) >= INT_LIMIT:
        raise Mismatch(value, "int of at most 64 bits")
    return number


def _convert_float(value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise Mismatch(value, "float")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Mismatch(value, "a finite number")
    return number


def _convert_bool(value: Any) -> bool:
    is_numpy = type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    if not (isinstance(value, bool) or is_numpy):
        raise Mismatch(value, "bool")
    return bool(value)


_SIMPLE: dict[Any, Converter] = {
    str: _convert_text,
    int: _convert_int,
    float: _convert_float,
    bool: _convert_bool,
    Path: _convert_path,
    BinaryIO: _instance_converter(lambda v: hasattr(v, "read"), "an open binary file"),
}
