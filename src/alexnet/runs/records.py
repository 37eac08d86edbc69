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


@dataclass(frozen=True)
class Pinned(Record):
    """A file or folder that is to be the same wherever it is read."""

    path: str  # where the first process reads it, as it was named
    sha256: str  # of the file; of a checkpoint that of its manifest


@dataclass(frozen=True)
class RunPlan(Record):
    """What every process of a training is to do.

    The first process makes it, having opened the data, claimed the folder of the run and measured
    what is chosen by measuring. All others get it once, and open the same data for themselves. With
    the same plan, data and number of processes a training has the same bits.
    """

    run: str  # folder of the run
    recipe: dict[str, Any]  # every field: precision and layout are settled
    data: dict[str, Any]  # as recipe.json has it: path, digest, classes, statistics, copies ...
    threads: int  # of each process
    doctor: Literal["stop", "say", "off"]  # what is done when it finds something
    tensorboard: bool
    signals: tuple[int, ...]  # that save and stop
    lines: tuple[str, ...]  # said before the first step
    choice: tuple[str, ...] = ()  # why it is this recipe, where it was chosen for the data
    settings: dict[str, Any] | None = None  # of a new run, for environment.json
    mean_image: str | None = None  # that images are less, packed as text
    init: Pinned | None = None  # weights that a new run starts from
    checkpoint: Pinned | None = None  # that a continued run goes on from
    resumed: dict[str, Any] | None = None  # line of the log that a continued run begins with


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
