"""alexnet doctor: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_recipe_fields, add_verb
from alexnet.support.terminal import format_table

if TYPE_CHECKING:
    from alexnet.records import RecipeDiagnosis, RunDiagnosis


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "doctor",
        "Say whether a recipe learns, or why a run did not.",
        call,
        show,
        exit_status,
    )
    parser.add_argument(
        "target", nargs="?", help="recipe or run directory (default: digits, or what fits --data)"
    )
    parser.add_argument("--data", metavar="DIR", help="as for train")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="time to take at most, about (default: 60)",
    )
    parser.add_argument("--out", metavar="FILE", help="also a page of it, FILE.html")
    add_recipe_fields(parser)


def call(**options: Any) -> RecipeDiagnosis | RunDiagnosis:
    from alexnet.commands.doctor import doctor

    result: RecipeDiagnosis | RunDiagnosis = doctor(**options)
    return result


def show(r: RecipeDiagnosis | RunDiagnosis) -> None:
    from alexnet.pages import LAYER_HEADS, conclusion, layer_rows, name_of

    if r.layers:
        print(format_table(LAYER_HEADS, layer_rows(r.layers)))
        print()
    for v in r.verdicts:
        where = f" ({v.where})" if v.where else ""
        print(f"{v.severity}: {v.name}{where}")
        for what, text in (("evidence", v.evidence), ("cause", v.cause), ("advice", v.advice)):
            print(f"    {what:9} {text}")
    print(f"{name_of(r)}: {conclusion(r)}")


def exit_status(r: RecipeDiagnosis | RunDiagnosis) -> int:
    return 0 if r.healthy else 1
