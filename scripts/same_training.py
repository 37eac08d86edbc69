"""Trains the same runs with two source trees, and compares their files to the bit.

    python scripts/same_training.py --before TREE --after TREE [--only RUN ...] [--after-seed N]

A tree is a checkout. The Python that runs this script trains with `TREE/src`. There are five runs:
`digits`; the same in two processes; the same, interrupted by Ctrl-C and continued; the two towers
of alexnet-2012 in two processes; and a run on other classes that starts from the weights of
`digits`. Precision, memory layout and threads are fixed, so that nothing is chosen by timing.

The trees train at the same path, one after the other, so that paths in files are equal. Logs are
compared line by line, tensors byte by byte, JSON and TOML value by value (comments may differ), and
all other files byte by byte. IGNORED and NOT_COMPARED list the exceptions. The exit status is 1
where anything differs, and 2 where a tree does not train. `--after-seed` gives the second tree
another seed, to check that differences are detected.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

IGNORED = {  # keys at any depth: times, values that depend on times, and the tree's commit
    "metrics.jsonl": {"images_per_s", "eta_s", "wall_s", "data_wait"},
    "state.json": {"seconds"},
    "manifest.json": {"sha256", "state.json"},  # the tensors themselves are compared
    "environment.json": {"commit", "dirty"},
}
UNORDERED = {"before", "before.look"}  # tensors: digests of the images of the initial weights
NOT_COMPARED = {".lock", "report.html", "figures"}  # reports show times

FIXED = "--precision fp32 --no-compile --no-channels-last --log-every 5"
INTERRUPT_AT = 25  # updates; between two checkpoints and two validations

ONE = [sys.executable, "-m", "alexnet"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
       "-m", "--", "alexnet"]  # fmt: skip
INTERRUPTED = [sys.executable, "-c", f"""
import os, signal, sys
from alexnet.cli import main

class Watched:
    '''Standard error that interrupts its own process when the line of that step is printed.'''
    def write(self, text):
        if text.split()[:2] == ["step", "{INTERRUPT_AT}"]:
            os.kill(os.getpid(), signal.SIGINT)
        return sys.__stderr__.write(text)
    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)

sys.stderr = Watched()
sys.exit(main(sys.argv[1:]))
"""]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command line, run in the folder of all runs, and its expected exit status."""

    program: list[str]
    words: str
    status: int = 0


RUNS = {
    "digits": [Command(ONE, f"train digits --run digits --epochs 2 --save-every 40 {FIXED}")],
    "two-ranks": [Command(TWO, f"train digits --run two-ranks --epochs 1 {FIXED}")],
    "resumed": [
        Command(INTERRUPTED, f"train digits --run resumed --epochs 1 --keep 9 {FIXED}", status=130),
        Command(ONE, "train --resume --run resumed"),
    ],
    "towers": [
        Command(
            TWO,
            "train paper-2012 --data large --run towers --towers 2 --steps 3 --batch-size 6 "
            f"--workers 0 --keep 1 {FIXED}",
        )
    ],
    "fine-tuned": [
        Command(
            ONE,
            "train digits --init digits --data small --run fine-tuned --steps 30 --batch-size 16 "
            f"--lr 1e-3 --freeze conv1 {FIXED}",
        )
    ],
}
NEEDS = {"fine-tuned": "digits"}  # runs that start from another run


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--before", type=Path, required=True, metavar="TREE")
    words.add_argument("--after", type=Path, required=True, metavar="TREE")
    words.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    words.add_argument("--after-seed", type=int, default=0, metavar="N")
    args = words.parse_args()
    names = [name for name in RUNS if name in {*args.only, *(NEEDS.get(n) for n in args.only)}]
    with tempfile.TemporaryDirectory(prefix="same-training-") as place:
        folder = Path(place)
        for label, seed in (("before", 0), ("after", args.after_seed)):
            train(getattr(args, label).resolve(), folder / "runs", names, seed)
            (folder / "runs").rename(folder / label)
        differs = False
        for name in names:
            before, after = folder / "before" / name, folder / "after" / name
            phrases = [*differences(before, after)]
            result = (
                f"{len(phrases)} differences, the first: {phrases[0]}" if phrases else "identical"
            )
            print(f"{name:<11} {summary(before)}: {result}")
            differs |= bool(phrases)
    return int(differs)


def train(tree: Path, folder: Path, names: list[str], seed: int) -> None:
    """Train all runs with the source of a tree, into a new folder."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    write_photos(folder / "small", classes=4, each=20, side=28)
    write_photos(folder / "large", classes=3, each=8, side=256)
    query = [sys.executable, "-c", "import alexnet; print(alexnet.__file__)"]
    source = subprocess.run(query, env=environment, capture_output=True, text=True).stdout.strip()
    if not Path(source).is_relative_to(tree):
        sys.exit(f"{tree} is no checkout: its package is {source or 'missing'}")
    for name in names:
        for command in RUNS[name]:
            words = shlex.split(command.words)
            words += [] if "--resume" in words else ["--seed", str(seed)]
            done = subprocess.run(
                [*command.program, *words],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode != command.status:
                print(done.stdout, file=sys.stderr)
                print(f"{tree}: {shlex.join(words)}: status {done.returncode}", file=sys.stderr)
                sys.exit(2)


def write_photos(folder: Path, classes: int, each: int, side: int) -> None:
    """Write a folder of PNGs for each class: noisy stripes whose width depends on the class."""
    random = np.random.default_rng(0)
    rows = np.arange(side) * 32 // side
    for label in range(classes):
        place = folder / f"stripes-{label}"
        place.mkdir(parents=True)
        stripes = 120 * (rows // (label + 1) % 2)[:, None, None]
        for i in range(each):
            noise = random.integers(0, 120, (side, side, 3))
            Image.fromarray((stripes + noise).astype(np.uint8)).save(place / f"{i:02}.png")


def summary(run: Path) -> str:
    """The last step of a run, its last loss, and the number of saved tensors."""
    events = read_lines(run / "metrics.jsonl")
    last = [event for event in events if event["event"] in ("train", "val")]
    tensors = 0
    for path in run.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors += len(file.keys())
    return f"{last[-1]['step']} steps, loss {last[-1]['loss']:.6f}, {tensors} tensors"


def differences(before: Path, after: Path) -> Iterator[str]:
    """The differences between the files of two runs, a phrase for each."""
    paths = [
        sorted(
            path.relative_to(run)
            for path in run.rglob("*")
            if not NOT_COMPARED & {*path.relative_to(run).parts}
        )
        for run in (before, after)
    ]
    for path in sorted({*paths[0]} ^ {*paths[1]}):
        yield f"only {'the first' if path in paths[0] else 'the second'} run has {path}"
    for path in sorted(paths[0], key=lambda path: path.name != "metrics.jsonl"):  # the log first
        one, other = before / path, after / path
        if one.is_symlink():
            if os.readlink(one) != os.readlink(other):
                yield f"{path} is {os.readlink(one)} and {os.readlink(other)}"
        elif one.is_file() and other.exists():
            for phrase in file_differences(one, other):
                yield f"{path}: {phrase}"


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def file_differences(one: Path, other: Path) -> Iterator[str]:
    ignored = IGNORED.get(one.name, set())
    if one.suffix == ".safetensors":
        yield from tensor_differences(one, other)
    elif one.suffix == ".json":
        left, right = (json.loads(p.read_text()) for p in (one, other))
        yield from value_differences(left, right, ignored)
    elif one.suffix == ".jsonl":
        left, right = (read_lines(path) for path in (one, other))
        yield from value_differences(left, right, ignored)
    elif one.suffix == ".toml":
        left, right = (tomllib.loads(path.read_text()) for path in (one, other))
        yield from value_differences(left, right, ignored)
    elif one.read_bytes() != other.read_bytes():
        yield "its bytes differ"


def tensor_differences(one: Path, other: Path) -> Iterator[str]:
    with safe_open(one, "pt") as left, safe_open(other, "pt") as right:
        for name in sorted({*left.keys()} ^ {*right.keys()}):
            yield f"only one of them has {name}"
        for name in sorted({*left.keys()} & {*right.keys()}):
            a, b = left.get_tensor(name), right.get_tensor(name)
            if name in UNORDERED:
                a, b = a.sort().values, b.sort().values
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                yield f"{name} is {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
            elif not torch.equal(as_bytes(a), as_bytes(b)):
                n = int((as_bytes(a) != as_bytes(b)).sum())
                yield f"{name} differs in {n:,} of {as_bytes(a).numel():,} bytes"


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def value_differences(one: Any, other: Any, ignored: set[str], place: str = "") -> Iterator[str]:
    """The differences between two JSON values, each with its path."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if key not in ignored]
        pairs = [(key, one.get(key, "missing"), other.get(key, "missing")) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(one, other, strict=True), 1)]
    else:
        if type(one) is not type(other) or one != other:
            yield f"{place or 'it'} is {json.dumps(one):.60} and {json.dumps(other):.60}"
        return
    for key, a, b in pairs:
        yield from value_differences(a, b, ignored, f"{place}.{key}" if place else key)


if __name__ == "__main__":
    sys.exit(main())
