"""What `alexnet recipes` returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from alexnet.errors import CheckpointError, UsageError
from alexnet.recipe import Recipe
from alexnet.runs.records.base import Entry, Misfit, Record


@dataclass(frozen=True, kw_only=True)
class NamedThing(Entry):
    """A recipe or network: its `name`, and what it is (`about`)."""

    name: str
    about: str


@dataclass(frozen=True, kw_only=True)
class RecipeList(Record):
    """The `recipes` and networks (`models`) that there are."""

    recipes: Sequence[NamedThing]
    models: Sequence[NamedThing]


@dataclass(frozen=True, kw_only=True)
class RecipeDifference(Entry):
    """One thing that differs: `what` it is, what it is in the `first` and the `second`, as text,
    and where each comes from (`first_source`, `second_source`)."""

    what: str
    first: str
    second: str
    first_source: str
    second_source: str


@dataclass(frozen=True, kw_only=True)
class RecipeDifferences(Record):
    """The `differences` between the recipe or network `name` and the `other`."""

    name: str
    other: str
    differences: Sequence[RecipeDifference]


@dataclass(frozen=True, kw_only=True)
class LayerSummary(Entry):
    """A part of a network by `name`: the `shape` of its output without the batch, `parameters`,
    multiply-adds an image (`macs`), the side of what one output sees in input pixels
    (`receptive_field`), and what its weights start from: `distribution` (normal or uniform), `std`,
    and `bias` (one value, None where biases are drawn too). None where it has no weights."""

    name: str
    shape: Sequence[int]
    parameters: int
    macs: int
    receptive_field: int
    distribution: str | None
    std: float | None
    bias: float | None


@dataclass(frozen=True, kw_only=True)
class NetworkResult(Record):
    """A network, layer by layer.

    `about` says what it is, `model` is its name, `input` (channels, height, width) what it takes,
    `classes` how many it tells apart, `parameters` and `macs` (multiply-adds an image) how large it
    is. `layers` are its parts in order, `sources` say where its numbers come from.
    """

    about: str
    model: str
    input: Sequence[int]
    classes: int
    parameters: int
    macs: int
    layers: Sequence[LayerSummary]
    sources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RecipeResult(NetworkResult):
    """A `recipe`, whose fields stand one by one in the JSON, its `digest`, and its network."""

    recipe: Recipe
    digest: str

    def to_json(self) -> dict[str, Any]:
        network = super().to_json()
        for name in ("recipe", "digest", "about", "model"):
            del network[name]
        fields = {"about": self.about, **self.recipe.to_dict(), "digest": self.digest}
        return {**fields, **network}

    @classmethod
    def read(cls, values: object) -> Self:
        if not isinstance(values, Mapping):
            raise Misfit(values, "an object")
        table = dict(values)
        try:
            recipe = Recipe.from_dict({k: table[k] for k in Recipe().to_dict() if k in table})
        except (CheckpointError, UsageError) as error:
            raise Misfit(table, f"a recipe ({error})") from None
        network = NetworkResult.read(table)
        return cls(**network.by_field(), recipe=recipe, digest=str(table.get("digest", "")))
