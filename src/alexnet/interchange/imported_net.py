"""The network of a file of weights, and the images that it expects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.data.statistics import TORCHVISION_MEAN, TORCHVISION_STD, Statistics
from alexnet.errors import CheckpointError, UsageError
from alexnet.interchange.certificate import (
    certificate_path,
    certified_recipe,
    check_sha256,
    read_certificate,
)
from alexnet.interchange.foreign_layers import (
    ForeignLayer,
    ForeignNorm,
    match_layers,
    read_caffe_mean,
    read_caffemodel,
    read_onnx,
)
from alexnet.models.net import Net
from alexnet.models.zoo import build_model, find_model
from alexnet.recipe import Recipe
from alexnet.runs.rundir import RunDir
from alexnet.runs.weights import read_weights
from alexnet.support.options import Placeholder, option
from alexnet.training.network import build_net

CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)  # RGB, the mean of ilsvrc_2012_mean
_CAFFE_MODELS = ("alexnet-caffe", "caffenet")


@dataclass(frozen=True)
class ExpectedImages:
    """The preprocessing that weights expect, its `source`, and the names of their classes, where
    these are known."""

    recipe: Recipe
    statistics: Statistics
    source: str
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        recipe = self.recipe
        colours = "grey" if recipe.channels == 1 else "RGB"
        orient = (
            "turned upright by EXIF" if recipe.orient == "apply" else "EXIF orientation ignored"
        )
        return (
            f"{colours}, {orient}, shorter side to {recipe.size} pixels, centre "
            f"{recipe.crop}x{recipe.crop}, normalize {recipe.normalize} (from {self.source})"
        )


def expected_images(
    path: Path, model: str | None, mean: Path | None, fields: dict[str, Any]
) -> ExpectedImages:
    """The images that a file of weights expects: those in its certificate or, where it has none,
    those that weights of this `model` usually expect.

    `mean` is a mean image of Caffe. `fields` are recipe fields that the caller sets instead.
    """
    if path.suffix == ".pt2":
        raise UsageError(
            f"{path}: reading torch.export's files can run code: import safetensors or ONNX"
        )
    if path.is_dir() or certificate_path(path).is_file():
        return _certified_images(path, model, mean, fields)
    if model is None:
        raise UsageError(
            f"{path}: name the network of these weights, as {option('as', 'alexnet-2014')}"
        )
    preset = find_model(model)
    recipe = Recipe(
        name=model, model=model, data="", precision="fp32", channels=preset.channels,
        size=256 if preset.size >= 224 else preset.size, crop=preset.size, normalize="torchvision",
        steps=1,
    )  # fmt: skip
    if model in _CAFFE_MODELS:
        statistics = Statistics(CAFFE_MEAN, (1.0,) * 3, ())
        recipe, source = recipe.replace(normalize="mean"), "Caffe's mean of ILSVRC-2012"
        if mean is not None:
            image = read_caffe_mean(mean)
            recipe = recipe.replace(normalize="centre", size=len(image))
            statistics = Statistics(tuple(image.mean((0, 1)).tolist()), (1.0,) * 3, (), image)
            source = str(mean)
    elif mean is not None:
        raise UsageError(
            f"{option('mean')}: Caffe's mean image belongs to {' and '.join(_CAFFE_MODELS)}: "
            "leave it out"
        )
    else:
        statistics = Statistics(TORCHVISION_MEAN, TORCHVISION_STD, ())
        source = "torchvision" if model == "alexnet-2014" else "torchvision, which is a guess"
    if fields.get("normalize", "torchvision") not in ("torchvision", recipe.normalize):
        raise UsageError(
            f"{option('normalize', fields['normalize'])} needs the mean of the training images, "
            f"which only a certificate has: use {option('normalize', 'torchvision')}, or a file "
            "with its certificate"
        )
    return ExpectedImages(recipe.replace(**fields), statistics, source)


def _certified_images(
    path: Path, model: str | None, mean: Path | None, fields: dict[str, Any]
) -> ExpectedImages:
    """The images in the certificate of a file or folder, after the check of its sha256."""
    certificate = read_certificate(path)
    weights = path / "model.safetensors" if path.is_dir() else path
    if not (check := check_sha256(certificate, weights)).ok:
        raise CheckpointError(
            f"{path} is not the file of its certificate ({check.evidence}): get it again"
        )
    recipe = certified_recipe(certificate)
    if model not in (None, recipe.model):
        raise UsageError(
            f"{option('as', model)}: the certificate of {path} says {recipe.model}: leave it out"
        )
    if mean is not None:
        raise UsageError(
            f"{option('mean', mean)}: the certificate of {path} has the mean: leave it out"
        )
    images = certificate.preprocessing
    mean_image = None
    if recipe.normalize in ("image", "centre"):
        if not path.is_dir():
            raise CheckpointError(
                f"{path}: its mean image is not beside it: export a folder "
                f"({option('format', 'safetensors')} {option('out', Placeholder('FOLDER'))}) and "
                "import that"
            )
        mean_image = RunDir(path).mean_image()
    statistics = Statistics(tuple(images.mean), tuple(images.std), (), mean_image)
    if statistics.image_digest != images.mean_image:
        raise CheckpointError(
            f"{path}: its mean image is not the one it was trained with: restore its copy"
        )
    recipe = recipe.replace(**fields)
    return ExpectedImages(recipe, statistics, "its certificate", tuple(certificate.classes))


def read_net(path: Path, recipe: Recipe, bgr: bool | None) -> tuple[Net, list[str]]:
    """Load the weights of a file into the recipe's network. Returns the network, and the names of
    the tensors in the file that it does not have.

    `bgr` says whether the first layer expects blue first; None: it does in a model of Caffe. Raises
    CheckpointError where a tensor of the network is missing or has another shape.
    """
    suffix = path.suffix.lower()
    if suffix in (".caffemodel", ".onnx"):
        layers: Sequence[ForeignLayer | ForeignNorm]
        layers = read_caffemodel(path) if suffix == ".caffemodel" else read_onnx(path)
        classes = len([one for one in layers if isinstance(one, ForeignLayer)][-1].weight)
        net = build_net(recipe, classes)
        is_bgr = recipe.model in _CAFFE_MODELS if bgr is None else bgr
        tensors = match_layers(layers, net, path, bgr=is_bgr)
    else:
        if bgr:
            raise UsageError(
                f"{option('bgr', True)}: {path} has torch's names, and its colours are RGB"
            )
        tensors = read_weights(path / "model.safetensors" if path.is_dir() else path)
        net = build_net(recipe, _count_classes(path, recipe, tensors))
    state_dict = net.state_dict()
    # Files from before torch 0.4.1 have no counts of batches, and nothing depends on them.
    counts = {k: v for k, v in state_dict.items() if k.endswith("num_batches_tracked")}
    tensors = {**counts, **tensors}
    if absent := [name for name in state_dict if name not in tensors]:
        raise CheckpointError(
            f"{path} has no {', '.join(absent)}, which {recipe.model} needs: name another network "
            f"with {option('as')}, or get the whole file"
        )
    for name, value in state_dict.items():
        if tensors[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensors[name].shape)} and {recipe.model} takes "
                f"{tuple(value.shape)}: name another network with {option('as')}"
            )
        if not tensors[name].isfinite().all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite: get it again")
    net.load_state_dict({name: tensors[name] for name in state_dict})
    return net.eval(), [name for name in tensors if name not in state_dict]


def _count_classes(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> int:
    """The number of classes of a state dict: the rows of its last layer."""
    with torch.device("meta"):
        net = build_model(recipe.model, 10, channels=recipe.channels, size=recipe.crop)
    last = f"{net.parts[net.layers[-1]]}.weight"
    if last not in tensors or tensors[last].dim() != 2:
        raise CheckpointError(
            f"{path} has no {last}, the last layer of {recipe.model} (its first tensor is "
            f"{next(iter(tensors))}): name its own network with {option('as')}"
        )
    return len(tensors[last])
