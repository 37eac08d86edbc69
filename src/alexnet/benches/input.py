"""From files to batches: ours beside what a torchvision user has, and beside a plain copy.

All ways read the same images in the same order and end in the same batches: stored uint8
(N, 256, 256, 3), or normalised float32 (N, 3, 224, 224) of random crops and mirrors.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from alexnet.benches.rounds import Timed, take_turns
from alexnet.data.arrange import arrange
from alexnet.data.augment import augment
from alexnet.data.dataset import Dataset, open_dataset
from alexnet.data.loader import Batch, read_ahead, read_batch
from alexnet.data.pack import Options, pack
from alexnet.data.statistics import TORCHVISION_MEAN, TORCHVISION_STD
from alexnet.engine.network import preprocessing
from alexnet.recipe import Recipe

REFERENCE = "torch DataLoader, Pillow, 2 workers"
SYNTHETIC = 1024  # images made where no folder is given


def bench_input(
    data: Path | None, *, batches: int = 8, rounds: int = 5, batch_size: int = 128
) -> dict[str, Any]:
    """Rows `name`, `target` (uint8 or float), `images_per_s`, `ratio` to the reference.

    `data` is a class-folder tree of images; without one, photos' like are made and thrown away.
    """
    recipe = Recipe(
        size=256, crop=224, flip=True, normalize="torchvision", batch_size=batch_size,
        model="alexnet-2014",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        work = Path(folder)
        tree = data or make_photos(work / "photos", SYNTHETIC)
        ours: dict[str, Dataset] = {}
        for encoding in ("jpeg", "raw"):
            out = work / encoding
            pack(arrange(tree), out, Options(encoding=encoding), expect=None, workers=2)
            ours[encoding] = open_dataset(recipe, out)
        files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
        found = {}
        for target in ("uint8", "float"):
            ways = {REFERENCE: _reference(files, target, recipe, batches)}
            for encoding, dataset in ours.items():
                ways[f"ours, {encoding}"] = _ours(dataset, target, recipe, batches)
            ways["copy of the same bytes"] = _floor(target, recipe, batches)
            found[target] = take_turns(ways, rounds, f"reading to {target}")
    rows = [_row(name, target, found[target]) for target in found for name in found[target]]
    return {"rows": rows, "batch_size": batch_size, "batches": batches, "rounds": rounds}


def make_photos(root: Path, count: int) -> Path:
    """A tree of JPEGs of 256 pixels with the detail of photos: smooth colours and some noise."""
    chance = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + chance.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        place = root / f"class-{i % 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(place / f"{i:05}.jpg", quality=90)
    return root


def _row(name: str, target: str, found: dict[str, Timed]) -> dict[str, Any]:
    timed, reference = found[name], found[REFERENCE]
    return {
        "name": f"{name}, to {target}",
        "target": target,
        "images_per_s": round(timed.images_per_s, 1),
        "range": [round(timed.low, 1), round(timed.high, 1)],
        "ratio": round(timed.images_per_s / reference.images_per_s, 2),
        "extra_bytes": timed.peak_bytes,
    }


def _drain(batches: Iterable[Tensor]) -> int:
    return sum(len(batch) for batch in batches)


def _ours(dataset: Dataset, target: str, recipe: Recipe, batches: int) -> Callable[[], int]:
    train = dataset.split("train")  # not kept decoded, which would be no reading at all
    preprocess = preprocessing(recipe, dataset.statistics)

    def prepare(batch: Batch) -> Tensor:
        if target == "uint8":
            return batch.images
        return augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)

    def run() -> int:
        steps = read_ahead(lambda s: read_batch(train, recipe, s), range(batches), 2)
        return _drain(prepare(batch) for batch in steps)

    return run


class _Photos(TorchDataset[Tensor]):
    """What a torchvision user has: decode, resize, crop, mirror, normalise, image by image."""

    def __init__(self, files: list[Path], target: str, recipe: Recipe) -> None:
        self.files, self.target, self.recipe = files, target, recipe

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        size, crop = self.recipe.size, self.recipe.crop
        with Image.open(self.files[index]) as file:
            image = file.convert("RGB")
        if min(image.size) != size:
            scale = size / min(image.size)
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
            )
        left, top = (image.width - size) // 2, (image.height - size) // 2
        pixels: NDArray[np.uint8] = np.array(image)[top : top + size, left : left + size]
        if self.target == "uint8":
            return torch.from_numpy(pixels.copy())
        y, x = (int(torch.randint(size - crop + 1, ())) for _ in range(2))
        pixels = pixels[y : y + crop, x : x + crop]
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = (torch.tensor(v) / 255 for v in (TORCHVISION_MEAN, TORCHVISION_STD))
        return tensor.sub_(mean[:, None, None]).div_(std[:, None, None])


def _reference(files: list[Path], target: str, recipe: Recipe, batches: int) -> Callable[[], int]:
    chosen = [files[i % len(files)] for i in range(batches * recipe.batch_size)]
    loader = DataLoader(
        _Photos(chosen, target, recipe),
        recipe.batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    return lambda: _drain(loader)


def _floor(target: str, recipe: Recipe, batches: int) -> Callable[[], int]:
    shape = (recipe.batch_size, recipe.size, recipe.size, 3)
    if target == "float":
        shape = (recipe.batch_size, 3, recipe.crop, recipe.crop)
    kind = torch.uint8 if target == "uint8" else torch.float32
    source = torch.ones(shape, dtype=kind)
    return lambda: _drain(source.clone() for _ in range(batches))
