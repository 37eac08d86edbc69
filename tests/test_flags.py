"""Every field of a recipe as the words of a command line, and back."""

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import UsageError
from alexnet.flags import flags_of
from alexnet.recipe import Recipe
from alexnet.recipebook import RECIPES, find_recipe
from alexnet.verbs import make_parser

NAMES = st.sampled_from(sorted(RECIPES))
VALUES: dict[str, Any] = {
    "str": st.text("abcxyz019", min_size=1, max_size=5),
    "parts": st.lists(st.sampled_from(["conv1", "conv2..conv4"]), max_size=2).map(tuple),
    "rates": st.sampled_from([(), ("fc8=10",), ("conv1=0.1@67", "fc8=2")]),
    "drops": st.sampled_from([(), (1.0,), (2.5, 7.0)]),
}


def values_of(name: str, hint: Any) -> Any:
    """Values that a field may have, of which some are refused beside others."""
    if name in ("freeze", "part_lr", "drops", "name", "model"):
        kinds = {"freeze": "parts", "part_lr": "rates", "drops": "drops"}
        return VALUES[kinds.get(name, "str")]
    words = str(hint)
    if "Literal" in words:
        return st.sampled_from(hint.__args__)
    if hint is bool:
        return st.booleans()
    number: Any = st.integers(0, 9) if "int" in words else st.floats(0, 2, width=32)
    return st.none() | number if "None" in words else number


PARSER = make_parser()
HINTS = {k: v for k, v in Recipe.__annotations__.items() if k not in ("about", "data")}


@given(NAMES, st.data())
@settings(max_examples=200)
def test_every_field_has_a_flag_that_gives_it_back(name: str, data: st.DataObject) -> None:
    """Any recipe made of a named one, field by field, through the command line's own parser."""
    base = find_recipe(name)
    changed = base
    for field in data.draw(st.sets(st.sampled_from(sorted(HINTS)), min_size=1, max_size=6)):
        try:
            changed = changed.replace(**{field: data.draw(values_of(field, HINTS[field]))})
        except UsageError:  # a value that no recipe has, or not beside the others
            continue
    options = vars(PARSER.parse_args(["train", name, *flags_of(changed, base)]))
    fields = {key: value for key, value in options.items() if key in HINTS}
    back = find_recipe(name).adapted(fields)
    assert back.replace(keep=changed.keep, workers=changed.workers) == changed
    assert back.digest == changed.digest


def test_every_field_is_tried() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(HINTS) == fields - {"about", "data"}
    tried = Recipe().replace(steps=None, dropout=None, freeze=(), drops=(), compile=False)
    assert flags_of(tried, tried.replace(steps=3, dropout=0.5, freeze=("conv1",))) == [
        "--dropout", "none", "--steps", "none", "--freeze",
    ]  # fmt: skip
