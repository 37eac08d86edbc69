"""Base classes of records: dataclasses that read, check and write their JSON.

An `Entry` is a frozen dataclass whose fields are the keys of a JSON object, in the same order. The
type of a field is checked when it is read; docstrings give meanings and units. Metrics are
fractions of 1.

A `Record` is an entry that a verb returns or a file contains. Version 0.1.0 returned dictionaries,
so a record is also a dictionary until DICT_REMOVAL: `result["top1"]` works, and warns that
`result.top1` replaces it. `json.dumps(result)` gives the output of `--json`.
"""

import dataclasses
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Self

from alexnet.errors import CheckpointError

DICT_REMOVAL = "0.3"  # the version in which records stop being dictionaries
INT_LIMIT = 2**63  # integers of this size or more do not fit into numpy's int64
_ABSENT = "_absent"  # attribute of an entry: names of the fields that its JSON did not have
_SCALARS = {str, int, float, bool, type(None)}


def optional(key: str = "") -> Any:
    """A field that is None where it does not apply, and is then omitted from the JSON.

    `key` is its JSON key, where that differs from the name of the field.
    """
    return field(default=None, metadata={"omit_none": True, "key": key})


def json_key(key: str) -> Any:
    """A field whose JSON key is a Python keyword or the name of a dictionary's method."""
    return field(metadata={"key": key})


def not_in_json() -> Any:
    """A field of a record that is not part of its JSON."""
    return field(default=None, metadata={"not_in_json": True})


class Misfit(Exception):
    """A JSON value does not fit its field. `path` leads to it, as in rows[2].name."""

    def __init__(self, value: object, expected: str, path: str = "") -> None:
        super().__init__(value, expected, path)
        self.value, self.expected, self.path = value, expected, path

    def with_prefix(self, outer: str) -> "Misfit":
        """The same misfit, with its path seen from the object that contains it under `outer`."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return type(self)(self.value, self.expected, f"{outer}{joint}{self.path}")

    def __str__(self) -> str:
        return f"{self.path or 'it'} is {self.value!r:.40}, expected {self.expected}"


class MissingKey(Misfit):
    """A required key is missing; `path` leads to it."""

    def __str__(self) -> str:
        return f"lacks {self.path!r}"


class OtherFormat(Misfit):
    """A file is of another format, `value`, than this version reads."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Typed fields that are read from JSON and written to it. Subclasses are frozen dataclasses."""

    derived_first: ClassVar[bool] = False  # whether the JSON has a subclass's own fields first

    def to_json(self) -> dict[str, Any]:
        """Plain data in the order of the fields, ready for JSON, without the optional fields that
        are None."""
        values = {}
        absent = vars(self).get(_ABSENT, ())
        for f in _json_fields(type(self)):
            value = getattr(self, f.name)
            if f.name not in absent and (value is not None or not f.omit_none):
                values[f.key] = to_plain(value)
        return values

    def by_field(self) -> dict[str, Any]:
        """The values by the names of their fields, as arguments for another record."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: object, source: str) -> Self:
        """The inverse of `to_json`. Unknown keys, as later versions may write, are ignored.

        Raises CheckpointError, which names `source`, the key and what was expected.
        """
        try:
            return cls.read(values)
        except MissingKey as misfit:
            raise CheckpointError(f"{source} {misfit}") from None
        except Misfit as misfit:
            raise CheckpointError(f"{source}: {misfit}") from None

    @classmethod
    def read(cls, values: object) -> Self:
        """Like `from_json`, for a caller that words the error: raises Misfit."""
        if not isinstance(values, Mapping):
            raise Misfit(values, "an object")
        table = dict(values) if isinstance(values, Record) else values  # reading a Record warns
        arguments = {}
        for f in _json_fields(cls):
            if f.key in table:
                try:
                    arguments[f.name] = f.reader()(table[f.key])
                except Misfit as misfit:
                    raise misfit.with_prefix(f.key) from None
            elif f.required:
                raise MissingKey(None, "", f.key)
        entry = cls(**arguments)
        _note_absent(entry, {f.name for f in _json_fields(cls)} - arguments.keys())
        return entry


@dataclass(frozen=True, kw_only=True)
class Record(Entry, dict[str, Any]):
    """An entry that stands alone: the result of a verb, a file of a run, a line of its log."""

    def __post_init__(self) -> None:
        dict.update(self, self.to_json())

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        _warn(self, f"[{key!r}]", f".{_field_name(type(self), key) or key}")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        _warn(self, f".get({key!r})", f".{_field_name(type(self), key) or key}")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        _warn(self, f"[{key!r}] = ...", "dataclasses.replace")
        self._set(key, value)

    def __delitem__(self, key: str) -> None:
        _warn(self, f"del [{key!r}]", "to_json() for a dictionary of your own")
        self._remove(key)

    def pop(self, key: str, *default: Any) -> Any:
        _warn(self, f".pop({key!r})", "to_json() for a dictionary of your own")
        if key not in self and default:
            return default[0]
        return self._remove(key)

    def popitem(self) -> tuple[str, Any]:
        _warn(self, ".popitem()", "to_json() for a dictionary of your own")
        key = list(self)[-1]
        return key, self._remove(key)

    def clear(self) -> None:
        _warn(self, ".clear()", "to_json() for a dictionary of your own")
        for key in list(self):
            self._remove(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        _warn(self, f".setdefault({key!r})", "to_json() for a dictionary of your own")
        if key not in self:
            self._set(key, default)
        return super().__getitem__(key)

    def update(self, *others: Any, **values: Any) -> None:
        _warn(self, ".update(...)", "dataclasses.replace")
        for key, value in dict(*others, **values).items():
            self._set(key, value)

    def values(self) -> Any:
        _warn(self, ".values()", "to_json() for a dictionary")
        return super().values()

    def __or__(self, other: Any) -> Any:
        _warn(self, " | ...", "to_json() for a dictionary")
        return super().__or__(other)

    def __ror__(self, other: Any) -> Any:
        _warn(self, "... | ", "to_json() for a dictionary")
        return super().__ror__(other)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        _warn(self, " |= ...", "dataclasses.replace")
        for key, value in dict(other).items():
            self._set(key, value)
        return self

    def _set(self, key: str, value: Any) -> None:
        """Sets a key and its field, so that both say the same."""
        super().__setitem__(key, value)
        if (name := _field_name(type(self), key)) is not None:
            object.__setattr__(self, name, value)
            vars(self)[_ABSENT] = set(vars(self).get(_ABSENT, ())) - {name}

    def _remove(self, key: str) -> Any:
        """Removes a key; its field is left out by `to_json` too."""
        value = super().pop(key)
        if (name := _field_name(type(self), key)) is not None:
            vars(self)[_ABSENT] = {*vars(self).get(_ABSENT, ()), name}
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(vars(self)))


@dataclass(frozen=True, kw_only=True)
class Versioned(Record):
    """A file whose first key is the number of its `format`: FORMAT, or it is not read."""

    FORMAT: ClassVar[int] = 1

    format: int

    @classmethod
    def read(cls, values: object) -> Self:
        """Like `Entry.read`, and raises OtherFormat for a file of another format."""
        written = values.get("format") if isinstance(values, Mapping) else None
        if written != cls.FORMAT:
            raise OtherFormat(written, str(cls.FORMAT), "format")
        return super().read(values)


def _rebuild(kind: type[Record], attributes: dict[str, Any]) -> Record:
    """A record from its pickled attributes."""
    absent = attributes.pop(_ABSENT, set())
    record = kind(**attributes)
    _note_absent(record, absent)
    return record


def _note_absent(entry: Entry, absent: Set[str]) -> None:
    """Notes the fields that a file of an earlier version did not have, so that `to_json` omits
    them too."""
    if absent:
        vars(entry)[_ABSENT] = absent
        if isinstance(entry, Record):
            dict.clear(entry)
            dict.update(entry, entry.to_json())


def _warn(record: Record, access: str, replacement: str) -> None:
    """Warns of `access` to a record as to a dictionary."""
    warnings.warn(
        f"{type(record).__name__} is an object: {access} stops working in version {DICT_REMOVAL}, "
        f"use {replacement}",
        DeprecationWarning,
        stacklevel=3,
    )


def _field_name(record: type[Record], key: str) -> str | None:
    return next((f.name for f in _json_fields(record) if f.key == key), None)


@dataclass(frozen=True)
class _JsonField:
    """How one field of an entry is read and written."""

    name: str
    key: str
    omit_none: bool
    required: bool
    hint: Any

    def reader(self) -> Callable[[Any], Any]:
        return _reader(self.hint)


_JSON_FIELDS: dict[Any, tuple[_JsonField, ...]] = {}  # by class


def _json_fields(entry: type[Entry]) -> tuple[_JsonField, ...]:
    """The fields of a class in the order of their keys."""
    if entry not in _JSON_FIELDS:
        _JSON_FIELDS[entry] = tuple(_collect_json_fields(entry))
    return _JSON_FIELDS[entry]


def _collect_json_fields(entry: type[Entry]) -> Iterator[_JsonField]:
    hints = typing.get_type_hints(entry)
    by_name = {f.name: f for f in dataclasses.fields(entry) if not f.metadata.get("not_in_json")}
    names = list(by_name)
    if entry.derived_first:
        annotated = [n for c in entry.__mro__ for n in inspect.get_annotations(c) if n in by_name]
        names = list(dict.fromkeys(annotated))
    missing = dataclasses.MISSING
    for name in names:
        f = by_name[name]
        yield _JsonField(
            name=name,
            key=f.metadata.get("key") or name,
            omit_none=bool(f.metadata.get("omit_none")),
            required=f.default is missing and f.default_factory is missing,
            hint=hints[name],
        )


def to_plain(value: Any) -> Any:
    """Entries and mappings become dictionaries, sequences become lists: what JSON has."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Entry):
        return value.to_json()
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [to_plain(v) for v in value]
    return value


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """The function that turns a JSON value into a field of this type, or raises Misfit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin in (typing.Union, types.UnionType):
        readers = [_reader(one) for one in inner if one is not type(None)]
        return _union_reader(readers, type(None) in inner)
    if origin is Literal:
        words = " or ".join(map(str, inner))
        return _checking_reader(lambda value: value in inner, words)
    if isinstance(hint, type) and issubclass(hint, Entry):
        return hint.read
    if origin is tuple and inner[-1] is not Ellipsis:
        return _tuple_reader([_reader(one) for one in inner])
    if origin in (tuple, Sequence):
        return _sequence_reader(_reader(inner[0]))
    if origin is Mapping:
        return _mapping_reader(_reader(inner[1]), inner[1] in (int, float))
    if hint is bool:
        return _checking_reader(lambda value: isinstance(value, bool), "true or false")
    if hint is float:
        return _checking_reader(_is_number, "a number")
    if hint is int:
        return _checking_reader(_is_whole, "a whole number")
    if hint is str:
        return _checking_reader(lambda value: isinstance(value, str), "text")
    raise TypeError(f"no JSON is read as {hint}")


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < INT_LIMIT)


def _is_whole(value: Any) -> bool:
    return type(value) is int and _is_number(value)


def _checking_reader(fits: Callable[[Any], bool], expected: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not fits(value):
            raise Misfit(value, expected)
        return value

    return read


def _union_reader(readers: Sequence[Callable[[Any], Any]], null: bool) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value is None and null:
            return None
        misfits = []
        for reader in readers:
            try:
                return reader(value)
            except Misfit as misfit:
                misfits.append(misfit)
        if any(misfit.path for misfit in misfits):  # a path is more help than a list of types
            raise misfits[-1]
        raise Misfit(value, " or ".join(dict.fromkeys(m.expected for m in misfits)))

    return read


def _tuple_reader(readers: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise Misfit(value, f"a list of {len(readers)}")
        return tuple(_read_item(r, value, i) for i, r in enumerate(readers))

    return read


def _sequence_reader(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Misfit(value, "a list")
        return tuple(_read_item(reader, value, i) for i in range(len(value)))

    return read


def _read_item(reader: Callable[[Any], Any], values: Sequence[Any], i: int) -> Any:
    try:
        return reader(values[i])
    except Misfit as misfit:
        raise misfit.with_prefix(f"[{i}]") from None


def _mapping_reader(reader: Callable[[Any], Any], numbers: bool) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(value, "numbers by name" if numbers else "an object")
        entries = {}
        for key, inner in value.items():
            try:
                entries[key] = reader(inner)
            except Misfit as misfit:
                raise misfit.with_prefix(f"[{key!r}]") from None
        return entries

    return read
