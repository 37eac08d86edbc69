"""Results of `alexnet recipes`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from alexnet.errors import CheckpointError, UsageError
from alexnet.recipe import Recipe
from alexnet.records.base import Entry, Misfit, Record


@dataclass(frozen=True, kw_only=True)
class RecipeListItem(Entry):
    """The `name` of a recipe or network, and a sentence `about` it."""

    name: str
    about: str


@dataclass(frozen=True, kw_only=True)
class RecipeList(Record):
    """All `recipes` and all networks (`models`)."""

    recipes: Sequence[RecipeListItem]
    models: Sequence[RecipeListItem]


@dataclass(frozen=True, kw_only=True)
class RecipeDifference(Entry):
    """One difference: the name of the setting (`what`), its values in the `first` and the `second`
    as text, and the origin of each value (`first_source`, `second_source`)."""

    what: str
    first: str
    second: str
    first_source: str
    second_source: str


@dataclass(frozen=True, kw_only=True)
class RecipeDifferences(Record):
    """The `differences` between two recipes or networks, `name` and `other`."""

    name: str
    other: str
    differences: Sequence[RecipeDifference]


@dataclass(frozen=True, kw_only=True)
class LayerSummary(Entry):
    """The part of a network called `name`.

    `shape` is that of its output, without the batch. `parameters` is a count, `macs` the number of
    multiply-adds for an image, `receptive_field` the side of the square of input pixels that one
    output depends on. Its initial weights have a `distribution` (normal or uniform) with standard
    deviation `std`, and its biases start at `bias`, None where they are random too. Without
    weights, these three are None.
    """

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

    `about` describes it in a sentence, `model` is its name, `input` its shape of input (channels,
    height, width). `classes`, `parameters` and `macs` (multiply-adds for an image) are counts.
    `layers` are its parts in order; `sources` say where its numbers come from.
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
    """A `recipe` with its `digest`, and its network. In JSON the fields of the recipe are keys."""

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
