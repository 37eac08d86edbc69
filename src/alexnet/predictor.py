"""The predictor: a trained run as a function from images to probabilities."""

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
from alexnet.recipe import Recipe
from alexnet.records import ClassProbability, DataCard
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runtime import chance_kept, choose_precision, pick_device
from alexnet.support.argument_checks import checked
from alexnet.support.options import Placeholder, call
from alexnet.support.terminal import say
from alexnet.training.evaluate import predict_views
from alexnet.training.inference import Inference
from alexnet.training.network import build_net, load_weights, preprocessing

Image = str | Path | bytes | NDArray[np.uint8]
PRECISIONS = ("auto", "fp32", "bf16")  # the precisions that a caller may request


@dataclass(frozen=True)
class Predictor:
    """A trained network with everything for its use: classes, preprocessing, and origin.

    `model` has all parts by name. `inference` computes the answers: the same network prepared for
    inference, or `network`, where another runtime computes. `precision` is that of the answers:
    fp32, bf16 or int8.
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
        """The network that computes answers."""
        return Inference(self.model, self.precision) if self.network is None else self.network

    @property
    def default_precision(self) -> str:
        """The precision of answers on this machine where the caller requests none."""
        return pick_precision("auto", self.recipe, self._device)

    @cached_property
    def _by_precision(self) -> "dict[str, Predictor]":
        return {}

    def at(self, precision: str) -> "Predictor":
        """The same network with answers in `precision`: fp32, bf16, or auto (`pick_precision`)."""
        picked = pick_precision(precision, self.recipe, self._device)
        if picked == self.precision:
            return self
        if self.network is not None:
            raise UsageError(f"precision {precision!r}: this engine answers in {self.precision}")
        return self._by_precision.setdefault(picked, replace(self, precision=picked))

    @property
    def titles(self) -> dict[str, str]:
        """Readable names of the classes, where class names are codes such as WordNet ids."""
        return dict(self.data.titles or {})

    @property
    def trained_on(self) -> str:
        """The path or kind of the run's data, as tests on it record in `data`."""
        return self.data.where

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def decode(self, image: Image, name: str = "") -> NDArray[np.uint8]:
        """Decode and scale an image: a path, the bytes of a file, or pixels uint8 (H, W, C).

        Returns uint8 (size, size, C). `name` stands for bytes in messages.
        """
        size, channels = self.preprocess.size, self.preprocess.channels
        if isinstance(image, str):
            image = Path(image)
        if isinstance(image, np.ndarray):
            is_image = image.ndim == 3 and image.shape[2] in (1, 3) and image.size
            if image.dtype != np.uint8 or not is_image:
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

    @checked()
    def predict(
        self, images: Image | Sequence[Image], views: int = 1, precision: str | None = None
    ) -> NDArray[np.float32]:
        """Probabilities of N images: (N, K), the mean over the views; one image needs no list.
        `precision` is auto, fp32 or bf16; None is the one of `load`."""
        if precision is not None:
            return self.at(precision).predict(images, views)
        assert isinstance(images, list)  # as `checked` makes it
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        return self.answer(np.stack([self.decode(image) for image in images]), views)

    def rank(self, probabilities: NDArray[np.float32], top: int) -> list[ClassProbability]:
        """The `top` likeliest classes of an image, best first, from its probabilities (K,)."""
        titles = self.titles
        return [
            ClassProbability(
                class_name=self.classes[i],
                title=titles.get(self.classes[i]),
                index=i,
                probability=float(probabilities[i]),
            )
            for i in np.argsort(-probabilities, kind="stable")[:top].tolist()
        ]

    @torch.inference_mode()
    def answer(self, pixels: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """Probabilities of decoded images. Shapes: uint8 (N, size, size, C) -> (N, K)."""
        images = torch.from_numpy(pixels).to(self._device)
        _, log_probabilities = predict_views(self.inference, images, self.preprocess, views)
        return np.asarray(log_probabilities.exp().cpu().numpy(), np.float32)


def pick_precision(requested: str, recipe: Recipe, device: torch.device) -> str:
    """The precision of answers: fp32 or bf16.

    `requested` is fp32, bf16 or auto. For auto it is bf16 where the run was trained in bf16 and the
    device is fast at it, else fp32, which is never less exact.
    """
    if requested not in PRECISIONS:
        raise UsageError(f"precision {requested!r}: there are {', '.join(PRECISIONS)}")
    if requested != "auto":
        return requested
    return "bf16" if choose_precision("auto", device) == recipe.precision == "bf16" else "fp32"


@checked()
@chance_kept()
def load(run: str | Path, checkpoint: str = "best", precision: str = "auto") -> Predictor:
    """Load the network of a run directory for prediction.

    `checkpoint` is best, last or step-<n>; `precision` is auto, fp32 or bf16 (auto: bf16 where the
    run was trained in it and the hardware is fast at it). Raises CheckpointError for files that are
    missing, damaged or from another run.
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
    """Whether the EXIF orientation of a run's training images was applied or ignored.

    The recipe says so. For a run on a packed set that is older than that field, the packed set
    does, where it still exists."""
    if data.kind != "packed" or data.orient is not None:
        return recipe.orient
    try:
        images = open_packed(Opening(Path(data.path)))
    except DataError:
        return recipe.orient
    return images.orient or recipe.orient if images and images.turned else recipe.orient


@cache
def _warn_of_orient(run: str, path: str) -> None:
    again = call("import", Placeholder("FOLDER"), orient="apply")
    say(
        f"warning: {run} was trained on photos that {path} had turned upright, but its recipe does "
        "not say so, so it reads photos as they are stored; to turn them, "
        f"`{call('export')}` it as a folder and `{again}`"
    )


def read_statistics(run: RunDir, data: DataCard) -> Statistics:
    """Read the statistics of a run's training images. Raises CheckpointError where the mean image
    does not have its digest."""
    image = run.mean_image() if data.mean_image else None
    covariance = tuple(map(tuple, data.covariance))
    statistics = Statistics(tuple(data.mean), tuple(data.std), covariance, image)
    if statistics.image_digest != data.mean_image:
        raise CheckpointError(
            f"the mean image in {run.path} is not the one it was trained with: restore its copy"
        )
    return statistics
