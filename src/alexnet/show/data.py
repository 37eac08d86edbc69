"""What the verbs of data print."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from alexnet.terminal import escaped

if TYPE_CHECKING:
    from alexnet.runs.records import DataCheckResult, DataGetResult, DataPackResult


def path(r: DataGetResult) -> None:
    print(r.path)


def check(r: DataCheckResult) -> None:
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
        places = _of(named, "class") if named else "no class folders"
        print(f"{split}: {sum(counts.values()):,} readable images, {places}")
    if r.others:
        print(f"no images by their names, not read: {_others(r.others)}")
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


def pack(r: DataPackResult) -> None:
    counts = ", ".join(f"{split} {n:,}" for split, n in r.counts.items())
    print(f"packed       {counts}; {_of(r.classes, 'class')}, {r.bytes / 1e6:,.1f} MB")
    print(f"repaired     {r.repaired:,}")
    for entry in r.refused:
        print(f"refused      {escaped(entry.path)}: {escaped(entry.reason)}")
    if r.empty:
        print(f"no training image of {escaped(', '.join(r.empty[:8]))}: add some and pack again")
    if r.across:
        print(f"in two splits {r.across:,} files; `alexnet data check` on the source names them")
    if r.others:
        print(f"not read     {_others(r.others)}: no images by their names")
    print(f"train on it  alexnet train RECIPE --data {shlex.quote(r.out)}")


def _others(others: Mapping[str, int]) -> str:
    ends = ", ".join(f"{ending} {count:,}" for ending, count in list(others.items())[:8])
    return f"{sum(others.values()):,} ({escaped(ends)})"


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")
