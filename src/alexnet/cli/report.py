"""alexnet report: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_verb
from alexnet.support.terminal import escaped

if TYPE_CHECKING:
    from alexnet.records import ReportResult


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "report", "Write one page on one or more runs.", call, show)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="FILE.html (default: RUN/report.html, of several runs report-of-N.html)",
    )
    parser.add_argument("--data", metavar="DIR", help="where the data is now")


def call(**options: Any) -> ReportResult:
    from alexnet.commands.report import report

    return report(**options)


def show(r: ReportResult) -> None:
    for name in r.left_out:
        print(f"left out, for 5 MB are enough: {escaped(name)}")
    print(f"wrote  {escaped(r.out)} ({r.bytes / 1e6:.1f} MB)")
