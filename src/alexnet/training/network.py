"""A recipe's network: building it, and loading weights into it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.data import draws
from alexnet.data.augment import Preprocess
from alexnet.data.dataset import Dataset
from alexnet.data.loader import steps_per_epoch
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, UsageError
from alexnet.models.layers import BatchNorm
from alexnet.models.net import Net, Spec
from alexnet.models.zoo import find_model, model_spec
from alexnet.recipe import Recipe
from alexnet.records import RecordedState
from alexnet.runs.checkpoint import Checkpoint
from alexnet.support.options import option
from alexnet.training.schedule import refuse_endless_warmup

WHITEN_IMAGES = 5_000  # training images whose patches initialise the first layer
WHITEN_CHUNK = 200  # images whose patches are in memory at once
WHITEN_FLOOR = 1e-3  # share of the largest variance added to each, so that noise is not amplified


def preprocessing(recipe: Recipe, statistics: Statistics) -> Preprocess:
    """Return the preprocessing of a run's images."""
    return Preprocess(recipe.size, recipe.crop, recipe.channels, statistics, recipe.normalize)


def build_net(recipe: Recipe, classes: int, change: Callable[[Spec], Spec] | None = None) -> Net:
    """Build the recipe's network with initial weights drawn from its seed, in its memory layout.

    `change` alters the specification of the named network, for an ablation that has no name.
    """
    input_shape = (recipe.channels, recipe.crop, recipe.crop)
    spec = model_spec(recipe.model, classes, input_shape)
    torch.manual_seed(draws.net_seed(recipe.seed, 0, draws.INIT))
    keys = find_model(recipe.model).keys
    model = Net(change(spec) if change else spec, input_shape, recipe.dropout, keys)
    for entry in recipe.freeze:
        model.freeze(entry)
    for part, _, _ in recipe.part_rates:
        model.stretch(part)  # raises for a part that the network does not have
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError(f"freeze {' '.join(recipe.freeze)} leaves nothing to train: name fewer")
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    return model.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def check_trainable(recipe: Recipe, dataset: Dataset, recorded: bool = False) -> None:
    """Raise UsageError if a recipe cannot be trained on this data, before anything is written.

    Images that are kept in memory are read for it. A `recorded` recipe was trained once, so that
    its warm-up may be as long as it was.
    """
    n_train, _ = len(dataset.train), len(dataset.val)
    spec = model_spec(
        recipe.model, len(dataset.classes), (recipe.channels, recipe.crop, recipe.crop)
    )
    micro = recipe.batch_size // recipe.accumulate
    if micro == 1 and any(isinstance(part, BatchNorm) for part in spec):
        raise UsageError(
            f"batch_size is {recipe.batch_size} in {recipe.accumulate} parts, and the batch norms "
            f"of {recipe.model} need at least 2 images: use "
            f"{option('batch_size', 2 * recipe.accumulate)}"
        )
    if recipe.freeze or recipe.part_lr:
        with torch.device("meta"):  # raises for unknown parts; draws no weights
            build_net(recipe, len(dataset.classes))
    if not recorded:
        refuse_endless_warmup(recipe, steps_per_epoch(n_train, recipe.batch_size))


def load_weights(model: Net, checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Load a run's weights. Raises CheckpointError for a checkpoint of another run."""
    check_recipe(checkpoint.state, recipe, str(checkpoint.path))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    check_weights(shapes, checkpoint.model, str(checkpoint.path))
    model.load_state_dict(checkpoint.model)


def check_recipe(state: Mapping[str, Any], recipe: Recipe, source: str) -> None:
    """Raise CheckpointError if the state of `source` belongs to another recipe."""
    if RecordedState(state).recipe != recipe.digest:
        raise CheckpointError(
            f"{source} was made by another recipe than this run's recipe.json: "
            "put the run's own checkpoint back, or start a new run"
        )


def check_weights(
    shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], source: str
) -> None:
    """Raise CheckpointError if the tensors of `source` differ in name or shape from `shapes`."""
    for name in shapes.keys() ^ tensors.keys():
        raise CheckpointError(f"{source}: {name!r} is only in one of file and network")
    for name, value in tensors.items():
        if value.shape != shapes[name]:
            raise CheckpointError(
                f"{source}: {name} is {tuple(value.shape)} and the network needs "
                f"{tuple(shapes[name])}"
            )


@torch.no_grad()
def whiten(model: Net, images: Tensor, chunk: int = WHITEN_CHUNK) -> None:
    """Initialise the first convolution from preprocessed images (N, C, H, W), in place.

    Filters are the principal components of the image patches, each divided by its standard
    deviation; then the same negated, because of the ReLU. Any further filters keep their initial
    weights; biases become 0. The patches of `chunk` images are in memory at once.
    Source: Page 2018 and Jordan 2024 (airbench), for 2x2 patches.
    """
    first = model.part(model.layers[0])
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        raise UsageError(
            f"whiten needs a first layer that is one convolution, and {model.layers[0]} is not: "
            "leave it out"
        )
    side, products, count = first.kernel_size[0], torch.tensor(0.0), 0
    for part in torch.split(images, chunk):
        patches = part.float().unfold(2, side, side).unfold(3, side, side)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double().cpu()
        products, count = products + rows.T @ rows, count + len(rows)
    values, vectors = torch.linalg.eigh(products / count)
    scaled = (vectors / (values + WHITEN_FLOOR * values[-1]).sqrt()).T.flip(0)
    filters = torch.cat([scaled, -scaled])[: first.out_channels].to(first.weight)
    first.weight[: len(filters)] = filters.view(len(filters), *first.weight.shape[1:])
    if first.bias is not None:
        first.bias.zero_()


@dataclass(frozen=True)
class TransferReport:
    """Names of tensors by fate: copied, newly initialised (with shapes), or left in the file."""

    copied: list[str]
    initialised: list[str]
    left: list[str]

    def __str__(self) -> str:
        clauses = [f"{len(self.copied)} tensors taken"]
        if self.initialised:
            clauses.append(f"made anew: {', '.join(self.initialised)}")
        if self.left:
            clauses.append(f"left in the file: {', '.join(self.left)}")
        return "; ".join(clauses)


def take_weights(model: Net, tensors: Mapping[str, Tensor], source: str) -> TransferReport:
    """Copy the tensors whose name and shape fit into the network; the others stay initialised.

    So the last layer is new where the classes differ. Raises CheckpointError if no weight fits, if
    a tensor is not finite, or if a frozen parameter would keep its initial weights.
    """
    own = model.state_dict()
    fitting = {
        k: v
        for k, v in tensors.items()
        if k in own
        and v.shape == own[k].shape
        and v.is_floating_point() == own[k].is_floating_point()
    }
    if not any(v.dim() > 1 for v in fitting.values()):
        in_file, in_network = next(iter(tensors), "nothing"), next(iter(own))
        raise CheckpointError(
            f"{source}: no weight fits this network (the file has {in_file!r}, the network "
            f"{in_network!r}): name the model of these weights with {option('model')}"
        )
    for name, value in fitting.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds numbers that are not finite")
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name not in fitting:
            shape = f" in the shape {tuple(own[name].shape)}" * (name in tensors)
            raise CheckpointError(
                f"{source}: {name} is frozen, and the file does not have it{shape}: it would keep "
                f"its random initial weights; leave its part out of {option('freeze')}"
            )
    model.load_state_dict({**own, **fitting})
    initialised = [
        f"{k} ({tuple(v.shape)}, {tuple(tensors[k].shape)} in the file)" if k in tensors else k
        for k, v in own.items()
        if k not in fitting
    ]
    return TransferReport(list(fitting), initialised, [k for k in tensors if k not in own])
