"""A trained run as a function from images to probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import nn

from alexnet.data.augment import Preprocess
from alexnet.data.dataset import rules_of
from alexnet.data.image_set import Opening
from alexnet.data.images import Orient, decode_image, fit_image
from alexnet.data.packed import open_packed
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.models.net import Net
from alexnet.options import Placeholder, call
from alexnet.recipe import Recipe
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint
from alexnet.runs.records import ClassProbability, DataCard, Misfit, RunStart
from alexnet.runs.rundir import RunDir
from alexnet.runtime import chance_kept, choose_precision, pick_device
from alexnet.terminal import say
from alexnet.training.evaluate import predict_views
from alexnet.training.infer import Inference
from alexnet.training.network import build_net, load_weights, preprocessing

Image = str | Path | bytes | NDArray[np.uint8]
PRECISIONS = ("auto", "fp32", "bf16")  # that answers may be asked for in


@dataclass(frozen=True)
class Predictor:
    """Weights with everything they need: classes, preprocessing, and where they came from.

    `model` has every part by name; `inference` is the same network made for answers alone, or in
    `network`, another runtime's. `precision` is that of the answers: fp32, bf16 or int8.
    """

    model: Net
    recipe: Recipe
    preprocess: Preprocess
    classes: tuple[str, ...]
    run: RunDir
    checkpoint: Path
    data: DataCard
    network: nn.Module | None = None
    precision: str = "fp32"

    @cached_property
    def inference(self) -> nn.Module:
        return Inference(self.model, self.precision) if self.network is None else self.network

    @property
    def unasked(self) -> str:
        """The precision of the run's answers here where none is asked for."""
        return pick_precision("auto", self.recipe, self._device)

    @cached_property
    def _others(self) -> "dict[str, Predictor]":
        return {}

    def at(self, precision: str) -> "Predictor":
        """The same network with answers in fp32 or bf16; auto is what `pick_precision` picks."""
        picked = pick_precision(precision, self.recipe, self._device)
        if picked == self.precision:
            return self
        if self.network is not None:
            raise UsageError(f"precision {precision!r}: this engine answers in {self.precision}")
        return self._others.setdefault(picked, replace(self, precision=picked))

    @property
    def titles(self) -> dict[str, str]:
        """What people call the classes whose own names are codes, as WNIDs; else empty."""
        return dict(self.data.titles or {})

    @property
    def trained_on(self) -> str:
        """What a test of the run's own data has as its `data`."""
        return self.data.where

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def decode(self, image: Image, name: str = "") -> NDArray[np.uint8]:
        """A file, its bytes or pixels uint8 (H, W, C) -> uint8 (size, size, C)."""
        size, channels = self.preprocess.size, self.preprocess.channels
        if isinstance(image, str):
            image = Path(image)
        if isinstance(image, np.ndarray):
            shaped = image.ndim == 3 and image.shape[2] in (1, 3) and image.size
            if image.dtype != np.uint8 or not shaped:
                raise DataError(
                    f"an image array is {image.dtype} {image.shape}, not uint8 (H, W, 1 or 3)"
                )
            grey = image.shape[2] == 1
            pixels = Pillow.fromarray(image[:, :, 0] if grey else image)
            return fit_image(pixels, channels=channels, size=size)
        if not isinstance(image, Path | bytes):
            raise UsageError(f"an image is a path, bytes or uint8 (H, W, C), not {image!r:.60}")
        return decode_image(
            image, channels=channels, size=size, name=name, orient=self.recipe.orient,
            cut_floats=rules_of(self.data) < 2,
        )  # fmt: skip

    def predict(
        self, images: Sequence[Image], views: int = 1, precision: str | None = None
    ) -> NDArray[np.float32]:
        """Probabilities. Shapes: N images -> (N, K), the mean over the views. `precision` is auto,
        fp32 or bf16; without it that of `load`."""
        if precision is not None:
            return self.at(precision).predict(images, views)
        if isinstance(images, str | bytes | Path):
            raise UsageError("predict takes a list of images: put the one in brackets")
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        return self.answer(np.stack([self.decode(image) for image in images]), views)

    def rank(self, probabilities: NDArray[np.float32], top: int) -> list[ClassProbability]:
        """The likeliest `top` classes of one image, best first. Shapes: (K,)."""
        titles = self.titles
        return [
            ClassProbability(
                class_name=(name := self.classes[i]),
                title=titles.get(name),
                index=i,
                probability=float(probabilities[i]),
            )
            for i in np.argsort(-probabilities, kind="stable")[:top].tolist()
        ]

    @torch.inference_mode()
    def answer(self, pixels: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """Probabilities of decoded images. Shapes: uint8 (N, size, size, C) -> (N, K)."""
        images = torch.from_numpy(pixels).to(self._device)
        _, log_p = predict_views(self.inference, images, self.preprocess, views)
        return np.asarray(log_p.exp().cpu().numpy(), np.float32)


def pick_precision(asked: str, recipe: Recipe, device: torch.device) -> str:
    """fp32 or bf16, as asked; for auto bf16 where the run was trained so and the hardware is fast
    at it, else fp32, which is never less exact."""
    if asked not in PRECISIONS:
        raise UsageError(f"precision {asked!r}: there are {', '.join(PRECISIONS)}")
    if asked != "auto":
        return asked
    return "bf16" if choose_precision("auto", device) == recipe.precision == "bf16" else "fp32"


@chance_kept()
def load(run: str | Path, checkpoint: str = "best", precision: str = "auto") -> Predictor:
    """The network of a run directory, ready to predict.

    `checkpoint` is best, last or step-<n>; for `precision` see `pick_precision`. Raises
    CheckpointError for what is missing, damaged or from another run.
    """
    folder = RunDir.open(Path(run))
    recipe, data = read_recipe(folder)
    path = find_checkpoint(folder.checkpoints, checkpoint)
    classes = tuple(data.classes)
    model = build_net(recipe, len(classes))
    load_weights(model, load_checkpoint(path, optimizer=False), recipe)
    model.to(device := pick_device()).eval()
    preprocess = preprocessing(recipe, read_statistics(folder, data))
    if trained_orient(recipe, data) != recipe.orient:
        _warn_of_orient(str(run), data.path)
    picked = pick_precision(precision, recipe, device)
    return Predictor(model, recipe, preprocess, classes, folder, path, data, precision=picked)


def trained_orient(recipe: Recipe, data: DataCard) -> Orient:
    """What was done about the EXIF orientation of a run's training images: what its recipe says,
    and of a run of a packed set from before recipes said it, what the set says, if it is there."""
    if data.kind != "packed" or data.orient is not None:
        return recipe.orient
    try:
        images = open_packed(Opening(Path(data.path)))
    except DataError:
        return recipe.orient
    return images.orient or recipe.orient if images and images.turned else recipe.orient


@cache
def _warn_of_orient(run: str, path: str) -> None:
    say(
        f"warning: {run} learnt from photos that {path} turned upright, and is from before recipes "
        f"said so: it reads photos as they are stored; `{call('export')}` it as a folder and "
        f"`{call('import', Placeholder('FOLDER'), orient='apply')}`"
    )


def read_statistics(run: RunDir, data: DataCard) -> Statistics:
    """What a run measured of its training images; its mean image is checked by digest."""
    image = run.mean_image() if data.mean_image else None
    covariance = tuple(map(tuple, data.covariance))
    found = Statistics(tuple(data.mean), tuple(data.std), covariance, image)
    if found.image_digest != data.mean_image:
        raise CheckpointError(
            f"the mean image in {run.path} is not the one it was trained with: restore its copy"
        )
    return found


def read_recipe(run: RunDir) -> tuple[Recipe, DataCard]:
    """The recipe and the data description of a run's recipe.json, checked against its digest; the
    description says where the `run` is, which keeps the names of its files."""
    saved, place = run.recipe, run.path / "recipe.json"
    foreign = "it is not from this program, or was edited"
    try:
        recipe, digest = Recipe.from_dict(saved["recipe"]), saved["digest"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{place} lacks {error}: {foreign}") from None
    try:
        data = RunStart.read(saved).data
        data.check_channels(recipe.channels)
    except Misfit as odd:
        raise CheckpointError(f"{place}: {odd}; {foreign}: restore a copy") from None
    if digest != recipe.digest:
        raise CheckpointError(
            f"{place} was edited: its digest is {digest} and its fields give "
            f"{recipe.digest}; put the original back, or start a new run with the changed fields"
        )
    return recipe, replace(data, run=str(run.path))
