"""Records: what the verbs return as types, as JSON, and as the dictionaries that they were."""

import copy
import json
import pickle
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import pytest

import alexnet
import alexnet.records as records
from alexnet.cli import main
from alexnet.errors import CheckpointError
from alexnet.recipe import Recipe
from alexnet.records import (
    CheckpointManifest,
    ClassProbability,
    ConfusionResult,
    DataCard,
    Entry,
    EvalResult,
    ImageNeighbours,
    Int8Ranges,
    OtherEvent,
    RecipeResult,
    Record,
    TestEvent,
    TestResult,
    Versioned,
    read_event,
)

ENTRIES = sorted(
    (
        kind
        for kind in vars(records).values()
        if isinstance(kind, type) and issubclass(kind, Entry) and kind not in (Entry, Record)
    ),
    key=lambda kind: kind.__name__,
)


def example(hint: Any) -> Any:
    """A value that a field of this type holds."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return example(inner[0])
    if origin is Literal:
        return inner[0]
    if isinstance(hint, type) and issubclass(hint, Entry):
        return made(hint)
    if origin is tuple:
        return tuple(example(one) for one in inner)
    if origin is Sequence:
        return (example(inner[0]),)
    if origin is Mapping:
        return {"a name": example(inner[1])}
    return {str: "text", int: 3, float: 0.5, bool: True, Recipe: Recipe(name="a"), Any: 1}[hint]


def made(kind: type[Entry], **given: Any) -> Any:
    """A record with something in every field."""
    if kind is RecipeResult:  # which has these twice
        given = {name: getattr(Recipe(name="a"), name) for name in ("about", "model")} | given
    if kind is CheckpointManifest:
        return CheckpointManifest.of(3, {"a name": b"its bytes"})
    hints = typing.get_type_hints(kind)
    if issubclass(kind, Versioned):
        given = {"format": kind.FORMAT} | given
    if issubclass(kind, Int8Ranges):
        given = {"sha256": kind.digest(example(hints["ranges"]))} | given
    if kind is OtherEvent:
        given = {"line": {"event": "text", "step": 3}} | given
    if kind is DataCard:
        given = {"classes": ("a", "b"), "run": None} | given  # where it was read is in no JSON
    return kind(**{f.name: example(hints[f.name]) for f in fields(kind)} | given)


@pytest.mark.parametrize("kind", ENTRIES, ids=lambda kind: kind.__name__)
def test_records_are_read_as_they_were_written(kind: type[Entry]) -> None:
    record = made(kind)
    text = json.dumps(record.to_json())
    read = kind.from_json(json.loads(text), "a file")
    assert read == record
    assert json.dumps(read.to_json()) == text
    later = {**json.loads(text), "of a later version": 1}
    if kind not in (ImageNeighbours, OtherEvent):  # which pass over nothing
        assert kind.from_json(later, "a file") == record


@pytest.mark.parametrize("kind", ENTRIES, ids=lambda kind: kind.__name__)
def test_every_field_is_documented(kind: type[Entry]) -> None:
    """In the docstring of its class, or of the class that it is from: what it is, and its unit."""
    hints = typing.get_type_hints(kind)
    said = " ".join(one.__doc__ or "" for one in kind.__mro__ if issubclass(one, Entry))
    for f in fields(kind):
        literal = typing.get_origin(hints[f.name]) is Literal  # what it is stands in the type
        assert f"`{f.name}`" in said or literal, f.name


def test_a_record_refuses_what_does_not_fit() -> None:
    good = made(EvalResult).to_json()
    for change, said in (
        ({"n": "9"}, "n is '9', expected a whole number"),
        ({"n": 2**63}, f"n is {2**63}, expected a whole number"),
        ({"loss": True}, "loss is True, expected a number"),
        ({"top1_ci95": [0.1]}, "top1_ci95 is [0.1], expected a list of 2"),
        ({"top1_ci95": [0.1, "x"]}, "top1_ci95[1] is 'x', expected a number"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(f"file.json: {said}")):
            EvalResult.from_json({**good, **change}, "file.json")
    del good["loss"]
    with pytest.raises(CheckpointError, match=re.escape("file.json lacks 'loss'")):
        EvalResult.from_json(good, "file.json")
    with pytest.raises(CheckpointError, match="it is 3, expected an object"):
        EvalResult.from_json(3, "file.json")
    rows = made(TestResult).to_json()
    rows["per_class"][0]["right"] = None
    with pytest.raises(CheckpointError, match=re.escape("per_class[0].right is None")):
        TestResult.from_json(rows, "file.json")
    del rows["per_class"][0]["right"]
    with pytest.raises(CheckpointError, match=re.escape("lacks 'per_class[0].right'")):
        TestResult.from_json(rows, "file.json")


def test_fields_that_do_not_apply_are_left_out() -> None:
    few = replace(made(EvalResult), top5=None, top5_ci95=None)
    assert few.to_json()["top5"] is None
    assert "top5_ci95" not in few.to_json()
    assert EvalResult.from_json(few.to_json(), "a file") == few


def test_what_an_earlier_version_left_out_stays_out() -> None:
    line = {"event": "test", "n": 3, "loss": 0.5, "split": "test", "views": 1, "top1": None}
    event = read_event(line, "a line")
    assert isinstance(event, TestEvent)
    assert (event.seen, event.engine, event.top1) == (None, "torch", None)
    assert dict(event) == event.to_json() == {k: v for k, v in line.items() if k != "top1"}
    assert dict(pickle.loads(pickle.dumps(event))) == dict(event)
    assert replace(event, seen=0).to_json()["seen"] == 0


def test_what_is_looked_at_comes_before_where_it_comes_from() -> None:
    keys = list(made(ConfusionResult).to_json())
    assert keys[:3] == ["what", "split", "per_class"]
    assert keys.index("top5") < keys.index("run") < keys.index("absent")
    assert "seen" not in made(ConfusionResult, data=None).to_json()
    assert made(ConfusionResult, seen=None).to_json()["seen"] is None


def test_a_recipe_stands_field_by_field_in_its_json() -> None:
    found = made(RecipeResult).to_json()
    assert found["lr"] == Recipe().lr
    assert "recipe" not in found


def test_a_record_is_still_the_dictionary_that_it_was() -> None:
    record = made(ClassProbability, class_name="seven")
    with pytest.warns(DeprecationWarning, match=r"\['class'\] stops working .* use \.class_name"):
        assert record["class"] == "seven"
    with pytest.warns(DeprecationWarning, match=r"\.get\('index'\) stops working .* use \.index"):
        assert record.get("index") == 3
    assert record.get("no key", 5) == 5
    with pytest.raises(KeyError):
        record["no key"]
    assert {**record} == dict(record) == record.to_json() == record
    assert json.dumps(record) == json.dumps(record.to_json())
    with pytest.warns(DeprecationWarning, match=r"dataclasses\.replace"):
        record["class"] = "eight"
    assert record.class_name == dict(record)["class"] == "eight"
    with pytest.raises(FrozenInstanceError):
        record.index = 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.update({"index": 7}, probability=0.5), {"index": 7, "probability": 0.5}),
        (lambda r: r.__ior__({"index": 7}), {"index": 7}),
        (lambda r: r.setdefault("index", 7), {"index": 3}),
        (lambda r: r.pop("index"), {"index": None}),
        (lambda r: r.__delitem__("index"), {"index": None}),
        (lambda r: r.pop("no key", 5), {}),
        (lambda r: r.popitem(), {}),
        (lambda r: r.clear(), {"class": None, "index": None}),
        (lambda r: r.values(), {}),
        (lambda r: r | {"x": 1}, {}),
        (lambda r: {"x": 1} | r, {}),
    ],
)
def test_a_change_as_to_a_dictionary_warns_and_changes_both_faces(
    change: Callable[[Any], object], expected: dict[str, Any]
) -> None:
    record = made(ClassProbability, class_name="seven")
    with pytest.warns(DeprecationWarning, match=r"stops working in version"):
        change(record)
    assert record.to_json() == dict(record)
    assert json.loads(json.dumps(record)) == dict(record)
    for key, value in expected.items():
        assert dict(record).get(key) == value
    assert dict(pickle.loads(pickle.dumps(record))) == dict(record)


def test_records_are_copied_whole() -> None:
    record = made(TestResult)
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert dict(other) == dict(record)
        assert type(other) is TestResult


def test_the_verbs_return_what_they_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = alexnet.recipes("digits", classes=3)
    assert main(["recipes", "digits", "--classes", "3", "--json"]) == 0
    assert capsys.readouterr().out == json.dumps(result) + "\n"
    assert isinstance(result, RecipeResult)
    assert (result.classes, result.recipe.name) == (3, "digits")
    claims = alexnet.claim(out=tmp_path)
    assert main(["claim", "--out", str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().out == json.dumps(claims) + "\n"


VERBS = set(alexnet.__all__) - {"Predictor", "build_model", "diagnose", "load", "response_norm"}


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_says_what_it_returns(name: str) -> None:
    """As records, so that an editor completes their fields."""
    hint = typing.get_type_hints(getattr(alexnet, name), vars(records))["return"]
    kinds = typing.get_args(hint) or (hint,)
    assert all(isinstance(kind, type) and issubclass(kind, Record) for kind in kinds)
