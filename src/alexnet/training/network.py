"""A recipe's network: built, frozen in part, and filled with given weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.data import draws
from alexnet.data.augment import Preprocess
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, UsageError
from alexnet.models.net import Net, Spec
from alexnet.models.zoo import find_model, model_spec
from alexnet.options import option
from alexnet.recipe import Recipe
from alexnet.runs.checkpoint import Checkpoint
from alexnet.runs.records import RecordedState

WHITEN_IMAGES = 5_000  # of the training slice, from which the first layer is made
WHITEN_CHUNK = 200  # images whose patches are held at once
WHITEN_FLOOR = 1e-3  # of the largest variance, added to each: what hardly varies is not blown up


def preprocessing(recipe: Recipe, statistics: Statistics) -> Preprocess:
    """What every image of a run goes through before the network."""
    return Preprocess(recipe.size, recipe.crop, recipe.channels, statistics, recipe.normalize)


def build_net(recipe: Recipe, classes: int, change: Callable[[Spec], Spec] | None = None) -> Net:
    """The recipe's network with the weights its seed draws, in its memory layout.

    `change` makes another specification of the named one: an ablation that has no name.
    """
    given = (recipe.channels, recipe.crop, recipe.crop)
    spec = model_spec(recipe.model, classes, given)
    torch.manual_seed(draws.net_seed(recipe.seed, 0, draws.INIT))
    keys = find_model(recipe.model).keys
    model = Net(change(spec) if change else spec, given, recipe.dropout, keys)
    for entry in recipe.freeze:
        model.freeze(entry)
    for part, _, _ in recipe.part_rates:
        model.stretch(part)  # refuses what is not there
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError(f"freeze {' '.join(recipe.freeze)} leaves nothing to train: name fewer")
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    return model.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def load_weights(model: Net, checkpoint: Checkpoint, recipe: Recipe) -> None:
    """A run's weights into its network; a checkpoint from elsewhere is a CheckpointError."""
    check_recipe(checkpoint.state, recipe, str(checkpoint.path))
    own = {name: value.shape for name, value in model.state_dict().items()}
    check_weights(own, checkpoint.model, str(checkpoint.path))
    model.load_state_dict(checkpoint.model)


def check_recipe(state: Mapping[str, Any], recipe: Recipe, source: str) -> None:
    """CheckpointError where the state of `source` is of another recipe."""
    if RecordedState(state).recipe != recipe.digest:
        raise CheckpointError(
            f"{source} was made by another recipe than this run's recipe.json: "
            "put the run's own checkpoint back, or start a new run"
        )


def check_weights(
    shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], source: str
) -> None:
    """CheckpointError where the tensors of `source` are not those of a network of these shapes."""
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
    """The first convolution's weights from preprocessed images (N, C, H, W): the principal
    components of their patches, each over its own deviation, then the same negated for the ReLU.

    Filters beyond those stay as they were drawn; biases are 0. The patches of `chunk` images are
    held at once. Source: Page 2018 and Jordan 2024 (airbench), for 2x2 patches.
    """
    first = model.part(model.layers[0])
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        raise UsageError(
            f"whiten needs a first layer that is one convolution, and {model.layers[0]} is not: "
            "leave it out"
        )
    side, spread, seen = first.kernel_size[0], torch.tensor(0.0), 0
    for some in torch.split(images, chunk):
        patches = some.float().unfold(2, side, side).unfold(3, side, side)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double().cpu()
        spread, seen = spread + rows.T @ rows, seen + len(rows)
    values, vectors = torch.linalg.eigh(spread / seen)
    scaled = (vectors / (values + WHITEN_FLOOR * values[-1]).sqrt()).T.flip(0)
    filters = torch.cat([scaled, -scaled])[: first.out_channels].to(first.weight)
    first.weight[: len(filters)] = filters.view(len(filters), *first.weight.shape[1:])
    if first.bias is not None:
        first.bias.zero_()


@dataclass(frozen=True)
class Taken:
    """What became of each tensor: taken over, made anew (with why), or left in the file."""

    taken: list[str]
    remade: list[str]
    left: list[str]

    def __str__(self) -> str:
        said = [f"{len(self.taken)} tensors taken"]
        if self.remade:
            said.append(f"made anew: {', '.join(self.remade)}")
        if self.left:
            said.append(f"left in the file: {', '.join(self.left)}")
        return "; ".join(said)


def take_weights(model: Net, tensors: Mapping[str, Tensor], source: str) -> Taken:
    """Starts a network from given weights: what has the same name and shape is taken.

    The head is made anew where the classes differ, and so is whatever else does not fit.
    CheckpointError where nothing does, where a tensor holds what is not a number, and where what is
    made anew is frozen: it would stay as it was drawn.
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
        theirs, ours = next(iter(tensors), "nothing"), next(iter(own))
        raise CheckpointError(
            f"{source}: no weight fits this network (it has {theirs!r}, the network {ours!r}): "
            f"name the model the weights are of with {option('model')}"
        )
    for name, value in fitting.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds numbers that are not finite")
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name not in fitting:
            shapes = f" in {tuple(own[name].shape)}, as the network needs it" * (name in tensors)
            raise CheckpointError(
                f"{source}: {name} is frozen and is not there{shapes}: it would stay as it was "
                f"drawn; leave its part out of {option('freeze')}"
            )
    model.load_state_dict({**own, **fitting})
    remade = [
        f"{k} ({tuple(v.shape)}, {tuple(tensors[k].shape)} in the file)" if k in tensors else k
        for k, v in own.items()
        if k not in fitting
    ]
    return Taken(list(fitting), remade, [k for k in tensors if k not in own])
