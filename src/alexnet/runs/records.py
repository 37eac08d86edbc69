"""Records: what runs keep as JSON and what the verbs return, as types.

This is the only module that knows the keys of that JSON. A record is a frozen dataclass; its fields
are documented with their units. `to_json` gives the plain data that is written and printed,
`from_json` reads it and refuses what does not fit. Metrics are fractions of 1, as everywhere.

For a while a record is also the dictionary that version 0.1.0 returned: `result["top1"]` works, and
warns that `result.top1` is meant. `json.dumps(result)` gives what `--json` prints.
"""

import dataclasses
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, Self

from alexnet.errors import CheckpointError

REMOVAL = "0.3"  # the version in which records are no dictionaries any more


def optional(key: str = "") -> Any:
    """A field that is None where it does not apply, and is then left out of the JSON.

    `key` is its name in JSON, where that differs from the field's.
    """
    return field(default=None, metadata={"omit": True, "key": key})


def keyed(key: str) -> Any:
    """A field whose name in JSON is no name of a field, or one that dictionaries have."""
    return field(metadata={"key": key})


@dataclass(frozen=True)
class Record(dict[str, Any]):
    """What every record can do. Subclasses are frozen dataclasses."""

    def __post_init__(self) -> None:
        dict.update(self, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data in the order of the fields, ready for JSON; optional fields that are None are
        left out."""
        found = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None or not f.metadata.get("omit"):
                found[_key(f)] = _plain(value)
        return found

    @classmethod
    def from_json(cls, values: object, source: str) -> Self:
        """The inverse of `to_json`. Keys that no field has, as of later versions, are passed over.

        Raises CheckpointError, which names `source`, the key and what was expected.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{source} is {_shown(values)}, and a JSON object is expected")
        hints, given = _hints(cls), {}
        for f in fields(cls):
            key = _key(f)
            if key in values:
                given[f.name] = _read(values[key], hints[f.name], f"{source}: {key!r}")
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise CheckpointError(f"{source} lacks {key!r}")
        return cls(**given)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        warnings.warn(
            f"{type(self).__name__} is an object: write .{_name(type(self), key)} for [{key!r}], "
            f"which goes with version {REMOVAL}",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        warnings.warn(
            f"{type(self).__name__} is an object: write .{_name(type(self), key)} for "
            f".get({key!r}), which goes with version {REMOVAL}",
            DeprecationWarning,
            stacklevel=2,
        )
        return super().__getitem__(key)


def _key(f: "dataclasses.Field[Any]") -> str:
    return f.metadata.get("key") or f.name


def _name(record: type[Record], key: str) -> str:
    return next((f.name for f in fields(record) if _key(f) == key), key)


@cache
def _hints(record: type[Record]) -> dict[str, Any]:
    return typing.get_type_hints(record)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _read(value: Any, hint: Any, source: str) -> Any:
    """A JSON value as the type that a field has; CheckpointError where it is another."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            try:
                return _read(value, one, source)
            except CheckpointError as error:
                refused = error
        raise refused
    if origin is Literal:
        fits = value in inner
    elif isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value, source)
    elif origin in (tuple, list, Sequence):
        fits = isinstance(value, list | tuple)
        if fits and origin is tuple and inner[-1] is not Ellipsis:
            fits = len(value) == len(inner)
            if fits:
                return tuple(_read(v, t, source) for v, t in zip(value, inner, strict=True))
        elif fits:
            read = [_read(v, inner[0], source) for v in value]
            return tuple(read) if origin is tuple else read
    elif origin in (dict, Mapping):
        fits = isinstance(value, Mapping)
        if fits:
            return {k: _read(v, inner[1], source) for k, v in value.items()}
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint is None or hint is type(None):
        fits = value is None
    else:
        fits = isinstance(value, hint)
    if not fits:
        kind = getattr(hint, "__name__", str(hint))
        raise CheckpointError(f"{source} is {_shown(value)}, and {kind} is expected")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
