"""alexnet recipes: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_verb
from alexnet.support.terminal import format_table

if TYPE_CHECKING:
    from alexnet.records import (
        NetworkResult,
        RecipeDifferences,
        RecipeList,
        RecipeResult,
    )


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "recipes", "List recipes and networks, print one whole, or compare two.", call, show
    )
    parser.add_argument("name", nargs="?", help="recipe or network to print")
    parser.add_argument("--diff", metavar="OTHER", help="print what differs from this one")
    parser.add_argument("--classes", type=int, help="print the network for so many classes")


def call(**options: Any) -> RecipeList | RecipeDifferences | RecipeResult | NetworkResult:
    from alexnet.commands.recipes import recipes

    return recipes(**options)


def show(r: RecipeList | RecipeDifferences | RecipeResult | NetworkResult) -> None:
    from alexnet.records import RecipeDifferences, RecipeList

    if isinstance(r, RecipeList):
        for kind, things in (("recipe", r.recipes), ("model", r.models)):
            print(format_table((kind, "what it is"), [(one.name, one.about) for one in things]))
            print()
    elif isinstance(r, RecipeDifferences):
        _show_differences(r)
    else:
        _show_network(r)


def _show_differences(r: RecipeDifferences) -> None:
    for d in r.differences:
        print(f"{d.what}")
        for name, value, source in (
            (r.name, d.first, d.first_source),
            (r.other, d.second, d.second_source),
        ):
            print(f"    {name}: {value}{f'  [{source}]' if source else ''}")
    print(f"{len(r.differences)} differences between {r.name} and {r.other}")


def _show_network(r: RecipeResult | NetworkResult) -> None:
    from alexnet.records import RecipeResult

    layers = [
        (
            row.name,
            "x".join(map(str, row.shape)),
            f"{row.parameters:,}",
            f"{row.macs:,}",
            "" if row.std is None else f"{row.distribution} {row.std:.4g}",
            "" if row.std is None else "drawn" if row.bias is None else f"{row.bias:g}",
            f"{row.receptive_field}",
        )
        for row in r.layers
    ]
    print(f"{r.about}\n")
    if isinstance(r, RecipeResult):
        fields = {**r.recipe.to_dict(), "digest": r.digest}
        del fields["about"]
        print(format_table(("field", "value"), [(k, str(v)) for k, v in fields.items()]))
        print()
    print(f"{r.model} for {r.classes} classes, input {'x'.join(map(str, r.input))}:")
    heads = ("part", "output", "parameters", "multiply-adds", "first weights", "bias", "sees")
    print(format_table(heads, layers))
    print(f"{r.parameters:,} parameters, {r.macs:,} multiply-adds an image")
    for kind, source in r.sources.items():
        print(f"{kind}: {source}")
