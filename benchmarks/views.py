"""A ten-view test of photos, from JPEG files to top-5, beside its forward passes alone.

    python benchmarks/views.py PHOTOS [--model alexnet-2014] [--views 10] [--rounds 3] [--out FILE]

PHOTOS has a folder of photos a class. Interleaved in one process, the order turned round every
time; medians. Both ways do the same forward passes in the same batches; the reference's crops are
ready in memory. Weights are fresh: the time does not depend on what they are.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import script  # before torch, for its threads
import torch

from alexnet.analysis import count_answers
from alexnet.data.augment import Preprocess
from alexnet.data.dataset import open_dataset
from alexnet.data.image_set import ImageFiles, join_files
from alexnet.data.splits import Split
from alexnet.data.statistics import Statistics
from alexnet.lab.benches import take_turns
from alexnet.models.zoo import find_model
from alexnet.recipe import Recipe
from alexnet.runtime import choose_precision, environment, pick_device
from alexnet.training.inference import Inference
from alexnet.training.network import build_net

BATCH = 320  # crops in a forward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="alexnet-2014")
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--images", type=int, help="so many of them (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    crop, device = find_model(args.model).size, pick_device()
    precision = choose_precision("auto", device)
    recipe = Recipe(model=args.model, size=round(crop * 8 / 7), crop=crop, eval_batch=BATCH)
    parts, labels = [], []
    source = open_dataset(recipe, args.photos).image_set
    for name in source.parts:
        part = source.read(name)
        assert isinstance(part.images, ImageFiles)
        parts.append(part.images)
        labels += part.labels.tolist()
    files, labels = join_files(parts), labels[: args.images]
    files = files.take(np.arange(len(labels)))
    photos = Split("photos", torch.tensor(labels).numpy(), files, recipe.size, 3)
    classes = len(source.classes)
    preprocess = Preprocess(
        recipe.size, crop, 3, Statistics((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), ())
    )
    net = Inference(build_net(recipe, classes).to(device).eval(), precision)
    at_once = BATCH // args.views
    pixels = torch.zeros(at_once, recipe.size, recipe.size, 3, dtype=torch.uint8, device=device)
    ready = preprocess.views(pixels, args.views, net.kind).flatten(0, 1)

    @torch.inference_mode()
    def passes() -> int:
        for start in range(0, len(photos), at_once):
            net(ready[: args.views * min(at_once, len(photos) - start)])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return len(photos)

    def whole() -> int:
        def drop(first: int, p: object) -> None: ...

        tally = count_answers(net, photos, preprocess, recipe, classes, args.views, drop)
        assert tally.figures()["top5"] is not None
        return tally.n

    ways = {"forward passes alone": passes, "from JPEG files to top-5": whole}
    found = take_turns(ways, args.rounds, f"{args.views} views of {len(photos):,} photos")
    rows = [timed.row(name, found["forward passes alone"]) for name, timed in found.items()]
    for row, timed in zip(rows, found.values(), strict=True):
        row["seconds"] = round(len(photos) / timed.images_per_s, 2)
    for row in rows:
        row["cost"] = round(rows[0]["images_per_s"] / row["images_per_s"], 3)
        print(f"{row['name']:>26}: {row['seconds']:,.1f} s, {row['cost']:.3f} of the passes")
    record = {
        "what": "views", "model": args.model, "views": args.views, "images": len(photos),
        "precision": precision, "rounds": args.rounds, "rows": rows, "environment": environment(),
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    script.obeyed(main)
