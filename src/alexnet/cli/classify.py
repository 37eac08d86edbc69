"""alexnet classify: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_inference, add_verb
from alexnet.support.terminal import bars, escaped

if TYPE_CHECKING:
    from alexnet.records import ClassifyResult


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "classify", "Name what images show.", call, show, exit_status)
    parser.add_argument("run", help="run directory")
    parser.add_argument("images", nargs="+", help="files, folders, or - for standard input")
    parser.add_argument("--top", type=int, default=5, help="classes to show (default: 5)")
    add_inference(parser)


def call(**options: Any) -> ClassifyResult:
    from alexnet.commands.classify import classify

    return classify(**options)


def show(r: ClassifyResult) -> None:
    for image in r.results:
        learnt = "  (the run was trained or validated on it)" if image.seen else ""
        print(f"{escaped(image.path)}{learnt}")
        names = (f"{t.class_name} {t.title}" if t.title else t.class_name for t in image.top)
        print(bars(list(zip(names, (t.probability for t in image.top), strict=True))))
    if r.results:
        print(f"probabilities in {r.precision}")


def exit_status(r: ClassifyResult) -> int:
    return (1 if r.results else 2) if r.errors else 0
