"""alexnet bench: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_verb
from alexnet.support.terminal import format_table, percent

if TYPE_CHECKING:
    from alexnet.records import (
        CompanyRow,
        InferBench,
        InputBench,
        TrainBench,
    )


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "bench", "Measure throughput beside a reference.", call, show)
    parser.add_argument(
        "what",
        choices=("input", "train", "infer"),
        nargs="?",
        default="input",
        help="reading (default), training steps or answers",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="class-folder tree (default: photos are made)"
    )
    parser.add_argument(
        "--model",
        help="to train or ask (default: alexnet-2014); of input: how long its steps wait for data",
    )
    parser.add_argument("--compile", action="store_true", help="of train: torch.compile beside it")
    parser.add_argument(
        "--alone", action="store_true", help="quiet alone: not also beside a busy process a core"
    )
    parser.add_argument("--batches", type=int, metavar="INT", help="of input (default: 8)")
    for name, value in (("rounds", 5), ("batch-size", 128)):
        parser.add_argument(
            f"--{name}", type=int, default=value, metavar="INT", help=f"default: {value}"
        )


def call(**options: Any) -> InputBench | TrainBench | InferBench:
    from alexnet.lab import bench

    return bench(**options)


def show(r: InputBench | TrainBench | InferBench) -> None:
    from alexnet.records import InputBench, TrainBench

    quiet = r.quiet
    heads = ["", "images/s", "range", "ratio", "memory"]
    if with_share := quiet[0].share is not None:
        heads.append("of the limit")
    places = 1 if with_share else 0
    if quiet[0].batch is not None:
        heads[1:1] = ["batch", "ms"]
    rows = [
        (
            row.name,
            *(() if row.batch is None else (str(row.batch), f"{row.ms:,.1f}")),
            f"{row.images_per_s:,.{places}f}",
            " to ".join(f"{one:,.{places}f}" for one in row.range),
            f"{row.ratio:.2f}",
            "" if row.extra_bytes is None else f"{row.extra_bytes / 2**20:,.0f} MiB",
            *(() if row.share is None else (percent(row.share, 0),)),
        )
        for row in quiet
    ]
    print(format_table(heads, rows))
    _show_in_company(r.beside, places)
    if isinstance(r, InputBench):
        _show_input(r)
    elif isinstance(r, TrainBench):
        _show_train(r)
    else:
        _show_infer(r)


def _show_in_company(beside: list[CompanyRow], places: int) -> None:
    """Each way beside busy processes: a line a way (and batch), two columns a company."""
    rows: dict[tuple[str, ...], dict[str, CompanyRow]] = {}
    for row in beside:
        batch = () if row.batch is None else (str(row.batch),)
        rows.setdefault((row.name, *batch), {})[row.company] = row
    if not rows:
        return
    kinds = list(dict.fromkeys(row.company for row in beside))
    heads = ["beside a busy process a core", *(["batch"] if len(next(iter(rows))) > 1 else [])]
    for kind in kinds:
        heads += [f"{kind} priority", "of quiet", "ratio"]
    lines = []
    for names, by_company in rows.items():
        line = list(names)
        for kind in kinds:
            row = by_company[kind]
            line += [f"{row.images_per_s:,.{places}f}", percent(row.of_quiet, 0)]
            line += [f"{row.ratio:.2f}"]
        lines.append(line)
    print(format_table(heads, lines))


def _show_input(r: InputBench) -> None:
    print(
        f"medians of {r.rounds} rounds of {r.batches} batches of {r.batch_size}; "
        f"{r.images:,} JPEGs of {r.jpeg_bytes:,} bytes on average"
    )
    for encoding, wait in r.waits.items():
        print(
            f"{r.model} from {encoding}: {wait.images_per_s:,.1f} images/s, "
            f"{percent(wait.share)} of the time waiting for data ({wait.steps} steps); "
            f"{wait.hours_of_90_epochs:,.1f} hours for 90 epochs of ILSVRC-2012"
        )


def _show_train(r: TrainBench) -> None:
    print(f"{r.model}, batches of {r.batch_size}; medians of {r.rounds} rounds")
    _show_limits(r)
    parts = [(p.part, f"{1e3 * p.forward:,.1f}", f"{1e3 * p.backward:,.1f}") for p in r.parts]
    print(
        format_table((f"part, ours in {_kind(r)}, medians", "forward, ms", "backward, ms"), parts)
    )
    _show_missing(r)


def _show_infer(r: InferBench) -> None:
    print(f"{r.model}; medians of {r.rounds} rounds")
    _show_limits(r)
    print(
        f"memory is read at {r.read_bytes_per_s / 1e9:,.1f} GB/s: the {_kind(r)} weights take "
        f"{r.floor_ms:.1f} ms"
    )
    heads = (
        f"part, ours in {_kind(r)}, the least of its times",
        *(f"ms for {p.batch:,}" for p in r.parts),
    )
    names = r.parts[0].ms
    print(format_table(heads, [(n, *(f"{p.ms[n]:,.2f}" for p in r.parts)) for n in names]))
    _show_missing(r)


def _kind(r: TrainBench | InferBench) -> str:
    """The precision of ours whose parts were timed."""
    return "bf16" if "bf16" in r.limits else "fp32"


def _show_missing(r: TrainBench | InferBench) -> None:
    for line in r.missing:
        print(f"not measured: {line}")


def _show_limits(r: TrainBench | InferBench) -> None:
    limits = ", ".join(f"{kind} {limit / 1e9:,.0f} GFLOP/s" for kind, limit in r.limits.items())
    print(f"limit: a square matrix multiply, {limits}; {r.flops / 1e9:.2f} GFLOP an image")
