"""What the runs of 0.1.0 in runs-0.1.0/ were trained on, made anew, and what is asked of each.

It draws from nothing that others change: images other than these would be other data to a run.
"""

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

RUNS = Path(__file__).with_name("runs-0.1.0")
PLACE = Path("/tmp/alexnet-0.1.0")  # where they were made; nothing needs to be there now

# What each run learnt from, below PLACE then, and below any folder that `make_data` filled.
DATA = {"stopped": "digits", "photos": "photos", "packed": "pack"}
KINDS = ("crate", "disc", "ramp", "stripes")


def make_digits(folder: Path) -> None:
    """IDX files of 128 and 48 grey images of 12 pixels: a bright block whose place is the class."""
    folder.mkdir(parents=True)
    for part, count, seed in (("train", 128, 1), ("t10k", 48, 2)):
        random = np.random.default_rng(seed)
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 12, 12), np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[4 * row : 4 * row + 3, 3 * column : 3 * column + 3] += 150
        for kind, array in (("images", images), ("labels", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            (folder / f"{part}-{kind}-idx{array.ndim}-ubyte").write_bytes(header + array.tobytes())


def draw(kind: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture of 20 pixels on its shorter side, so that none is resized, whatever resizes."""
    shape = [(20, 20), (20, 27), (25, 20)][random.integers(3)]
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centre = (shape[0] // 2 - rows, shape[1] // 2 - columns)
    inside = {
        "crate": np.maximum(*map(abs, centre)) < 6,
        "disc": centre[0] ** 2 + centre[1] ** 2 < 49,
        "ramp": rows + columns > 22,
        "stripes": rows // 3 % 2 == 0,
    }[kind]
    noise = random.integers(0, 70, (*shape, 3), np.uint8)
    return noise + (inside[..., None] * random.integers(60, 180, 3, np.uint8)).astype(np.uint8)


def make_photos(folder: Path, kinds: tuple[str, ...] = KINDS[:3], each: int = 16) -> None:
    """A folder a class of PNGs."""
    random = np.random.default_rng(3)
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(draw(kind, random)).save(folder / kind / f"{i:02}.png")


def make_data(place: Path) -> None:
    """All but the packed set, which lies beside the runs: packs of 0.1.0 are to be read too."""
    make_digits(place / "digits")
    make_photos(place / "photos")


def questions(run: Path, data: Path, photos: Path) -> dict[str, list[str]]:
    """Commands whose answers are kept; those of a run on `data`, in the order they are asked."""
    pictures = [str(photos / kind / "00.png") for kind in KINDS[:3]]
    asked = {
        "test": ["test", run, "--data", data],
        "val": ["test", run, "--data", data, "--split", "val", "--checkpoint", "last"],
        "classify": ["classify", run, *pictures, "--top", 10],
        "confusion": ["inspect", run, "confusion", "--data", data, "--split", "train"],
        "resume": ["train", "--resume", "--run", run, "--data", data],
    }
    return {name: [*map(str, words), "--json"] for name, words in asked.items()}


def kept(name: str, answer: dict[str, Any]) -> Any:
    """What of an answer is a figure: neither a path nor a time."""
    if name == "classify":
        return [
            {place["class"]: round(place["probability"], 6) for place in image["top"]}
            for image in answer["results"]
        ]
    names = ("loss", "top1", "top5", "n", "per_class", "step", "best_step", "finished", "accuracy")
    return {name: answer[name] for name in names if name in answer}


def machine() -> dict[str, str]:
    """What the last bits of a training depend on, beside its recipe and data."""
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:
        about = ""
    flags = next((line for line in about.splitlines() if line.startswith("flags")), "")
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16]
    return {"torch": str(torch.__version__), "cpu flags": digest}
