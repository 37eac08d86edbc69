"""What every record can do: read its JSON and check it, write it, and be the dictionary it was.

An `Entry` is a frozen dataclass. Its fields are the keys of a JSON object, in their order; types
say what is read, docstrings what it means, with units. Metrics are fractions of 1, as everywhere.
A `Record` is an entry that a verb returns or a file holds. For a while it is also the dictionary
that version 0.1.0 returned: `result["top1"]` works, and warns that `result.top1` is meant.
`json.dumps(result)` gives what `--json` prints.
"""

import dataclasses
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Self

from alexnet.errors import CheckpointError

REMOVAL = "0.3"  # the version in which records are no dictionaries any more
LARGEST = 2**63  # beyond which neither numpy nor a float takes every integer
_ABSENT = "_absent"  # the fields that were not in what an entry was read from
_SCALARS = {str, int, float, bool, type(None)}


def optional(key: str = "") -> Any:
    """A field that is None where it does not apply, and is then left out of the JSON.

    `key` is its name in JSON, where that differs from the field's.
    """
    return field(default=None, metadata={"omit": True, "key": key})


def keyed(key: str) -> Any:
    """A field whose name in JSON is no name of a field, or one that dictionaries have."""
    return field(metadata={"key": key})


def apart() -> Any:
    """A field that goes with a record and does not stand in its JSON."""
    return field(default=None, metadata={"apart": True})


class Misfit(Exception):
    """A value that is not what a field holds. `path` leads to it, as rows[2].name."""

    def __init__(self, value: object, expected: str, path: str = "") -> None:
        super().__init__(value, expected, path)
        self.value, self.expected, self.path = value, expected, path

    def inside(self, outer: str) -> "Misfit":
        joint = "" if not self.path or self.path.startswith("[") else "."
        return type(self)(self.value, self.expected, f"{outer}{joint}{self.path}")

    def __str__(self) -> str:
        return f"{self.path or 'it'} is {self.value!r:.40}, expected {self.expected}"


class Lacking(Misfit):
    """A key that is not there; `path` leads to it."""

    def __str__(self) -> str:
        return f"lacks {self.path!r}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Typed fields that are read from JSON and written to it. Subclasses are frozen dataclasses."""

    derived_first: ClassVar[bool] = False  # whether a subclass's own fields precede its base's

    def to_json(self) -> dict[str, Any]:
        """Plain data in the order of the fields, ready for JSON; optional fields that are None are
        left out."""
        found = {}
        absent = vars(self).get(_ABSENT, ())
        for f in _plan(type(self)):
            value = getattr(self, f.name)
            if f.name not in absent and (value is not None or not f.omit):
                found[f.key] = plain(value)
        return found

    def by_field(self) -> dict[str, Any]:
        """The values by the names of their fields, to make another record with."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: object, source: str) -> Self:
        """The inverse of `to_json`. Keys that no field has, as of later versions, are passed over.

        Raises CheckpointError, which names `source`, the key and what was expected.
        """
        try:
            return cls.read(values)
        except Lacking as misfit:
            raise CheckpointError(f"{source} {misfit}") from None
        except Misfit as misfit:
            raise CheckpointError(f"{source}: {misfit}") from None

    @classmethod
    def read(cls, values: object) -> Self:
        """The same; raises Misfit, which whoever knows the source makes a message of."""
        if not isinstance(values, Mapping):
            raise Misfit(values, "an object")
        table = dict(values) if isinstance(values, Record) else values  # which would warn
        given = {}
        for f in _plan(cls):
            if f.key in table:
                try:
                    given[f.name] = f.reader()(table[f.key])
                except Misfit as misfit:
                    raise misfit.inside(f.key) from None
            elif f.required:
                raise Lacking(None, "", f.key)
        entry = cls(**given)
        _leave_out(entry, {f.name for f in _plan(cls)} - given.keys())
        return entry


@dataclass(frozen=True, kw_only=True)
class Record(Entry, dict[str, Any]):
    """An entry that is handed out: the result of a verb, a file of a run, a line of its log."""

    def __post_init__(self) -> None:
        dict.update(self, self.to_json())

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        _warn(self, key, f"[{key!r}]")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        _warn(self, key, f".get({key!r})")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        _warn(self, key, f"[{key!r}] = ..., through dataclasses.replace,")
        super().__setitem__(key, value)
        if (name := _name(type(self), key)) is not None:
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(vars(self)))


def _rebuild(record: type[Record], given: dict[str, Any]) -> Record:
    absent = given.pop(_ABSENT, set())
    made = record(**given)
    _leave_out(made, absent)
    return made


def _leave_out(entry: Entry, absent: Set[str]) -> None:
    """What an earlier version left out of a file is not written either."""
    if absent:
        vars(entry)[_ABSENT] = absent
        if isinstance(entry, Record):
            dict.clear(entry)
            dict.update(entry, entry.to_json())


def _warn(record: Record, key: str, written: str) -> None:
    warnings.warn(
        f"{type(record).__name__} is an object: write .{_name(type(record), key) or key} for "
        f"{written} which goes with version {REMOVAL}",
        DeprecationWarning,
        stacklevel=3,
    )


def _name(record: type[Record], key: str) -> str | None:
    return next((f.name for f in _plan(record) if f.key == key), None)


@dataclass(frozen=True)
class _Field:
    """How one field is read and written."""

    name: str
    key: str
    omit: bool
    required: bool
    hint: Any

    def reader(self) -> Callable[[Any], Any]:
        return _reader(self.hint)


_plans: dict[Any, tuple[_Field, ...]] = {}


def _plan(entry: type[Entry]) -> tuple[_Field, ...]:
    """The fields of a class in the order of their keys."""
    if entry in _plans:
        return _plans[entry]
    hints = typing.get_type_hints(entry)
    known = {f.name: f for f in dataclasses.fields(entry) if not f.metadata.get("apart")}
    names = list(known)
    if entry.derived_first:
        own = [n for c in entry.__mro__ for n in inspect.get_annotations(c) if n in known]
        names = list(dict.fromkeys(own))
    missing = dataclasses.MISSING
    _plans[entry] = tuple(
        _Field(
            name,
            known[name].metadata.get("key") or name,
            bool(known[name].metadata.get("omit")),
            known[name].default is missing and known[name].default_factory is missing,
            hints[name],
        )
        for name in names
    )
    return _plans[entry]


def plain(value: Any) -> Any:
    """Entries, mappings and sequences as what JSON has: objects and lists."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Entry):
        return value.to_json()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(v) for v in value]
    return value


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """What turns a JSON value into a field of this type, or raises Misfit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin in (typing.Union, types.UnionType):
        return _read_one_of([_reader(one) for one in inner if one is not type(None)],
                            type(None) in inner)  # fmt: skip
    if origin is Literal:
        words = " or ".join(map(str, inner))
        return _checked(lambda value: value in inner, words)
    if isinstance(hint, type) and issubclass(hint, Entry):
        return hint.read
    if origin is tuple and inner[-1] is not Ellipsis:
        return _read_tuple([_reader(one) for one in inner])
    if origin in (tuple, Sequence):
        return _read_sequence(_reader(inner[0]))
    if origin is Mapping:
        return _read_mapping(_reader(inner[1]), inner[1] in (int, float))
    if hint is bool:
        return _checked(lambda value: isinstance(value, bool), "true or false")
    if hint is float:
        return _checked(_is_number, "a number")
    if hint is int:
        return _checked(lambda value: type(value) is int and _is_number(value), "a whole number")
    if hint is str:
        return _checked(lambda value: isinstance(value, str), "text")
    raise TypeError(f"no JSON is read as {hint}")


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def _checked(fits: Callable[[Any], bool], expected: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not fits(value):
            raise Misfit(value, expected)
        return value

    return read


def _read_one_of(readers: Sequence[Callable[[Any], Any]], null: bool) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value is None and null:
            return None
        misfits = []
        for reader in readers:
            try:
                return reader(value)
            except Misfit as misfit:
                misfits.append(misfit)
        if any(misfit.path for misfit in misfits):  # the last that fits so far says where not
            raise misfits[-1]
        raise Misfit(value, " or ".join(dict.fromkeys(m.expected for m in misfits)))

    return read


def _read_tuple(readers: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise Misfit(value, f"a list of {len(readers)}")
        return tuple(_read_item(r, value, i) for i, r in enumerate(readers))

    return read


def _read_sequence(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Misfit(value, "a list")
        return tuple(_read_item(reader, value, i) for i in range(len(value)))

    return read


def _read_item(reader: Callable[[Any], Any], values: Sequence[Any], i: int) -> Any:
    try:
        return reader(values[i])
    except Misfit as misfit:
        raise misfit.inside(f"[{i}]") from None


def _read_mapping(reader: Callable[[Any], Any], numbers: bool) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(value, "numbers by name" if numbers else "an object")
        found = {}
        for key, inner in value.items():
            try:
                found[key] = reader(inner)
            except Misfit as misfit:
                raise misfit.inside(f"[{key!r}]") from None
        return found

    return read
