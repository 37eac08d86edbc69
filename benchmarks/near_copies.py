"""How many copies of photos are found, how many different ones are taken for copies, and how fast.

    python benchmarks/near_copies.py --photos DIR --set NAME=DIR [--set NAME=DIR ...]
        [--out results/near-copies/MACHINE.json]

`--photos` is a folder of different photos: each is copied in many ways, and the two are looked for
among all. Of a set every group found is listed, for eyes to judge, and how many pairs of its images
their digests alone would call copies; all sets together, and photos, are looked through once more,
up to 10,000 files, for the time. Nothing else may run meanwhile for that.
"""

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from script import obeyed

from alexnet.data.copies import (
    DISAGREEMENT,
    POSSIBLE,
    SURE,
    Fingerprint,
    fingerprint_image,
    group_copies,
    near_any,
    read_detail,
)
from alexnet.data.images import is_image, open_image
from alexnet.errors import UsageError
from alexnet.runtime import environment
from alexnet.support.files import write_json
from alexnet.support.terminal import say

FILES = 10_000
SECONDS = 60.0  # the bar for so many
WORKERS = 2

Copy = Callable[[Image.Image], bytes]


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scaled(share: float) -> Copy:
    def copy(image: Image.Image) -> bytes:
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        return saved(image.resize(size, Image.Resampling.BICUBIC), quality=90)

    return copy


def cut(share: float) -> Copy:
    """Without so much of each edge."""

    def copy(image: Image.Image) -> bytes:
        x, y = round(image.width * share), round(image.height * share)
        return saved(image.crop((x, y, image.width - x, image.height - y)), quality=75)

    return copy


def brighter(image: Image.Image) -> bytes:
    return saved(image.point([min(255, round(1.15 * v + 10)) for v in range(256)] * 3), quality=90)


WAYS: dict[str, Copy] = {
    **{f"JPEG, quality {q}": lambda image, q=q: saved(image, quality=q) for q in (30, 50, 75, 90)},
    "PNG": lambda image: saved(image, "PNG"),
    "WebP, quality 75": lambda image: saved(image, "WEBP", quality=75),
    "resized to 50 %": scaled(0.5),
    "resized to 200 %": scaled(2.0),
    "mirrored": lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=75),
    "turned by 90 degrees": lambda i: saved(i.transpose(Image.Transpose.ROTATE_90), quality=75),
    "grey": lambda image: saved(image.convert("L"), quality=75),
    "brighter (15 % and 10 levels)": brighter,
    "2 % cut from each edge": cut(0.02),
    "4 % cut from each edge": cut(0.04),
}


class Images:
    """Files, or their bytes, as they are looked at."""

    def __init__(self, sources: list[Path | bytes]) -> None:
        self.sources = sources

    def fingerprint(self, i: int) -> Fingerprint:
        source = self.sources[i]
        data = source if isinstance(source, bytes) else source.read_bytes()
        with open_image(data) as image:
            return fingerprint_image(image, hashlib.sha256(data).digest())

    def groups(self) -> tuple[list[Fingerprint], list[list[int]]]:
        with ThreadPoolExecutor(WORKERS) as pool:
            fingerprints = list(pool.map(self.fingerprint, range(len(self.sources)), chunksize=16))

        def detail(i: int) -> Any:
            with open_image(self.sources[i]) as image:
                return read_detail(image)

        return fingerprints, group_copies(fingerprints, detail, WORKERS)


def files_in(folder: Path) -> list[Path]:
    found = sorted(f for f in folder.rglob("*") if f.is_file() and is_image(f.name))
    if not found:
        raise UsageError(f"{folder}: no images there")
    return found


def recall(files: list[Path]) -> list[dict[str, Any]]:
    rows = []
    for way, copy in WAYS.items():
        copies = []
        for file in files:
            with Image.open(file) as image:
                copies.append(copy(image.convert("RGB")))
        n = len(files)
        fingerprints, groups = Images([*files, *copies]).groups()
        digests = np.array([one.digest for one in fingerprints], np.uint64)
        pairs = {(group[0], group[1]) for group in groups if len(group) == 2}
        alone = [near_any(digests[n + i : n + i + 1], digests[i : i + 1])[0] for i in range(n)]
        row = {
            "way": way, "n": n,
            "found": sum((i, n + i) in pairs for i in range(n)),
            "found_by_digests_alone": int(sum(alone)),
            "wrong_groups": sum(len({i % n for i in group}) > 1 for group in groups),
        }  # fmt: skip
        say(json.dumps(row))
        rows.append(row)
    return rows


def of_set(name: str, folder: Path) -> dict[str, Any]:
    files = files_in(folder)
    began = time.perf_counter()
    fingerprints, groups = Images([*files]).groups()
    wall = time.perf_counter() - began
    digests = np.array([one.digest for one in fingerprints], np.uint64)
    together = {i: k for k, group in enumerate(groups) for i in group}
    others = [i for i in range(len(files)) if i not in together]
    # Every image that is in no group, against all others before it: as new against known ones.
    half = len(others) // 2
    order = np.random.default_rng(0).permutation(others)
    wrong = near_any(digests[order[:half]], digests[order[half:]])
    row = {
        "set": name,
        "images": len(files),
        "groups": [[str(files[i].relative_to(folder)) for i in group] for group in groups],
        "files_in_groups": len(together),
        "too_little_in_it": int((digests == 0).sum()),
        "digests_alone": {
            "new": half,
            "known": len(others) - half,
            "pairs": half * (len(others) - half),
            "wrong": int(wrong.sum()),
        },
        "seconds": round(wall, 1),
    }
    say(json.dumps({**row, "groups": len(groups)}))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    photos = files_in(args.photos)
    sets = [(name, Path(folder)) for name, _, folder in (s.partition("=") for s in args.set)]
    rows = recall(photos)
    found = [of_set(name, folder) for name, folder in [("photos", args.photos), *sets]]
    every = [file for _, folder in sets for file in files_in(folder)] + photos
    many = (every * (FILES // len(every) + 1))[:FILES]
    began = time.perf_counter()
    Images([*many]).groups()
    wall = time.perf_counter() - began
    record = {
        "bars": {"seconds": SECONDS},
        "note": f"Bar: {SECONDS:g} s for {FILES:,} files on {WORKERS} threads. `found`: copies "
        "that are in a group with their photo and nothing else; `wrong_groups`: groups of more "
        "than one photo; `digests_alone`: of images of no group, half are held against the other "
        "half by digests alone, and `wrong` of them are called copies",
        "settings": {"possible": POSSIBLE, "sure": SURE, "disagreement": DISAGREEMENT},
        "copies": rows,
        "sets": found,
        "speed": {
            "files": FILES, "different": min(len(every), FILES), "threads": WORKERS,
            "seconds": round(wall, 1), "images_per_s": round(FILES / wall, 1),
            "met": "yes" if wall < SECONDS else "no",
        },
        "environment": {
            **environment(),
            "command": ["near_copies.py", args.photos.name, *(name for name, _ in sets)],
        },
    }  # fmt: skip
    print(json.dumps(record["speed"]))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, record)


if __name__ == "__main__":
    obeyed(main)
