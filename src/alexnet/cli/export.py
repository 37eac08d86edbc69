"""alexnet export: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_checkpoint, add_ignore_unknown, add_verb
from alexnet.support.terminal import percent

if TYPE_CHECKING:
    from alexnet.records import ExportResult


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "export", "Write a run's network as a file of another format, verified.", call, show
    )
    parser.add_argument("run", help="run directory")
    formats = ("onnx", "safetensors", "torchvision", "torch-export")
    parser.add_argument(
        "--format",
        choices=formats,
        required=True,
        help="safetensors: a folder for Hugging Face's hub, or one file",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="what to write")
    parser.add_argument(
        "--preprocess", action="store_true", help="into it: uint8 images in, probabilities out"
    )
    parser.add_argument("--int8", action="store_true", help="quantise, on held-out images")
    parser.add_argument("--data", metavar="DIR", help="images to verify on (default: the run's)")
    add_ignore_unknown(parser)
    parser.add_argument("--push", metavar="OWNER/NAME", help="also upload the folder to the hub")
    add_checkpoint(parser)


def call(**options: Any) -> ExportResult:
    from alexnet.commands.export import export

    return export(**options)


def show(r: ExportResult) -> None:
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
