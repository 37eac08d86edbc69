"""A trained run as a function from images to probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import nn

from alexnet.data.augment import Preprocess
from alexnet.data.images import decode_image, fit_image
from alexnet.data.statistics import Statistics
from alexnet.engine.evaluate import predict_views
from alexnet.engine.infer import Inference
from alexnet.engine.network import build_net, load_weights, preprocessing
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.runtime import choose_precision, pick_device
from alexnet.store.checkpoint import find_checkpoint, load_checkpoint
from alexnet.store.rundir import RunDir
from alexnet.store.shape import odd_data

Image = str | Path | bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """Weights with everything they need: classes, preprocessing, and where they came from.

    `model` has every part by name; `inference` is the same network made for answers alone, or in
    `network`, another runtime's.
    """

    model: Net
    recipe: Recipe
    preprocess: Preprocess
    classes: tuple[str, ...]
    run: RunDir
    checkpoint: Path
    data: dict[str, Any]
    network: nn.Module | None = None

    @cached_property
    def inference(self) -> nn.Module:
        if self.network is not None:
            return self.network
        # bf16 where it was trained so and this machine is fast at it: fp32 is never less exact.
        quick = choose_precision("auto", self._device) == self.recipe.precision == "bf16"
        return Inference(self.model, "bf16" if quick else "fp32")

    @property
    def titles(self) -> dict[str, str]:
        """What people call the classes whose own names are codes, as WNIDs; else empty."""
        return dict(self.data.get("titles", {}))

    @property
    def trained_on(self) -> str:
        """What a test of the run's own data has as its `data`."""
        return str(self.data["path"] or self.data["kind"])

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
            return fit_image(Pillow.fromarray(image.squeeze()), channels=channels, size=size)
        if not isinstance(image, Path | bytes):
            raise UsageError(f"an image is a path, bytes or uint8 (H, W, C), not {image!r:.60}")
        return decode_image(image, channels=channels, size=size, name=name)

    def predict(self, images: Sequence[Image], views: int = 1) -> NDArray[np.float32]:
        """Probabilities. Shapes: N images -> (N, K), the mean over the views."""
        if isinstance(images, str | bytes | Path):
            raise UsageError("predict takes a list of images: put the one in brackets")
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        return self.answer(np.stack([self.decode(image) for image in images]), views)

    def rank(self, probabilities: NDArray[np.float32], top: int) -> list[dict[str, Any]]:
        """The likeliest `top` classes of one image, best first: class, index and probability, and
        a title where people call it otherwise. Shapes: (K,)."""
        ranked, titles = [], self.titles
        for i in np.argsort(-probabilities, kind="stable")[:top].tolist():
            name = self.classes[i]
            title = {"title": titles[name]} if name in titles else {}
            probability = float(probabilities[i])
            ranked.append({"class": name, **title, "index": i, "probability": probability})
        return ranked

    @torch.inference_mode()
    def answer(self, pixels: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """Probabilities of decoded images. Shapes: uint8 (N, size, size, C) -> (N, K)."""
        images = torch.from_numpy(pixels).to(self._device)
        _, log_p = predict_views(self.inference, images, self.preprocess, views)
        return np.asarray(log_p.exp().cpu().numpy(), np.float32)


def load(run: str | Path, checkpoint: str = "best") -> Predictor:
    """The network of a run directory, ready to predict.

    `checkpoint` is best, last or step-<n>. Raises CheckpointError for what is missing, damaged or
    from another run.
    """
    folder = RunDir.open(Path(run))
    recipe, data = read_recipe(folder)
    path = find_checkpoint(folder.checkpoints, checkpoint)
    classes = tuple(data["classes"])
    model = build_net(recipe, len(classes))
    load_weights(model, load_checkpoint(path, optimizer=False), recipe)
    model.to(pick_device()).eval()
    preprocess = preprocessing(recipe, read_statistics(folder, data))
    return Predictor(model, recipe, preprocess, classes, folder, path, data)


def read_statistics(run: RunDir, data: dict[str, Any]) -> Statistics:
    """What a run measured of its training images; its mean image is checked by digest."""
    image = run.mean_image() if data.get("mean_image") else None
    covariance = tuple(map(tuple, data.get("covariance", ())))
    found = Statistics(tuple(data["mean"]), tuple(data["std"]), covariance, image)
    if found.image_digest != data.get("mean_image"):
        raise CheckpointError(
            f"the mean image in {run.path} is not the one it was trained with: restore its copy"
        )
    return found


def read_recipe(run: RunDir) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the data description of a run's recipe.json, checked against its digest; the
    description says where the `run` is, which keeps the names of its files."""
    saved = run.recipe
    try:
        recipe, data, digest = Recipe.from_dict(saved["recipe"]), saved["data"], saved["digest"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run.path / 'recipe.json'} lacks {error}: it is not from this program, or was edited"
        ) from None
    if odd := odd_data(data, recipe.channels):
        raise CheckpointError(
            f"{run.path / 'recipe.json'}: {odd}; it is not from this program, or was edited: "
            "restore a copy"
        )
    if digest != recipe.digest:
        raise CheckpointError(
            f"{run.path / 'recipe.json'} was edited: its digest is {digest} and its fields give "
            f"{recipe.digest}; put the original back, or start a new run with the changed fields"
        )
    return recipe, {**data, "run": str(run.path)}
