"""The verbs of the command line: their words, flags and help."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from alexnet import show
from alexnet.errors import UsageError
from alexnet.flags import (
    Parser,
    add_checkpoint,
    add_engine,
    add_fields,
    add_ignore_unknown,
    add_image_exclusions,
    add_precision,
    add_reading,
    add_reading_of_runs,
)

if TYPE_CHECKING:
    from alexnet.runs.records import ClassifyResult, DataCheckResult


@dataclass(frozen=True)
class Verb:
    """The function of `commands` that is called with the flags, what prints its result, and what
    exit status that means."""

    call: str
    show: Callable[[Any], None]
    status: Callable[[Any], int] = lambda result: 0


def make_parser() -> Parser:
    """Every verb and flag."""
    top = Parser(
        prog="alexnet",
        description="From raw images to a trained, tested AlexNet-family classifier.",
        epilog="Start with `alexnet train`: 5,000 digits in under a minute, no download.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=metadata.version("alexnet"))
    top.set_defaults(verb=None, parser=top, needs="name a verb: see `alexnet --help`")
    verbs = top.add_subparsers(metavar="VERB", parser_class=Parser)
    for add in (_train, _doctor, _test, _classify, _inspect, _report, _export, _import, _serve,
                _recipes, _data, _bench, _claim, _completion):  # fmt: skip
        add(verbs)
    return top


def _add(to: Any, name: str, verb: Verb, help: str) -> Parser:
    sub: Parser = to.add_parser(name, help=help, description=help, allow_abbrev=False)
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
    sub.set_defaults(verb=verb, parser=sub)
    return sub


def _train(verbs: Any) -> None:
    sub = _add(verbs, "train", Verb("train", show.train), "Train a recipe, or continue a run.")
    sub.add_argument("recipe", nargs="?", help="a name (see `alexnet recipes`), FILE.toml, or "
                     "recipe.json of a run to do it again; default: digits, or with --data one "
                     "that is chosen")  # fmt: skip
    sub.add_argument("--data", metavar="DIR", help="folder of images, IDX, CIFAR, or a set's name")
    sub.add_argument("--run", metavar="DIR", help="where to write (default: runs/RECIPE-N)")
    sub.add_argument("--minutes", type=float, metavar="MIN",
                     help="with --data alone: about how long to train (default: 20)")  # fmt: skip
    sub.add_argument("--init", metavar="RUN_OR_FILE", help="weights to start from")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard/")
    sub.add_argument("--doctor", choices=("stop", "say", "off"), default="stop",
                     help="what is done when it cannot learn (default: stop)")  # fmt: skip
    sub.add_argument("--no-doctor", dest="doctor", action="store_const", const="off",
                     help="short for --doctor off")  # fmt: skip
    sub.add_argument("--towers", type=int, default=1, metavar="INT",
                     help="2: a tower of alexnet-2012 a process, under torchrun")  # fmt: skip
    sub.add_argument("--stop-signal", metavar="NAME",
                     help="also save and stop at it (SIGINT, SIGTERM, SIGUSR1 always)")  # fmt: skip
    add_fields(sub)


def _doctor(verbs: Any) -> None:
    verb = Verb("doctor", show.doctor, lambda r: 0 if r.healthy else 1)
    sub = _add(verbs, "doctor", verb, "Say whether a recipe learns, or why a run did not.")
    sub.add_argument(
        "target", nargs="?", help="recipe or run directory (default: digits, or what fits --data)"
    )
    sub.add_argument("--data", metavar="DIR", help="as for train")
    sub.add_argument("--seconds", type=float, default=60.0, metavar="S",
                     help="time to take at most, about (default: 60)")  # fmt: skip
    sub.add_argument("--out", metavar="FILE", help="also a page of it, FILE.html")
    add_fields(sub)


def _test(verbs: Any) -> None:
    verb = Verb("test", show.test, lambda r: 0 if getattr(r, "holds", True) else 1)
    sub = _add(verbs, "test", verb, "Run every image of a split through a trained network.")
    sub.add_argument("run", help="run directory; with --certificate also an exported file")
    sub.add_argument("--certificate", action="store_true",
                     help="prove what its certificate says instead")  # fmt: skip
    sub.add_argument("--data", metavar="DIR", help="other images, read whole; classes by name")
    sub.add_argument("--split", help="of the run's data train, val or test (default: test); of "
                     "other data a part, or all (default: test, else val, else all)")  # fmt: skip
    add_image_exclusions(sub)
    add_reading_of_runs(sub)


def _classify(verbs: Any) -> None:
    verb = Verb("classify", show.classify, _classified)
    sub = _add(verbs, "classify", verb, "Name what images show.")
    sub.add_argument("run", help="run directory")
    sub.add_argument("images", nargs="+", help="files, folders, or - for standard input")
    sub.add_argument("--top", type=int, default=5, help="classes to show (default: 5)")
    add_reading_of_runs(sub)


def _classified(r: "ClassifyResult") -> int:
    return (1 if r.results else 2) if r.errors else 0


def _export(verbs: Any) -> None:
    help = "Write a run's network as a file of another format, verified."
    sub = _add(verbs, "export", Verb("export", show.export), help)
    sub.add_argument("run", help="run directory")
    formats = ("onnx", "safetensors", "torchvision", "torch-export")
    sub.add_argument("--format", choices=formats, required=True,
                     help="safetensors: a folder for Hugging Face's hub, or one file")  # fmt: skip
    sub.add_argument("--out", metavar="FILE", required=True, help="what to write")
    sub.add_argument("--preprocess", action="store_true",
                     help="into it: uint8 images in, probabilities out")  # fmt: skip
    sub.add_argument("--int8", action="store_true", help="quantise, on held-out images")
    sub.add_argument("--data", metavar="DIR", help="images to verify on (default: the run's)")
    add_ignore_unknown(sub)
    sub.add_argument("--push", metavar="OWNER/NAME", help="also upload the folder to the hub")
    add_checkpoint(sub)


def _import(verbs: Any) -> None:
    help = "Make a run of weights from elsewhere; nothing in the file is run."
    sub = _add(verbs, "import", Verb("import_weights", show.imported), help)
    sub.add_argument("file", help=".pth, .safetensors, .caffemodel, .onnx, a folder that export "
                     "wrote, or hf:OWNER/NAME")  # fmt: skip
    sub.add_argument("--as", dest="model", metavar="MODEL", help="the network they are of")
    sub.add_argument("--run", metavar="DIR", help="where to write (default: runs/MODEL-N)")
    sub.add_argument("--classes", metavar="FILE", help="their names, one a line, in order")
    sub.add_argument("--data", metavar="DIR", help="labelled images to measure accuracy on")
    sub.add_argument("--split", help="a part that they have, or all (default: test, else val, "
                     "else all)")  # fmt: skip
    add_ignore_unknown(sub)
    sub.add_argument("--mean", metavar="FILE", help="Caffe's mean image (.binaryproto)")
    sub.add_argument("--bgr", action=argparse.BooleanOptionalAction, default=None,
                     help="the first layer takes blue first (default: of Caffe's)")  # fmt: skip
    for name, what in (("size", "stored image, pixels"), ("crop", "network input, pixels")):
        sub.add_argument(f"--{name}", type=int, metavar="INT", help=what)
    sub.add_argument("--normalize", help="what the weights expect, where it is not known")
    sub.add_argument("--orient", choices=("apply", "ignore"),
                     help="EXIF orientation (default: ignore, as most makers did)")  # fmt: skip


def _serve(verbs: Any) -> None:
    sub = _add(verbs, "serve", Verb("serve", show.served), "Serve a run over HTTP, with a page.")
    sub.add_argument("run", help="run directory")
    sub.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                     help="default: 127.0.0.1; any but loopback needs --token")  # fmt: skip
    sub.add_argument("--port", type=int, default=8000, metavar="INT",
                     help="0 takes a free one (default: 8000)")  # fmt: skip
    add_engine(sub)
    add_precision(sub)
    sub.add_argument("--index", action="store_true",
                     help="show the nearest training images (built once)")  # fmt: skip
    sub.add_argument(
        "--data", metavar="DIR", help="where those images, or int8's held-out ones, are now"
    )
    sub.add_argument("--token", help="what clients send as Authorization: Bearer TOKEN")
    add_checkpoint(sub)


def _recipes(verbs: Any) -> None:
    help = "List recipes and networks, print one whole, or compare two."
    sub = _add(verbs, "recipes", Verb("recipes", show.recipes), help)
    sub.add_argument("name", nargs="?", help="recipe or network to print")
    sub.add_argument("--diff", metavar="OTHER", help="print what differs from this one")
    sub.add_argument("--classes", type=int, help="print the network for so many classes")


def _data(verbs: Any) -> None:
    help = "Fetch, check and pack data."
    group = verbs.add_parser("data", help=help, description=help)
    needs = "data needs a verb: `alexnet data get NAME`, `data check PATH`, `data pack SOURCE`"
    group.set_defaults(needs=needs)
    inner = group.add_subparsers(metavar="VERB", parser_class=Parser)

    verb = Verb("data_get", show.path)
    sub = _add(inner, "get", verb, "Fetch a data set, checksum verified.")
    sub.add_argument("name", help="mnist, fashion-mnist or cifar10")
    sub.add_argument("--offline", action="store_true", help="never open a connection")

    verb = Verb("data_check", show.check, _checked)
    sub = _add(inner, "check", verb, "Decode every image; say what is odd.")
    sub.add_argument("path", help="folder of images, tar, zip, or a folder of such archives")
    add_reading(sub)

    verb = Verb("data_pack", show.pack)
    sub = _add(inner, "pack", verb, "Pack a data set for speed; continues.")
    sub.add_argument("source", help="folder, tar or zip of images, IDX, CIFAR-10, ILSVRC archives")
    sub.add_argument("--out", metavar="DIR", required=True, help="new folder for the packed set")
    sub.add_argument("--size", type=int, metavar="INT",
                     help="shorter side, then centre square, pixels (default: 256; small images "
                     "of one size keep it)")  # fmt: skip
    sub.add_argument("--encoding", choices=("raw", "jpeg"), default="raw",
                     help="raw: fastest to read (default); jpeg: a sixth of it")  # fmt: skip
    sub.add_argument("--channels", type=int, default=3, metavar="INT", help="1 grey, 3 RGB")
    sub.add_argument("--expect", nargs="+", action=_Counts, metavar="SPLIT=COUNT",
                     help="files that a split must hold")  # fmt: skip
    add_reading(sub)


def _checked(r: "DataCheckResult") -> int:
    return 1 if r.refused or r.across or r.classes["empty"] else 0


class _Counts(argparse.Action):
    """SPLIT=COUNT ... as a dictionary."""

    def __call__(self, parser: Any, args: Any, values: Any, option: str | None = None) -> None:
        found = {}
        for entry in values:
            split, _, count = entry.partition("=")
            if split not in ("train", "val", "test", "all") or not count.isdigit():
                said = f"{option} {entry!r}: write SPLIT=COUNT, as {option} train=1281167"
                raise UsageError(said)
            found[split] = int(count)
        setattr(args, self.dest, found)


def _bench(verbs: Any) -> None:
    sub = _add(verbs, "bench", Verb("bench", show.bench), "Measure throughput beside a reference.")
    sub.add_argument("what", choices=("input", "train", "infer"), nargs="?", default="input",
                     help="reading (default), training steps or answers")  # fmt: skip
    sub.add_argument("--data", metavar="DIR", help="class-folder tree (default: photos are made)")
    sub.add_argument(
        "--model",
        help="to train or ask (default: alexnet-2014); of input: how long its steps wait for data",
    )
    sub.add_argument("--compile", action="store_true", help="of train: torch.compile beside it")
    sub.add_argument("--alone", action="store_true",
                     help="quiet alone: not also beside a busy process a core")  # fmt: skip
    sub.add_argument("--batches", type=int, metavar="INT", help="of input (default: 8)")
    for name, value in (("rounds", 5), ("batch-size", 128)):
        sub.add_argument(f"--{name}", type=int, default=value, metavar="INT",
                         help=f"default: {value}")  # fmt: skip


def _claim(verbs: Any) -> None:
    verb = Verb("claim", show.claim)
    sub = _add(verbs, "claim", verb, "Measure what the paper claims; without a name, list.")
    sub.add_argument("name", nargs="?", help="a claim's name")
    sub.add_argument("--all", action="store_true", help="measure all that is not, as it fits")
    sub.add_argument("--data", metavar="DIR", help="images; with --all: a folder of sets by name")
    sub.add_argument("--seeds", type=int, metavar="INT", help="repetitions (default: its own)")
    sub.add_argument("--images", type=int, metavar="INT",
                     help="to train on (default: its own number)")  # fmt: skip
    sub.add_argument("--budget", metavar="TIME", help="for --all, as 30m; the same again continues")
    sub.add_argument("--out", metavar="DIR", default="results/claims",
                     help="where records go (default: results/claims); continues")  # fmt: skip


WHATS = (
    "filters", "activations", "neighbors", "predictions", "mistakes", "saliency", "confusion",
    "calibration", "curves", "data", "features", "probe", "similarity",
)  # fmt: skip


def _inspect(verbs: Any) -> None:
    verb = Verb("inspect", show.inspect)
    sub = _add(verbs, "inspect", verb, "Draw what a run has learnt, or write its features.")
    sub.add_argument("run", help="run directory")
    sub.add_argument("what", choices=WHATS, metavar="WHAT", help=", ".join(WHATS))
    sub.add_argument("items", nargs="*", metavar="IMAGE_OR_RUN",
                     help="images; for curves and similarity other runs")  # fmt: skip
    sub.add_argument("--split", help="train, val or test (default: val); of other data a part that "
                     "it has, or all")  # fmt: skip
    sub.add_argument("--part", help="part of the network, as conv1, relu5 or fc7")
    sub.add_argument("--count", type=int, metavar="INT", help="how many are shown")
    sub.add_argument("--top", type=int, metavar="INT", help="classes to show (predictions)")
    sub.add_argument("--channels", type=int, nargs="+", metavar="INT", help="of activations")
    sub.add_argument("--metric", help="of neighbors: euclidean (default) or cosine")
    sub.add_argument(
        "--method", help="of saliency: occlusion, grad-cam or integrated-gradients (default: all)"
    )
    sub.add_argument("--label", metavar="CLASS", help="of saliency: the class to look for")
    sub.add_argument("--data", metavar="DIR", help="where the data is now, or other images")
    add_image_exclusions(sub)
    add_precision(sub)
    add_checkpoint(sub)
    sub.add_argument("--out", metavar="FILE", help="FILE.png or .svg (default: in RUN/figures); "
                     "of features FILE.npy or .parquet")  # fmt: skip


def _report(verbs: Any) -> None:
    sub = _add(verbs, "report", Verb("report", show.report), "Write one page on one or more runs.")
    sub.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    sub.add_argument(
        "--out",
        metavar="FILE",
        help="FILE.html (default: RUN/report.html, of several runs report-of-N.html)",
    )
    sub.add_argument("--data", metavar="DIR", help="where the data is now")


def _completion(verbs: Any) -> None:
    sub = _add(verbs, "completion", Verb("completion", show.completion), "Print shell completion.")
    sub.add_argument(
        "shell",
        choices=("bash", "zsh", "fish", "tcsh"),
        help="how a shell takes it up: docs/quickstart.md",
    )
