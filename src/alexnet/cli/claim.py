"""alexnet claim: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_verb
from alexnet.support.terminal import format_table

if TYPE_CHECKING:
    from alexnet.records import ClaimList, ClaimResult


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "claim", "Measure what the paper claims; without a name, list.", call, show
    )
    parser.add_argument("name", nargs="?", help="a claim's name")
    parser.add_argument("--all", action="store_true", help="measure all that is not, as it fits")
    parser.add_argument(
        "--data", metavar="DIR", help="images; with --all: a folder of sets by name"
    )
    parser.add_argument("--seeds", type=int, metavar="INT", help="repetitions (default: its own)")
    parser.add_argument(
        "--images", type=int, metavar="INT", help="to train on (default: its own number)"
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="for --all, as 30m; the same again continues"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="results/claims",
        help="where records go (default: results/claims); continues",
    )


def call(**options: Any) -> ClaimList | ClaimResult:
    from alexnet.lab import claim

    result: ClaimList | ClaimResult = claim(**options)
    return result


def show(r: ClaimList | ClaimResult) -> None:
    from alexnet.pages import figure
    from alexnet.records import ClaimResult

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
