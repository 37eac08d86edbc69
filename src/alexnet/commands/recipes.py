"""alexnet recipes: what there is, one of it whole, or what differs between two."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from alexnet.errors import UsageError, did_you_mean
from alexnet.models import MODELS, RETIRED, find_model, model_spec
from alexnet.models.compare import Difference, compare_presets
from alexnet.models.net import Preset, summarize, with_dropout
from alexnet.recipe import RECIPES, RECORD, SUFFIX, TRAINING, Recipe, find_recipe, source_of
from alexnet.records import (
    LayerSummary,
    NetworkResult,
    RecipeDifference,
    RecipeDifferences,
    RecipeList,
    RecipeListItem,
    RecipeResult,
)
from alexnet.support.argument_checks import Range, checked
from alexnet.support.options import Placeholder, call, option

_APART = ("name", "about", "model")  # what a recipe is called, and what is compared by itself
_BIASES = {"bias_lr": "biases' learning rate", "decay_biases": "decay on biases"}


@checked(classes=Range(high=10**6))
def recipes(
    name: str | Path | None = None, *, diff: str | Path | None = None, classes: int | None = None
) -> RecipeList | RecipeDifferences | RecipeResult | NetworkResult:
    """All recipes and networks, one whole, or what differs between `name` and `diff`.

    Returns a RecipeList; of a recipe a RecipeResult, its fields and its network layer by layer (for
    `classes` classes); of a network a NetworkResult; of two RecipeDifferences. Of a network alone,
    what its biases learn at is of the recipe it was trained with, where it has one.
    """
    name, diff = (str(one) if isinstance(one, Path) else one for one in (name, diff))
    if classes is not None and classes < 2:
        raise UsageError(f"{classes} class cannot be told apart from anything: give at least 2")
    if name is None:
        if diff is not None:
            raise UsageError(
                f"{option('diff')} needs two: `{call('recipes', Placeholder('NAME'), diff=diff)}`"
            )
        return RecipeList(
            recipes=[RecipeListItem(name=n, about=make().about) for n, make in RECIPES.items()],
            models=[RecipeListItem(name=n, about=preset.about) for n, preset in MODELS.items()],
        )
    if diff is not None:
        differing = _differences(name, diff, classes)
        differences = [RecipeDifference(**asdict(d)) for d in differing]
        return RecipeDifferences(name=name, other=diff, differences=differences)
    recipe, model = _find(name)
    preset = find_model(model)
    classes = classes or preset.classes
    side = recipe.crop if recipe else preset.size
    shape = (recipe.channels if recipe else preset.channels, side, side)
    rows = summarize(model_spec(model, classes, shape), shape)
    network = NetworkResult(
        about=recipe.about if recipe else preset.about,
        model=model,
        input=shape,
        classes=classes,
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        layers=[LayerSummary(**asdict(row)) for row in rows],
        sources=preset.sources,
    )
    if recipe is None:
        return network
    return RecipeResult(**network.by_field(), recipe=recipe, digest=recipe.digest)


def _find(name: str) -> tuple[Recipe | None, str]:
    """A recipe (of a file, .toml or .json) and its network, or a network alone."""
    if name in RECIPES or name.endswith((RECORD, SUFFIX)):
        recipe = find_recipe(name)
        return recipe, recipe.model
    if name in MODELS or name in RETIRED:
        return None, name
    near = did_you_mean(name, [*RECIPES, *MODELS], call("recipes"))
    raise UsageError(f"no recipe or network {name!r}{near}")


def _differences(name: str, other: str, classes: int | None) -> list[Difference]:
    (first, model), (second, twin) = _find(name), _find(other)
    presets = _as_used(first, model), _as_used(second, twin)
    differing = compare_presets(*presets, classes or max(p.classes for p in presets))
    if first is not None and second is not None:
        mine, theirs = first.to_dict(), second.to_dict()
        fields = [
            Difference(
                key,
                _text(mine[key]),
                _text(theirs[key]),
                source_of(name, key),
                source_of(other, key),
            )
            for key in mine
            if key not in _APART and mine[key] != theirs[key]
        ]
        return fields + differing
    return differing + _biases((first, name, model), (second, other, twin))


def _as_used(recipe: Recipe | None, model: str) -> Preset:
    """The network with the recipe's input and dropout."""
    preset = find_model(model)
    if recipe is None:
        return preset
    return replace(
        preset,
        spec=lambda classes: with_dropout(preset.spec(classes), recipe.dropout),
        size=recipe.crop,
        channels=recipe.channels,
    )


def _biases(*sides: tuple[Recipe | None, str, str]) -> list[Difference]:
    """How the biases are trained, where a network is asked for alone. A side is (recipe, its name,
    network)."""
    recipes = [r or (find_recipe(TRAINING[m]) if m in TRAINING else None) for r, _, m in sides]
    if any(recipe is None for recipe in recipes):
        return []
    rows = []
    for key, what in _BIASES.items():
        first, second = (_text(getattr(recipe, key)) for recipe in recipes)
        sources = (
            source_of(name, key) if recipe else find_model(model).sources["biases"]
            for recipe, name, model in sides
        )
        if first != second:
            rows.append(Difference(what, first, second, *sources))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return (
        f"{value:g}" if isinstance(value, float) else "none" if value in (None, "") else str(value)
    )
