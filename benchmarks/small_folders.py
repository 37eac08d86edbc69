"""How often the guard beside a training stops one that has nothing wrong with it.

    python benchmarks/small_folders.py --data caltech101=DIR imagenette=DIR cifar10=DIR
        [--count 100] [--seed 0] [--minutes 1] [--out results/small-folders.jsonl]

Each DIR holds a folder of photos for every class. From them, in turn, small folders are drawn: 2 to
6 classes of 20 to 60 photos, the same ones for the same seed and the same DIRs. Each is trained in
one thread, the guard on, with the recipe that `alexnet train --data FOLDER --minutes M` chooses on
an idle core: the pace of the machine, which that choice asks for, is given as PACE, so that what
else runs here changes no recipe. The labels are right and the recipe is the program's own: every
stop counts as a wrong one, and so does a loss that is not a number.

--out has a line for what was run on what, a line a folder, and a line for the sum of them. Killed,
the same command goes on after the last line.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from script import obeyed

import alexnet
from alexnet.choice import choose_recipe
from alexnet.commands import summarize_data
from alexnet.data.forms import open_image_set
from alexnet.errors import DataError, Diverged, UsageError
from alexnet.metrics import wilson
from alexnet.runs.rundir import RunDir
from alexnet.runtime import environment
from alexnet.support.terminal import percent

CLASSES, PHOTOS = (2, 6), (20, 60)
PACE = 170.0  # images/s trained, about, of either network it chooses for so few, alone on a core
IMAGES = {".jpg", ".jpeg", ".png"}
OUT = Path(__file__).resolve().parents[1] / "results" / "small-folders.jsonl"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="SET=DIR")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    sets = read_sets(args.data)
    asked = {"sets": sorted(sets), "seed": args.seed, "minutes": args.minutes, "pace": PACE}
    rows = begin(args.out, asked)
    known = {row["folder"] for row in rows if row["line"] == "folder"}
    for number in range(args.count):
        if number not in known:
            row = train_one(sets, args.seed, number, args.minutes)
            append(args.out, row)
            rows.append(row)
            print(described(row), flush=True)
    trained = [row for row in rows if row["line"] == "folder"]
    found = summed(trained)
    if rows[-1]["line"] != "sum" or rows[-1]["n"] != found["n"]:
        append(args.out, found)
    print(
        f"stopped wrongly: {found['stopped']} of {found['n']} "
        f"(95 % interval {percent(found['ci95'][0])} to {percent(found['ci95'][1])})"
    )


def read_sets(words: list[str]) -> dict[str, dict[str, list[Path]]]:
    """Each set's classes that have enough photos, with the photos in order."""
    sets = {}
    for word in words:
        name, equals, place = word.partition("=")
        folder = Path(place)
        if not (equals and folder.is_dir()):
            raise UsageError(f"--data {word}: give SET=DIR, where DIR has a folder for each class")
        classes = {
            entry.name: sorted(f for f in entry.iterdir() if f.suffix.lower() in IMAGES)
            for entry in sorted(folder.iterdir())
            if entry.is_dir()
        }
        sets[name] = {k: photos for k, photos in classes.items() if len(photos) >= PHOTOS[0]}
        if len(sets[name]) < CLASSES[1]:
            raise DataError(
                f"{folder}: {len(sets[name])} class folders have {PHOTOS[0]} photos or more, and "
                f"{CLASSES[1]} are needed"
            )
    return sets


def draw(sets: dict[str, dict[str, list[Path]]], seed: int, number: int) -> tuple[str, Any]:
    """The set that a folder's photos are from, and the photos of each of its classes."""
    chance = random.Random(f"{seed}/{number}")
    name = sorted(sets)[number % len(sets)]
    picked = sorted(chance.sample(sorted(sets[name]), chance.randint(*CLASSES)))
    photos = {}
    for label in picked:
        there = sets[name][label]
        photos[label] = sorted(chance.sample(there, min(len(there), chance.randint(*PHOTOS))))
    return name, photos


def train_one(
    sets: dict[str, dict[str, list[Path]]], seed: int, number: int, minutes: float
) -> Row:
    """Trains one folder; what came of it."""
    name, photos = draw(sets, seed, number)
    with tempfile.TemporaryDirectory(prefix="small-folders-") as work:
        data, run = Path(work) / "data", Path(work) / "run"
        for label, files in photos.items():
            (data / label).mkdir(parents=True)
            for file in files:
                (data / label / file.name).symlink_to(file.absolute())
        began, failed = time.monotonic(), ""
        try:
            look = replace(
                summarize_data(open_image_set(data)), read_s=0.0
            )  # that too is the load's
            choice = choose_recipe(look, lambda recipe: PACE, minutes=minutes)
            alexnet.train(choice.recipe, data=data, run=run)
        except Diverged as error:
            failed = " ".join(str(error).split())
        wall = time.monotonic() - began
        folder = RunDir.open(run)
        events, recipe = folder.events(), folder.recipe["recipe"]
    train = [e for e in events if e["event"] == "train"]
    val = [e for e in events if e["event"] == "val"]
    named = [e for e in events if e["event"] == "doctor"]
    fatal = [e["name"] for e in named if e["severity"] == "will not learn"]
    return {
        "line": "folder",
        "folder": number,
        "set": name,
        "classes": list(photos),
        "photos": [len(files) for files in photos.values()],
        "minutes": minutes,
        "model": recipe["model"],
        "crop": recipe["crop"],
        "epochs": recipe["epochs"],
        "batch_size": recipe["batch_size"],
        "steps": train[-1]["step"] if train else 0,
        "loss": train[-1]["loss_mean"] if train else None,
        "top1": train[-1]["top1"] if train else None,
        "val_top1": val[-1]["top1"] if val else None,
        "val_best": max((e["top1"] for e in val), default=None),
        "val_n": val[-1]["n"] if val else 0,
        "said": [e["name"] for e in named],
        "stopped": (fatal or [failed])[0] if failed else None,
        "wall_s": round(wall, 1),
    }


def begin(out: Path, asked: Row) -> list[Row]:
    """The lines that are there already, of the same question; else one that says what is asked."""
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = list(read(out)) if out.exists() else []
    first = next((row for row in rows if row["line"] == "asked"), None)
    if first is not None:
        if {key: first[key] for key in asked} != asked:
            raise UsageError(f"--out {out} has folders of other --data, --seed or --minutes")
        return rows
    machine = environment()
    where = " ".join(f"{name}=DIR" for name in asked["sets"])
    command = (
        f"python benchmarks/small_folders.py --data {where} --seed {asked['seed']} "
        f"--minutes {asked['minutes']:g}"
    )
    row = {"line": "asked", **asked, "environment": {**machine, "command": command}}
    append(out, row)
    return [row]


def read(out: Path) -> Iterator[Row]:
    for line in out.read_text().splitlines():
        yield json.loads(line)


def append(out: Path, row: Row) -> None:
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def summed(rows: list[Row]) -> Row:
    stopped = [row for row in rows if row["stopped"]]
    return {
        "line": "sum",
        "n": len(rows),
        "stopped": len(stopped),
        "by": sorted(row["stopped"] for row in stopped),
        "ci95": wilson(len(stopped), len(rows)),
        "wall_s": round(sum(row["wall_s"] for row in rows), 1),
    }


def described(row: Row) -> str:
    return (
        f"{'X' if row['stopped'] else ' '} {row['folder']:3} {row['set']:10} "
        f"{len(row['classes'])} classes, {sum(row['photos']):3} photos, {row['model']} "
        f"{row['steps']:4} steps, training {figure(row['top1'])}, validation "
        f"{figure(row['val_best'])} of {row['val_n']}, {row['stopped'] or 'ended'}, "
        f"{row['wall_s']:.0f} s"
    )


def figure(share: float | None) -> str:
    return "none" if share is None else percent(share)


if __name__ == "__main__":
    obeyed(main)
