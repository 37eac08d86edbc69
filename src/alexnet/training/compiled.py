"""The network of a training step as torch.compile makes it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import Interrupted, Unavailable, UsageError
from alexnet.models.net import Net
from alexnet.options import option
from alexnet.recipe import Recipe
from alexnet.terminal import say
from alexnet.training.parallel import Team

BACKEND = "inductor"
Backend = Callable[[Any, Any], Any]  # a graph and its inputs -> what computes it


class Compiled(nn.Module):
    """A network, `module`, whose call is compiled; its first call takes a minute or more.

    The weights are the network's own. Hooks on its parts are not seen by the compiled call.
    `backend` is torch.compile's. Raises Unavailable where this machine cannot compile, as without a
    C++ compiler.
    """

    def __init__(self, net: Net, backend: str | Backend | None = None) -> None:
        super().__init__()
        self.module = net
        # Fullgraph: a break would cost what compiling gains, and nobody would hear of it.
        self._call: Any = torch.compile(net, backend=backend or BACKEND, fullgraph=True)

    def forward(self, images: Tensor) -> Tensor:
        try:
            logits: Tensor = self._call(images)
        except Exception as error:
            if stopped := _interruption(error):  # the compiler was waited for when it came
                raise stopped from None
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            why = " ".join(str(error).split())[:200]
            raise Unavailable(
                f"torch.compile does not work here ({why}): leave {option('compile', True)} out, "
                "or install "
                "what it needs (a C++ compiler; on a GPU triton)"
            ) from error
        return logits


def _interruption(error: BaseException) -> Interrupted | None:
    """What stopped a compiler that wraps whatever is raised in it."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, Interrupted):
        below = below.__cause__ or below.__context__
    return below


def compiled(model: nn.Module, recipe: Recipe, team: Team) -> nn.Module:
    """The model of the steps that nobody looks into: compiled where the recipe says so."""
    if not recipe.compile:
        return model
    if team.size > 1:
        raise UsageError(
            f"compile is for one process: leave {option('compile', True)} out under torchrun"
        )
    assert isinstance(model, Net)
    say("compiling the network: the first step takes a minute or more")
    return Compiled(model)
