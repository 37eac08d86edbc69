"""The command line: one verb a function of `commands`. Heavy imports happen inside the verbs."""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Literal, NoReturn

from alexnet import show
from alexnet.errors import AlexNetError, Interrupted, UsageError
from alexnet.memory import keep_pages
from alexnet.recipe import Recipe, nearest
from alexnet.terminal import say


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status. Results go to stdout, all else to stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    keep_pages()
    as_json = "--json" in argv
    failure: dict[str, Any]
    with contextlib.suppress(ValueError):  # not in the main thread, where signals cannot be set
        signal.signal(signal.SIGTERM, _terminate)
    try:
        args = _parse(argv)
        result, status = args.verb(args)
        return int(status) if _print(result, None if as_json else args.show) else 2
    except AlexNetError as error:
        line = " ".join(str(error).split())
        say(f"alexnet: {line}")
        failure, status = {"error": line}, error.exit_status
    except Interrupted as error:
        say(f"alexnet: interrupted; continue with: {error}" if str(error) else "alexnet: stopped")
        failure, status = {"interrupted": error.signum, "continue": str(error)}, 128 + error.signum
    except KeyboardInterrupt:
        say("alexnet: interrupted before there was anything to save")
        failure, status = {"interrupted": signal.SIGINT}, 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; there is nobody to tell
        return 128 + signal.SIGPIPE
    if as_json:
        _print(failure, None)
    return status


def _print(result: dict[str, Any], show: Callable[[dict[str, Any]], None] | None) -> bool:
    """Results to standard output; False, after a line that says so, where it cannot be written."""
    if sys.stdout is None:
        return True
    try:
        if show is None:
            print(json.dumps(result))
        else:
            show(result)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"alexnet: standard output cannot be written ({error.strerror}): send it elsewhere")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries once more at its end
        return False
    return True


def _terminate(signum: int, frame: types.FrameType | None) -> NoReturn:
    raise Interrupted(signum)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="alexnet",
        description="From raw images to a trained, tested AlexNet-family classifier.",
        epilog="Start with `alexnet train`: 5,000 digits in under a minute, no download.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=metadata.version("alexnet"))
    verbs = parser.add_subparsers(metavar="VERB", parser_class=Parser)

    def verb(
        name: str, run: Callable[..., Any], show: Callable[..., None], help: str, to: Any = verbs
    ) -> Parser:
        sub: Parser = to.add_parser(name, help=help, description=help, allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        sub.set_defaults(verb=run, show=show, parser=sub)
        return sub

    sub = verb("train", _train, show.train, "Train a recipe, or continue a run.")
    sub.add_argument("recipe", nargs="?", help="see `alexnet recipes`; without --data: digits")
    sub.add_argument("--data", metavar="DIR", help="folder of images, IDX, CIFAR, or a set's name")
    sub.add_argument("--run", metavar="DIR", help="where to write (default: runs/RECIPE-N)")
    sub.add_argument("--init", metavar="RUN_OR_FILE", help="weights to start from")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard/")
    sub.add_argument("--doctor", choices=("stop", "say", "off"), default="stop",
                     help="what is done when it cannot learn (default: stop)")  # fmt: skip
    sub.add_argument("--no-doctor", dest="doctor", action="store_const", const="off",
                     help="short for --doctor off")  # fmt: skip
    _add_fields(sub)

    sub = verb("doctor", _doctor, show.doctor, "Say whether a recipe learns, or why a run did not.")
    sub.add_argument("target", nargs="?", help="recipe or run directory (default: digits)")
    sub.add_argument("--data", metavar="DIR", help="as for train")
    sub.add_argument("--seconds", type=float, default=60.0, metavar="S",
                     help="time to take at most, about (default: 60)")  # fmt: skip
    sub.add_argument("--out", metavar="FILE", help="also a page of it, FILE.html")
    _add_fields(sub)

    sub = verb("test", _test, show.test, "Run every image of a split through a trained network.")
    sub.add_argument("run", help="run directory")
    sub.add_argument("--data", metavar="DIR", help="other data of the same classes")
    sub.add_argument("--split", default="test", help="train, val or test (default: test)")
    sub.add_argument("--views", type=int, default=1, help="1, 5 or 10 crops an image (default: 1)")
    sub.add_argument("--checkpoint", default="best", help="best, last or step-N (default: best)")

    sub = verb("classify", _classify, show.classify, "Name what images show.")
    sub.add_argument("run", help="run directory")
    sub.add_argument("images", nargs="+", help="files, folders, or - for standard input")
    sub.add_argument("--top", type=int, default=5, help="classes to show (default: 5)")
    sub.add_argument("--views", type=int, default=1, help="1, 5 or 10 crops an image (default: 1)")
    sub.add_argument("--checkpoint", default="best", help="best, last or step-N (default: best)")

    sub = verb(
        "recipes",
        _recipes,
        show.recipes,
        "List recipes and networks, print one whole, or compare two.",
    )
    sub.add_argument("name", nargs="?", help="recipe or network to print")
    sub.add_argument("--diff", metavar="OTHER", help="print what differs from this one")
    sub.add_argument("--classes", type=int, help="print the network for so many classes")

    group = verbs.add_parser(
        "data", help="Fetch, check and pack data.", description="Fetch, check and pack data."
    )
    group.set_defaults(
        verb=None,
        needs="data needs a verb: `alexnet data get NAME`, `data check PATH`, `data pack SOURCE`",
    )
    inner = group.add_subparsers(metavar="VERB", parser_class=Parser)
    sub = verb("get", _data_get, show.path, "Fetch a data set, checksum verified.", inner)
    sub.add_argument("name", help="mnist, fashion-mnist or cifar10")
    sub.add_argument("--offline", action="store_true", help="never open a connection")

    sub = verb("check", _data_check, show.check, "Decode every image; say what is odd.", inner)
    sub.add_argument("path", help="folder of images, tar, zip, or a folder of such archives")
    _add_reading(sub)

    sub = verb("pack", _data_pack, show.pack, "Pack a data set for speed; continues.", inner)
    sub.add_argument("source", help="folder, tar or zip of images, IDX, CIFAR-10, ILSVRC archives")
    sub.add_argument("--out", metavar="DIR", required=True, help="new folder for the packed set")
    sub.add_argument("--size", type=int, default=256, metavar="INT",
                     help="shorter side, then centre square, pixels (default: 256)")  # fmt: skip
    sub.add_argument("--encoding", choices=("raw", "jpeg"), default="raw",
                     help="raw: fastest to read (default); jpeg: a sixth of it")  # fmt: skip
    sub.add_argument("--channels", type=int, default=3, metavar="INT", help="1 grey, 3 RGB")
    sub.add_argument(
        "--expect", nargs="+", metavar="SPLIT=COUNT", help="files that a split must hold"
    )
    _add_reading(sub)

    sub = verb("bench", _bench, show.bench, "Measure throughput beside a reference.")
    sub.add_argument("what", choices=("input", "train"), nargs="?", default="input")
    sub.add_argument("--data", metavar="DIR", help="class-folder tree (default: photos are made)")
    sub.add_argument(
        "--model", help="to train; of input: how long its training steps wait for data"
    )
    for name, value in (("batches", 8), ("rounds", 5), ("batch-size", 128)):
        sub.add_argument(f"--{name}", type=int, default=value, metavar="INT",
                         help=f"default: {value}")  # fmt: skip

    sub = verb("claim", _claim, show.claim, "Measure what the paper claims; without a name, list.")
    sub.add_argument("name", nargs="?", help="a claim's name")
    sub.add_argument("--data", metavar="DIR", help="images to measure it on")
    sub.add_argument("--seeds", type=int, default=3, metavar="INT", help="repetitions (default: 3)")
    sub.add_argument("--out", metavar="DIR", default="results/claims",
                     help="where records go (default: results/claims); continues")  # fmt: skip

    args, unknown = parser.parse_known_args(argv)
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    if getattr(args, "verb", None) is None:
        raise UsageError(getattr(args, "needs", "name a verb: see `alexnet --help`"))
    if unknown:
        word = unknown[0].partition("=")[0]
        hint = nearest(word, args.parser._option_string_actions)
        raise UsageError(f"{args.parser.prog} does not take {word!r}{hint}")
    return args


def _add_reading(parser: Parser) -> None:
    parser.add_argument("--orient", choices=("apply", "ignore"), default="ignore",
                        help="EXIF orientation: apply for own photos")  # fmt: skip
    parser.add_argument("--max-pixels", type=int, default=64_000_000, metavar="INT",
                        help="refuse larger images (default: 64,000,000)")  # fmt: skip
    parser.add_argument("-j", "--workers", type=int, default=2, metavar="INT", help="threads")


def _add_fields(parser: Parser) -> None:
    """A flag for every recipe field; what is not given stays as the recipe has it."""
    group = parser.add_argument_group("recipe fields (defaults: `alexnet recipes NAME`)")
    group.add_argument("--amp", action="store_true", help="short for --precision bf16")
    hints = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        flags = field.metadata.get("flags", (f"--{field.name.replace('_', '-')}",))
        if not flags:
            continue
        options: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": field.metadata["help"].replace("%", "%%"),
        }
        kind = hints[field.name]
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is Literal:
            options["choices"] = typing.get_args(kind)
        elif typing.get_origin(kind) is tuple:
            item = typing.get_args(kind)[0]
            options |= {"type": item, "nargs": "*", "metavar": "EPOCH" if item is float else "PART"}
        else:
            plain = [k for k in typing.get_args(kind) or (kind,) if k is not types.NoneType]
            options |= {"type": plain[0], "metavar": plain[0].__name__.upper()}
        group.add_argument(*flags, **options)


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """The recipe fields that were given."""
    names = {field.name for field in dataclasses.fields(Recipe)} - {"data"}
    fields = {k: v for k, v in vars(args).items() if k in names}
    if args.amp and fields.setdefault("precision", "bf16") != "bf16":
        raise UsageError(f"--amp is bf16, and --precision {fields['precision']}: leave one out")
    return fields


def _train(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    options = {"data": args.data, "run": args.run, "resume": args.resume}
    options |= {"init": args.init, "doctor": args.doctor}
    result = commands.train(args.recipe, **options, tensorboard=args.tensorboard, **_fields(args))
    return result, 0


def _doctor(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    options = {"data": args.data, "seconds": args.seconds, "out": args.out}
    found = commands.doctor(args.target, **options, **_fields(args))
    return found, 0 if found["healthy"] else 1


def _test(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    options = {"data": args.data, "split": args.split, "views": args.views}
    return commands.test(args.run, checkpoint=args.checkpoint, **options), 0


def _classify(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    options = {"top": args.top, "views": args.views, "checkpoint": args.checkpoint}
    result = commands.classify(args.run, args.images, **options)
    for error in result["errors"]:
        say(f"alexnet: {error['reason']}")
    return result, (1 if result["results"] else 2) if result["errors"] else 0


def _recipes(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    if args.diff and not args.name:
        raise UsageError("--diff needs two: `alexnet recipes NAME --diff OTHER`")
    return commands.recipes(args.name, diff=args.diff, classes=args.classes), 0


def _data_get(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    return commands.data_get(args.name, offline=args.offline), 0


def _data_check(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    options = {"orient": args.orient, "max_pixels": args.max_pixels, "workers": args.workers}
    r = commands.data_check(args.path, **options)
    return r, 1 if r["refused"] or r["across"] or r["classes"]["empty"] else 0


def _bench(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    names = ("data", "model", "batches", "rounds", "batch_size")
    return commands.bench(args.what, **{name: getattr(args, name) for name in names}), 0


def _claim(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    return commands.claim(args.name, data=args.data, seeds=args.seeds, out=args.out), 0


def _data_pack(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from alexnet import commands

    expect = {}
    for entry in args.expect or ():
        split, _, count = entry.partition("=")
        if split not in ("train", "val", "test", "all") or not count.isdigit():
            raise UsageError(f"--expect {entry!r}: write SPLIT=COUNT, as --expect train=1281167")
        expect[split] = int(count)
    names = ("out", "size", "encoding", "orient", "channels", "max_pixels", "workers")
    options = {name: getattr(args, name) for name in names}
    return commands.data_pack(args.source, **options, expect=expect or None), 0
