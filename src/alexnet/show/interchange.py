"""What export, import and serve print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet.show.runs import with_interval
from alexnet.terminal import percent

if TYPE_CHECKING:
    from alexnet.runs.records import ExportResult, ImportResult, ImportTestResult, ServeResult


def export(r: ExportResult) -> None:
    v = r.verified
    print(
        f"verified  {v.largest_difference:.1e} apart at most, outputs up to "
        f"{v.largest_output:.3g}; batches of 1, 5 and 64; images: {v.images}"
    )
    if r.int8 is not None:
        for kind, m in (("fp32", r.int8.fp32), ("int8", r.int8.int8)):
            low, high = map(percent, m.top1_ci95)
            print(
                f"{kind:8}  top-1 {percent(m.top1)} ({low} to {high}, n {m.n:,}), "
                f"{m.bytes / 1e6:,.1f} MB"
            )
        print(f"speed     {r.int8.speed_ratio:.2f} times fp32's, one image at a time")
    for path in r.files:
        print(f"wrote     {path}")
    if r.pushed is not None:
        print(f"pushed    {r.pushed}")


def imported(r: ImportResult | ImportTestResult) -> None:
    from alexnet.runs.records import ImportTestResult

    print(f"matched   {len(r.matched)} tensors of {r.model}, {r.classes:,} classes")
    if r.left:
        print(f"left      {', '.join(r.left)}")
    print(f"expects   {r.expects}")
    print(f"weights   {r.judged.verdict}: {r.judged.why}")
    if isinstance(r, ImportTestResult):
        print(f"top-1     {with_interval(r.top1, r.top1_ci95, r.n)}, in {r.precision}")
    print(f"run       {r.run}")


def served(r: ServeResult) -> None:
    print(f"served {r.run} at {r.host}:{r.port}; stopped")
