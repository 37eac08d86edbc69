"""Packing photos beside Pillow alone in a loop, and the hours that ILSVRC-2012 would take.

    python benchmarks/pack.py PHOTOS [--rounds 3] [--out results/bench/pack-MACHINE.json]

PHOTOS is a folder, tar or zip of photos in class folders. The loop does the same to the pixels, one
after the other: opens, decodes, brings the shorter side to 256 pixels, cuts the centre out; it
reads the same listing and writes nothing. Interleaved, the order turned round every time; medians.
"""

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from script import obeyed

from alexnet.data.forms import open_image_set
from alexnet.data.packing import PackOptions, PackSource, list_source, pack_images
from alexnet.runtime import environment

ILSVRC_2012 = 1_281_167 + 50_000 + 100_000
SIZE = 256


def loop(source: PackSource) -> int:
    done = 0
    for files in source.parts.values():
        for i in range(len(files)):
            with Image.open(io.BytesIO(files.read(i))) as image:
                rgb = image.convert("RGB")
            scale = SIZE / min(rgb.size)
            shape = (max(round(rgb.width * scale), SIZE), max(round(rgb.height * scale), SIZE))
            rgb = rgb.resize(shape, Image.Resampling.BILINEAR)
            left, top = (rgb.width - SIZE) // 2, (rgb.height - SIZE) // 2
            done += np.asarray(rgb)[top : top + SIZE, left : left + SIZE].shape[0] == SIZE
    return done


def packed(source: PackSource, work: Path, encoding: str, workers: int) -> int:
    out = work / "out"
    options = PackOptions(SIZE, encoding)  # type: ignore[arg-type]
    manifest = pack_images(source, out, options, expect={}, workers=workers)
    shutil.rmtree(out)
    return int(sum(manifest["counts"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = list_source(open_image_set(args.photos))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ways: dict[str, Callable[[], int]] = {"Pillow in a loop": lambda: loop(source)}
        for encoding in ("raw", "jpeg"):
            for workers in (1, 2):
                name = f"pack --encoding {encoding}, {workers} worker{'s' * (workers > 1)}"
                ways[name] = lambda e=encoding, w=workers: packed(source, work, e, w)
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):
            for name in list(ways) if turn % 2 else reversed(list(ways)):
                began = time.perf_counter()
                images = ways[name]()
                if turn:
                    speeds[name].append(images / (time.perf_counter() - began))
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    rows = [
        {
            "name": name,
            "images_per_s": round(speed, 1),
            "range": [round(min(speeds[name]), 1), round(max(speeds[name]), 1)],
            "ratio": round(speed / medians["Pillow in a loop"], 2),
            "ilsvrc_2012_hours": round(ILSVRC_2012 / speed / 3600, 2),
        }
        for name, speed in medians.items()
    ]
    for row in rows:
        print(
            f"{row['name']:32} {row['images_per_s']:8.1f} images/s  {row['ratio']:5.2f}  "
            f"ILSVRC-2012 {row['ilsvrc_2012_hours']:.2f} h"
        )
    record = {"rounds": args.rounds, "rows": rows, "environment": environment()}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    obeyed(main)
