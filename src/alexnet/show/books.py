"""What recipes and claim print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet.pages import figure
from alexnet.terminal import format_table

if TYPE_CHECKING:
    from alexnet.runs.records import (
        ClaimList,
        ClaimResult,
        NetworkResult,
        RecipeDifferences,
        RecipeList,
        RecipeResult,
    )


def recipes(r: RecipeList | RecipeDifferences | RecipeResult | NetworkResult) -> None:
    from alexnet.runs.records import RecipeDifferences, RecipeList

    if isinstance(r, RecipeList):
        for kind, things in (("recipe", r.recipes), ("model", r.models)):
            print(format_table((kind, "what it is"), [(one.name, one.about) for one in things]))
            print()
    elif isinstance(r, RecipeDifferences):
        _differences(r)
    else:
        _network(r)


def _differences(r: RecipeDifferences) -> None:
    for d in r.differences:
        print(f"{d.what}")
        for name, value, source in (
            (r.name, d.first, d.first_source),
            (r.other, d.second, d.second_source),
        ):
            print(f"    {name}: {value}{f'  [{source}]' if source else ''}")
    print(f"{len(r.differences)} differences between {r.name} and {r.other}")


def _network(r: RecipeResult | NetworkResult) -> None:
    from alexnet.runs.records import RecipeResult

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


def claim(r: ClaimList | ClaimResult) -> None:
    from alexnet.runs.records import ClaimResult

    if isinstance(r, ClaimResult):
        print(f"{r.claim}: {r.verdict}")
        print(f"  the claim: {r.paper} ({r.source})")
        seeds = f", {r.seeds} seeds" if r.seeds else ""
        print(f"  measured:  {figure(r)} {r.unit}{seeds}")
        print(f"  found:     {r.finding}")
        print(f"  record:    {r.record}")
    else:
        rows = [(c.name, c.paper, figure(c), c.verdict, c.needs) for c in r.claims]
        print(format_table(("claim", "what is printed", "measured", "verdict", "needs"), rows))
    for entry in r.left or ():
        print(f"not measured: {entry.name}: {entry.why}")
