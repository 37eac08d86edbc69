"""A recipe's network and preprocessing, for training and for using what was trained."""

import torch

from alexnet.data import draws
from alexnet.data.augment import Preprocess
from alexnet.errors import CheckpointError
from alexnet.models.net import Net
from alexnet.models.zoo import build_model
from alexnet.recipe import Recipe
from alexnet.store.checkpoint import Checkpoint


def preprocessing(
    recipe: Recipe, statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> Preprocess:
    """What every image of a run goes through before the network."""
    return Preprocess(recipe.size, recipe.crop, recipe.channels, *statistics)


def build_net(recipe: Recipe, classes: int) -> Net:
    """The recipe's network with the weights its seed draws, in its memory layout."""
    torch.manual_seed(draws.net_seed(recipe.seed, 0, draws.INIT))
    model = build_model(
        recipe.model,
        classes,
        channels=recipe.channels,
        size=recipe.crop,
        dropout=recipe.dropout,
    )
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    return model.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def load_weights(model: Net, checkpoint: Checkpoint, recipe: Recipe) -> None:
    """A run's weights into its network; a checkpoint from elsewhere is a CheckpointError."""
    if checkpoint.state.get("recipe") != recipe.digest:
        raise CheckpointError(
            f"{checkpoint.path} was made by another recipe than this run's recipe.json: "
            "put the run's own checkpoint back, or start a new run"
        )
    own = model.state_dict()
    for name in own.keys() ^ checkpoint.model.keys():
        raise CheckpointError(f"{checkpoint.path}: {name!r} is only in one of file and network")
    for name, value in checkpoint.model.items():
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"{checkpoint.path}: {name} is {tuple(value.shape)} and the network needs "
                f"{tuple(own[name].shape)}"
            )
    model.load_state_dict(checkpoint.model)
