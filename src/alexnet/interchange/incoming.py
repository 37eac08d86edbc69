"""What a file of weights is to become: its network, filled, and what images it expects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.data.statistics import TORCHVISION_MEAN, TORCHVISION_STD, Statistics
from alexnet.errors import CheckpointError, UsageError
from alexnet.interchange.certificate import check_sha256, place_of, read_certificate, recipe_of
from alexnet.interchange.foreign import (
    ForeignLayer,
    ForeignNorm,
    match_layers,
    read_caffe_mean,
    read_caffemodel,
    read_onnx,
)
from alexnet.models.net import Net
from alexnet.models.zoo import build_model, find_model
from alexnet.options import Placeholder, option
from alexnet.recipe import Recipe
from alexnet.runs.rundir import RunDir
from alexnet.runs.weights import read_weights
from alexnet.training.network import build_net

CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)  # RGB; of Caffe's ilsvrc_2012_mean
_CAFFE = ("alexnet-caffe", "caffenet")


@dataclass(frozen=True)
class Expected:
    """What weights expect of images, from where that is known, and their class names if known."""

    recipe: Recipe
    statistics: Statistics
    source: str
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        r = self.recipe
        colours = "grey" if r.channels == 1 else "RGB"
        turned = "turned upright by EXIF, " if r.orient == "apply" else "EXIF orientation ignored, "
        return (
            f"{colours}, {turned}shorter side to {r.size} pixels, centre {r.crop}x{r.crop}, "
            f"normalize {r.normalize} (from {self.source})"
        )


def expected(path: Path, model: str | None, mean: Path | None, fields: dict[str, Any]) -> Expected:
    """From the certificate where there is one, else what the model's weights are known for.

    `mean` is Caffe's mean image; `fields` are recipe fields that the caller knows better.
    """
    if path.suffix == ".pt2":
        raise UsageError(
            f"{path}: reading torch.export's files can run code: import safetensors or ONNX"
        )
    if path.is_dir() or place_of(path).is_file():
        made = read_certificate(path)
        weights = path / "model.safetensors" if path.is_dir() else path
        if not (check := check_sha256(made, weights)).ok:
            raise CheckpointError(f"not what its certificate is of: {check.evidence}")
        recipe = recipe_of(made)
        if model not in (None, recipe.model):
            raise UsageError(
                f"{option('as', model)}: the certificate of {path} says {recipe.model}"
            )
        if mean is not None:
            raise UsageError(
                f"{option('mean', mean)}: the certificate of {path} has the mean: leave it out"
            )
        said = made.preprocessing
        image = None
        if recipe.normalize in ("image", "centre"):
            if not path.is_dir():
                raise CheckpointError(
                    f"{path}: its mean image is not beside it: export a folder "
                    f"({option('format', 'safetensors')} {option('out', Placeholder('FOLDER'))}) "
                    "and import that"
                )
            image = RunDir(path).mean_image()
        statistics = Statistics(tuple(said.mean), tuple(said.std), (), image)
        if statistics.image_digest != said.mean_image:
            raise CheckpointError(f"{path}: its mean image is another one than was trained with")
        recipe = recipe.replace(**fields)
        return Expected(recipe, statistics, "its certificate", tuple(made.classes))
    if model is None:
        raise UsageError(
            f"{path}: name the network the weights are of, as {option('as', 'alexnet-2014')}"
        )
    preset = find_model(model)
    recipe = Recipe(
        name=model, model=model, data="", precision="fp32", channels=preset.channels,
        size=256 if preset.size >= 224 else preset.size, crop=preset.size, normalize="torchvision",
        steps=1,
    )  # fmt: skip
    if model in _CAFFE:
        statistics = Statistics(CAFFE_MEAN, (1.0,) * 3, ())
        recipe, source = recipe.replace(normalize="mean"), "Caffe's mean of ILSVRC-2012"
        if mean is not None:
            image = read_caffe_mean(mean)
            recipe = recipe.replace(normalize="centre", size=len(image))
            statistics = Statistics(tuple(image.mean((0, 1)).tolist()), (1.0,) * 3, (), image)
            source = str(mean)
    elif mean is not None:
        raise UsageError(f"{option('mean')}: Caffe's mean image belongs to {' and '.join(_CAFFE)}")
    else:
        statistics = Statistics(TORCHVISION_MEAN, TORCHVISION_STD, ())
        source = "torchvision" if model == "alexnet-2014" else "torchvision, which is a guess"
    if fields.get("normalize", "torchvision") not in ("torchvision", recipe.normalize):
        raise UsageError(
            f"{option('normalize', fields['normalize'])} needs means that are not known here: a "
            "certificate "
            f"has them, or {option('normalize', 'torchvision')} is right"
        )
    return Expected(recipe.replace(**fields), statistics, source)


def read_net(path: Path, recipe: Recipe, bgr: bool | None) -> tuple[Net, list[str]]:
    """The recipe's network filled from a file, and the names of what was left in the file.

    Every tensor of the network must be there in its shape. `bgr` is whether the first layer takes
    blue first, and where it is None the kind of the file says. Raises CheckpointError.
    """
    suffix = path.suffix.lower()
    if suffix in (".caffemodel", ".onnx"):
        layers: Sequence[ForeignLayer | ForeignNorm]
        layers = read_caffemodel(path) if suffix == ".caffemodel" else read_onnx(path)
        classes = len([one for one in layers if isinstance(one, ForeignLayer)][-1].weight)
        net = build_net(recipe, classes)
        turned = recipe.model in _CAFFE if bgr is None else bgr
        tensors = match_layers(layers, net, path, bgr=turned)
    else:
        if bgr:
            raise UsageError(
                f"{option('bgr', True)}: {path} has torch's names, and its colours are RGB"
            )
        tensors = read_weights(path / "model.safetensors" if path.is_dir() else path)
        net = build_net(recipe, _classes(path, recipe, tensors))
    own = net.state_dict()
    # Files from before torch 0.4.1 do not count batches, and nothing depends on it.
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    tensors = {**counters, **tensors}
    if absent := [name for name in own if name not in tensors]:
        raise CheckpointError(
            f"{path} has no {', '.join(absent)}, which {recipe.model} needs: name another network "
            f"with {option('as')}, or get the whole file"
        )
    for name, value in own.items():
        if tensors[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensors[name].shape)} and {recipe.model} takes "
                f"{tuple(value.shape)}: name another network with {option('as')}"
            )
        if not tensors[name].isfinite().all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite: get it again")
    net.load_state_dict({name: tensors[name] for name in own})
    return net.eval(), [name for name in tensors if name not in own]


def _classes(path: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> int:
    """How many classes a state dict tells apart: the rows of its last layer."""
    with torch.device("meta"):
        net = build_model(recipe.model, 10, channels=recipe.channels, size=recipe.crop)
    head = f"{net.parts[net.layers[-1]]}.weight"
    if head not in tensors or tensors[head].dim() != 2:
        raise CheckpointError(
            f"{path} has no {head}, the last layer of {recipe.model} (it begins with "
            f"{next(iter(tensors))}): name its own network with {option('as')}"
        )
    return len(tensors[head])
