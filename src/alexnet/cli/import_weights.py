"""alexnet import: its arguments and what it prints."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_ignore_unknown, add_verb
from alexnet.support.terminal import percent_with_interval

if TYPE_CHECKING:
    from alexnet.records import ImportResult, ImportTestResult


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "import",
        "Make a run of weights from elsewhere; nothing in the file is run.",
        call,
        show,
    )
    parser.add_argument(
        "file",
        help=".pth, .safetensors, .caffemodel, .onnx, a folder that export wrote, or hf:OWNER/NAME",
    )
    parser.add_argument("--as", dest="model", metavar="MODEL", help="the network they are of")
    parser.add_argument("--run", metavar="DIR", help="where to write (default: runs/MODEL-N)")
    parser.add_argument("--classes", metavar="FILE", help="their names, one a line, in order")
    parser.add_argument("--data", metavar="DIR", help="labelled images to measure accuracy on")
    parser.add_argument(
        "--split", help="a part that they have, or all (default: test, else val, else all)"
    )
    add_ignore_unknown(parser)
    parser.add_argument("--mean", metavar="FILE", help="Caffe's mean image (.binaryproto)")
    parser.add_argument(
        "--bgr",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the first layer takes blue first (default: of Caffe's)",
    )
    for name, what in (("size", "stored image, pixels"), ("crop", "network input, pixels")):
        parser.add_argument(f"--{name}", type=int, metavar="INT", help=what)
    parser.add_argument("--normalize", help="what the weights expect, where it is not known")
    parser.add_argument(
        "--orient",
        choices=("apply", "ignore"),
        help="EXIF orientation (default: ignore, as most makers did)",
    )


def call(**options: Any) -> ImportResult | ImportTestResult:
    from alexnet.commands.import_weights import import_weights

    result: ImportResult | ImportTestResult = import_weights(**options)
    return result


def show(r: ImportResult | ImportTestResult) -> None:
    from alexnet.records import ImportTestResult

    print(f"matched   {len(r.matched)} tensors of {r.model}, {r.classes:,} classes")
    if r.left:
        print(f"left      {', '.join(r.left)}")
    print(f"expects   {r.expects}")
    print(f"weights   {r.judged.verdict}: {r.judged.why}")
    if isinstance(r, ImportTestResult):
        print(f"top-1     {percent_with_interval(r.top1, r.top1_ci95, r.n)}, in {r.precision}")
    print(f"run       {r.run}")
