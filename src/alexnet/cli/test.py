"""alexnet test: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_image_exclusions, add_inference, add_verb
from alexnet.support.terminal import (
    escaped,
    format_table,
    percent,
    percent_with_interval,
    shows_top5,
    why_no_top5,
)

if TYPE_CHECKING:
    from alexnet.records import ProofResult, TestResult


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "test",
        "Run every image of a split through a trained network.",
        call,
        show,
        exit_status,
        shared=True,
    )
    parser.add_argument("run", help="run directory; with --certificate also an exported file")
    parser.add_argument(
        "--certificate", action="store_true", help="prove what its certificate says instead"
    )
    parser.add_argument("--data", metavar="DIR", help="other images, read whole; classes by name")
    parser.add_argument(
        "--split",
        help="of the run's data train, val or test (default: test); of "
        "other data a part, or all (default: test, else val, else all)",
    )
    add_image_exclusions(parser)
    add_inference(parser)


def call(**options: Any) -> TestResult | ProofResult:
    from alexnet.commands.test import test

    result: TestResult | ProofResult = test(**options)
    return result


def show(r: TestResult | ProofResult) -> None:
    from alexnet.records import ProofResult

    if isinstance(r, ProofResult):
        _show_proof(r)
        return
    rows = [
        (row.class_name, f"{row.right:,}", f"{row.n:,}", percent(row.right / row.n))
        for row in r.per_class
        if row.n
    ]
    print(format_table(("class", "right", "of", "top-1"), rows))
    by = "" if r.engine == "torch" else f" of {r.engine}"
    of = r.split if r.own else f"{r.split} of {escaped(r.data)}"
    if r.with_seen:
        of += f" (with {r.seen:,} that it was trained or validated on)"
    print(
        f"\n{of}: {r.n:,} images, {r.views} view(s), loss {r.loss:.4f}, "
        f"answers{by} in {r.precision}"
    )
    print(f"top-1  {percent_with_interval(r.top1, r.top1_ci95, r.n)}")
    if shows_top5(len(r.per_class)):
        print(f"top-5  {percent_with_interval(r.top5, r.top5_ci95, r.n)}")
    else:
        print(f"top-5  left out: {why_no_top5(len(r.per_class))}")
    if r.unreadable:
        count = len(r.unreadable)
        print(f"       {count:,} of {r.n + count:,} images cannot be read, and are not counted")
    for path in r.figures:
        print(f"wrote  {path}")


def _show_proof(r: ProofResult) -> None:
    for check in r.checks:
        print(f"{'holds' if check.ok else 'FAILS':7} {check.name}: {check.evidence}")
    for reason in r.skipped:
        print(f"not checked: {reason}")
    print(f"{r.certificate}: {'it holds' if r.holds else 'it does not hold'}")


def exit_status(r: TestResult | ProofResult) -> int:
    return 0 if getattr(r, "holds", True) else 1
