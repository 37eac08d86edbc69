"""From files to batches: ours beside what a torchvision user has, and beside a plain copy.

All ways read the same JPEGs of 256 pixels. The reference ends where a torchvision user's loader
does, in normalised float32 (N, 3, 224, 224) of random crops and mirrors; ours is timed to there
and to what it hands to the device, stored uint8 (N, 256, 256, 3).
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from alexnet.data import (
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    Batch,
    Dataset,
    PackedJpegs,
    PackOptions,
    augment,
    open_dataset,
    open_image_set,
    pack_images,
    training_batches,
    training_hours,
)
from alexnet.lab.benches.company import QUIET, described
from alexnet.lab.benches.rounds import company_rows, take_turns_in_company
from alexnet.recipe import Recipe
from alexnet.records import DataWait, InputBench
from alexnet.runtime import environment, pick_device
from alexnet.support.terminal import progress
from alexnet.training import Trainer, TrainingData, preprocessing

REFERENCE = "torch DataLoader, Pillow, 2 workers, to float"
STEPS = {"cpu": 4, "cuda": 100}  # of training that are timed
READERS = 2  # threads of ours, workers of the reference
SYNTHETIC = 1024  # images made where no folder is given


def bench_input(
    data: Path | None,
    *,
    batches: int = 8,
    rounds: int = 5,
    batch_size: int = 128,
    model: str | None = None,
    companies: Sequence[str] = (),
) -> InputBench:
    """Times reading; `rows` ends with those of `rounds.company_rows` for each of `companies`.

    `data` is a class-folder tree of images; without one, photos' like are made and thrown away.
    With `model`, `waits` has the share of its training steps, in bfloat16, spent waiting for data:
    from each encoding, and from images kept in memory, on a GPU its own.
    """
    recipe = Recipe(
        size=256, crop=224, flip=True, normalize="torchvision", batch_size=batch_size,
        model=model or "alexnet-2014", precision="bf16", channels_last=True,
    )  # fmt: skip
    device = pick_device()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        # Of more workers than processors, where there is one.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        work = Path(folder)
        tree = data or make_photos(work / "photos", SYNTHETIC)
        pack_images(
            open_image_set(tree),
            work / "jpeg",
            PackOptions(encoding="jpeg"),
            expect=None,
            workers=READERS,
        )
        ours = {"jpeg": open_dataset(recipe, work / "jpeg")}
        files = _unpack(ours["jpeg"], work / "files")
        pack_images(
            open_image_set(work / "files"),
            work / "raw",
            PackOptions(),
            expect=None,
            workers=READERS,
        )
        ours["raw"] = open_dataset(recipe, work / "raw")
        ways: dict[str, Callable[[], int]] = {}
        ways[REFERENCE] = _reference(files, True, recipe, batches, device)
        ways["the same, to uint8"] = _reference(files, False, recipe, batches, device)
        for target in ("uint8", "float"):
            for encoding, dataset in ours.items():
                run = _ours(dataset, target == "float", recipe, batches, device)
                ways[f"ours, {encoding}, to {target}"] = run
            ways[f"copy of the {target} batches"] = _floor(target == "float", recipe, batches)
        turns = take_turns_in_company(ways, rounds, "reading", companies)
        quiet_turns = turns[QUIET]
        waits = {}
        if model:
            waits = {name: _wait(one, recipe, device, keep=False) for name, one in ours.items()}
            waits["kept"] = _wait(ours["raw"], recipe, device, keep=True)
        size = sum(file.stat().st_size for file in files) / len(files)
    quiet = [timed.row(name, quiet_turns[REFERENCE]) for name, timed in quiet_turns.items()]
    return InputBench(
        rows=[*quiet, *company_rows(turns, REFERENCE)],
        waits=waits,
        model=model,
        jpeg_bytes=round(size),
        images=len(files),
        batch_size=batch_size,
        batches=batches,
        rounds=rounds,
        company=described() if companies else None,
        environment=environment(),
    )


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


def _unpack(dataset: Dataset, root: Path) -> list[Path]:
    """The packed JPEGs of every split as files in class folders, as a torchvision user has them."""
    files = []
    for part in dataset.image_set.parts:
        read = dataset.image_set.read(part)
        assert isinstance(read.images, PackedJpegs)
        for i, (label, jpeg) in enumerate(zip(read.labels, read.images.files(), strict=True)):
            place = root / f"{label:04}" / f"{part}-{i:06}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(jpeg)
            files.append(place)
    return files


def _drain(batches: Iterable[Tensor], device: torch.device) -> int:
    images = sum(len(batch) for batch in batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images


def _read(
    dataset: Dataset, recipe: Recipe, batches: int, device: torch.device, keep: bool = False
) -> Iterable[Batch]:
    # What is kept decoded is not read at all.
    train = dataset.train if keep else dataset.split("train")
    return training_batches(train, recipe, range(batches), READERS, device, keep=keep)


def _ours(
    dataset: Dataset, to_float: bool, recipe: Recipe, batches: int, device: torch.device
) -> Callable[[], int]:
    preprocess = preprocessing(recipe, dataset.statistics)

    def prepare(batch: Batch) -> Tensor:
        if not to_float:
            return batch.images
        return augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)

    return lambda: _drain(map(prepare, _read(dataset, recipe, batches, device)), device)


def _wait(dataset: Dataset, recipe: Recipe, device: torch.device, *, keep: bool) -> DataWait:
    """The share of a training step's time in which it waits for its batch, and the hours that 90
    epochs of ILSVRC-2012 take at this pace; the first step is warm-up."""
    steps = STEPS[device.type]
    data = TrainingData(
        dataset.split("train"), dataset.split("val"), len(dataset.classes), dataset.statistics
    )
    trainer = Trainer(recipe, data)
    waited, began, last = 0.0, 0.0, 0.0
    with progress(f"{recipe.model} from {dataset.image_set.path}", steps + 1, "steps") as bar:
        for batch in _read(dataset, recipe, steps + 1, device, keep):
            waited += time.perf_counter() - last if began else 0.0
            trainer.train_step(batch, lr=0.01)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            last = time.perf_counter()
            began = began or last
            bar.advance()
    seconds = last - began
    speed = steps * recipe.batch_size / seconds
    return DataWait(
        share=waited / seconds,
        images_per_s=round(speed, 1),
        hours_of_90_epochs=round(training_hours(speed), 2),
        steps=steps,
    )


class _Photos(TorchDataset[Tensor]):
    """What a torchvision user has: decode, crop, mirror, normalise, image by image."""

    def __init__(self, files: list[Path], to_float: bool, recipe: Recipe) -> None:
        self.files, self.to_float, self.recipe = files, to_float, recipe

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        size, crop = self.recipe.size, self.recipe.crop
        with Image.open(self.files[index]) as file:
            pixels: NDArray[np.uint8] = np.array(file.convert("RGB"))
        if not self.to_float:
            return torch.from_numpy(pixels)
        y, x = (int(torch.randint(size - crop + 1, ())) for _ in range(2))
        pixels = pixels[y : y + crop, x : x + crop]
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = (torch.tensor(v) / 255 for v in (TORCHVISION_MEAN, TORCHVISION_STD))
        return tensor.sub_(mean[:, None, None]).div_(std[:, None, None])


def _reference(
    files: list[Path], to_float: bool, recipe: Recipe, batches: int, device: torch.device
) -> Callable[[], int]:
    chosen = [files[i % len(files)] for i in range(batches * recipe.batch_size)]
    loader = DataLoader(
        _Photos(chosen, to_float, recipe),
        recipe.batch_size,
        shuffle=True,
        num_workers=READERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    return lambda: _drain((batch.to(device, non_blocking=True) for batch in loader), device)


def _floor(to_float: bool, recipe: Recipe, batches: int) -> Callable[[], int]:
    shape: tuple[int, ...] = (recipe.batch_size, recipe.size, recipe.size, 3)
    if to_float:
        shape = (recipe.batch_size, 3, recipe.crop, recipe.crop)
    source = torch.ones(shape, dtype=torch.float32 if to_float else torch.uint8)
    return lambda: sum(len(source.clone()) for _ in range(batches))
