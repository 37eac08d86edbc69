"""What train, doctor, test and classify print."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from alexnet.pages import LAYER_HEADS, conclusion, layer_rows, name_of
from alexnet.terminal import bars, duration, escaped, format_table, percent, shows_top5, why_no_top5

if TYPE_CHECKING:
    from alexnet.runs.records import (
        ClassifyResult,
        CompletionResult,
        ProofResult,
        RecipeDiagnosis,
        RunDiagnosis,
        TestResult,
        TrainResult,
    )


def train(r: TrainResult) -> None:
    views, at = "", ""
    left_out = ""
    if r.left_out:
        more = f" and {len(r.left_out) - 1:,} more" if len(r.left_out) > 1 else ""
        left_out = f"left out     {escaped(r.left_out[0].path)}{more}, which cannot be read\n"
    if r.views > 1:
        views, at = f" --views {r.views}", f" of {r.views} views"
    pace = r.images_per_s
    steps = f" in all, {pace:,.0f} images/s in training steps" if pace else ""
    print(
        f"{r.finished}: best validation top-1 {with_interval(r.top1, r.top1_ci95, r.n)}{at} "
        f"at step {r.best_step:,}; {duration(r.wall_s)}{steps}\n"
        f"run          {r.run}\n"
        f"report       {r.report}\n"
        f"recipe       {r.recipe_file}\n"
        f"{left_out}"
        f"test it      alexnet test {shlex.quote(r.run)}{views}"
    )


def completion(r: CompletionResult) -> None:
    print(r.script)


def doctor(r: RecipeDiagnosis | RunDiagnosis) -> None:
    if r.layers:
        print(format_table(LAYER_HEADS, layer_rows(r.layers)))
        print()
    for v in r.verdicts:
        where = f" ({v.where})" if v.where else ""
        print(f"{v.severity}: {v.name}{where}")
        for what, text in (("evidence", v.evidence), ("cause", v.cause), ("advice", v.advice)):
            print(f"    {what:9} {text}")
    print(f"{name_of(r)}: {conclusion(r)}")


def test(r: TestResult | ProofResult) -> None:
    from alexnet.runs.records import ProofResult

    if isinstance(r, ProofResult):
        _prove(r)
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
    print(f"top-1  {with_interval(r.top1, r.top1_ci95, r.n)}")
    if shows_top5(len(r.per_class)):
        print(f"top-5  {with_interval(r.top5, r.top5_ci95, r.n)}")
    else:
        print(f"top-5  left out: {why_no_top5(len(r.per_class))}")
    if r.unreadable:
        count = len(r.unreadable)
        print(f"       {count:,} of {r.n + count:,} images cannot be read, and are not counted")
    for path in r.figures:
        print(f"wrote  {path}")


def _prove(r: ProofResult) -> None:
    for check in r.checks:
        print(f"{'holds' if check.ok else 'FAILS':7} {check.name}: {check.evidence}")
    for reason in r.skipped:
        print(f"not checked: {reason}")
    print(f"{r.certificate}: {'it holds' if r.holds else 'it does not hold'}")


def classify(r: ClassifyResult) -> None:
    for image in r.results:
        learnt = "  (the run was trained or validated on it)" if image.seen else ""
        print(f"{escaped(image.path)}{learnt}")
        names = (f"{t.class_name} {t.title}" if t.title else t.class_name for t in image.top)
        print(bars(list(zip(names, (t.probability for t in image.top), strict=True))))
    if r.results:
        print(f"probabilities in {r.precision}")


def with_interval(share: float | None, ci95: tuple[float, float] | None, n: int | None) -> str:
    if share is None or ci95 is None or n is None:
        return "none" if share is None else percent(share)
    low, high = map(percent, ci95)
    return f"{percent(share)} (95 % interval {low} to {high}, n {n:,})"
