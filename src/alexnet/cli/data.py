"""alexnet data get, data check, data pack: their arguments and what they print."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Parser, Verbs, add_reading, add_verb
from alexnet.errors import UsageError
from alexnet.support.terminal import escaped

if TYPE_CHECKING:
    from alexnet.records import DataCheckResult, DataGetResult, DataPackResult


def add(verbs: Verbs) -> None:
    help = "Fetch, check and pack data."
    group = verbs.add_parser("data", help=help, description=help)
    needs = "data needs a verb: `alexnet data get NAME`, `data check PATH`, `data pack SOURCE`"
    group.set_defaults(needs=needs)
    inner = group.add_subparsers(metavar="VERB", parser_class=Parser)
    _add_get(inner)
    _add_check(inner)
    _add_pack(inner)


def _add_get(verbs: Verbs) -> None:
    parser = add_verb(verbs, "get", "Fetch a data set, checksum verified.", call_get, show_get)
    parser.add_argument("name", help="mnist, fashion-mnist or cifar10")
    parser.add_argument("--offline", action="store_true", help="never open a connection")


def call_get(**options: Any) -> DataGetResult:
    from alexnet.commands.data import data_get

    return data_get(**options)


def show_get(r: DataGetResult) -> None:
    print(r.path)


def _add_check(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "check",
        "Decode every image; say what is odd.",
        call_check,
        show_check,
        exit_status_of_check,
    )
    parser.add_argument("path", help="folder of images, tar, zip, or a folder of such archives")
    add_reading(parser)


def call_check(**options: Any) -> DataCheckResult:
    from alexnet.commands.data import data_check

    return data_check(**options)


def show_check(r: DataCheckResult) -> None:
    for kind, entries in (("repairable", r.repairable), ("refused", r.refused)):
        for entry in entries:
            print(f"{kind:10}  {escaped(entry.path)}: {escaped(entry.reason)}")
    for groups, what in (
        (r.duplicates, "the same bytes"),
        (r.across, "the same bytes in two splits"),
        (r.two_classes, "the same bytes under two classes"),
        (r.near_copies, "copies of a picture"),
        (r.near_across, "copies of a picture in two splits"),
        (r.near_two_classes, "copies of a picture under two classes"),
    ):
        for paths in groups:
            print(f"{what}: {escaped(', '.join(paths))}")
    for kind, names in r.classes.items():
        if names:
            more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
            where = "in one split only" if kind == "one_split" else kind
            print(f"classes {where}: {escaped(', '.join(names[:8]))}{more}")
    for split, counts in r.counts.items():
        named = sum(name != "" for name in counts)
        places = _count(named, "class") if named else "no class folders"
        print(f"{split}: {sum(counts.values()):,} readable images, {places}")
    if r.others:
        print(f"no images by their names, not read: {_count_endings(r.others)}")
    if r.note:
        print(f"as it is it cannot be packed: {escaped(r.note)}")
    if groups := [*r.near_copies, *r.near_across]:
        pictures = "1 picture is" if len(groups) == 1 else f"{len(groups):,} pictures are"
        print(
            f"{pictures} there more than once, in {sum(map(len, groups)):,} files: saved anew, "
            f"resized, mirrored or turned; {len(r.near_across):,} in two splits"
        )
    print(
        f"{r.ok:,} fine, {len(r.repairable):,} repairable, {len(r.refused):,} refused, "
        f"{len(r.duplicates) + len(r.across):,} groups of duplicates; "
        f"{r.images_per_s:,.0f} images/s"
    )


def exit_status_of_check(r: DataCheckResult) -> int:
    return 1 if r.refused or r.across or r.classes["empty"] else 0


def _add_pack(verbs: Verbs) -> None:
    parser = add_verb(verbs, "pack", "Pack a data set for speed; continues.", call_pack, show_pack)
    parser.add_argument(
        "source", help="folder, tar or zip of images, IDX, CIFAR-10, ILSVRC archives"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder for the packed set")
    parser.add_argument(
        "--size",
        type=int,
        metavar="INT",
        help="shorter side, then centre square, pixels (default: 256; small images "
        "of one size keep it)",
    )
    parser.add_argument(
        "--encoding",
        choices=("raw", "jpeg"),
        default="raw",
        help="raw: fastest to read (default); jpeg: a sixth of it",
    )
    parser.add_argument("--channels", type=int, default=3, metavar="INT", help="1 grey, 3 RGB")
    parser.add_argument(
        "--expect",
        nargs="+",
        action=SplitCounts,
        metavar="SPLIT=COUNT",
        help="files that a split must hold",
    )
    add_reading(parser)


def call_pack(**options: Any) -> DataPackResult:
    from alexnet.commands.data import data_pack

    return data_pack(**options)


def show_pack(r: DataPackResult) -> None:
    counts = ", ".join(f"{split} {n:,}" for split, n in r.counts.items())
    print(f"packed       {counts}; {_count(r.classes, 'class')}, {r.bytes / 1e6:,.1f} MB")
    print(f"repaired     {r.repaired:,}")
    for entry in r.refused:
        print(f"refused      {escaped(entry.path)}: {escaped(entry.reason)}")
    if r.empty:
        print(f"no training image of {escaped(', '.join(r.empty[:8]))}: add some and pack again")
    if r.across:
        print(f"in two splits {r.across:,} files; `alexnet data check` on the source names them")
    if r.others:
        print(f"not read     {_count_endings(r.others)}: no images by their names")
    print(f"train on it  alexnet train RECIPE --data {shlex.quote(r.out)}")


class SplitCounts(argparse.Action):
    """SPLIT=COUNT ... as a dictionary."""

    def __call__(self, parser: Any, args: Any, values: Any, option: str | None = None) -> None:
        counts = {}
        for entry in values:
            split, _, count = entry.partition("=")
            if split not in ("train", "val", "test", "all") or not count.isdigit():
                raise UsageError(
                    f"{option} {entry!r}: write SPLIT=COUNT, as {option} train=1281167"
                )
            counts[split] = int(count)
        setattr(args, self.dest, counts)


def _count_endings(others: Mapping[str, int]) -> str:
    ends = ", ".join(f"{ending} {count:,}" for ending, count in list(others.items())[:8])
    return f"{sum(others.values()):,} ({escaped(ends)})"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")
