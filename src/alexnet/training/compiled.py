"""Compiling the network of a training step with torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import Interrupted, Unavailable, UsageError
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.support.options import option
from alexnet.support.terminal import say
from alexnet.training.parallel import Team

BACKEND = "inductor"
Backend = Callable[[Any, Any], Any]  # (graph, example inputs) -> compiled function


class Compiled(nn.Module):
    """A compiled network; its first call takes a minute or more.

    `module` is the network, whose weights it shares. The compiled call ignores hooks on its parts.
    `backend` is that of torch.compile. Raises Unavailable if this machine cannot compile, for
    example without a C++ compiler.
    """

    def __init__(self, net: Net, backend: str | Backend | None = None) -> None:
        super().__init__()
        self.module = net
        # fullgraph: a graph break would silently cost what compiling gains.
        self._call: Any = torch.compile(net, backend=backend or BACKEND, fullgraph=True)

    def forward(self, images: Tensor) -> Tensor:
        try:
            logits: Tensor = self._call(images)
        except Exception as error:
            if stopped := _interruption(error):  # a signal arrived while the compiler ran
                raise stopped from None
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            why = " ".join(str(error).split())[:200]
            raise Unavailable(
                f"torch.compile does not work here ({why}): leave {option('compile', True)} out, "
                "or install what it needs (a C++ compiler; on a GPU triton)"
            ) from error
        return logits


def _interruption(error: BaseException) -> Interrupted | None:
    """Find the interruption in the causes of an error: the compiler wraps all that it raises."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupted):
        cause = cause.__cause__ or cause.__context__
    return cause


def compiled(model: nn.Module, recipe: Recipe, team: Team) -> nn.Module:
    """Return the model for steps without hooks: compiled if the recipe asks for it."""
    if not recipe.compile:
        return model
    if team.size > 1:
        raise UsageError(
            f"compile works in one process only: leave {option('compile', True)} out under torchrun"
        )
    assert isinstance(model, Net)
    say("compiling the network: the first step takes a minute or more")
    return Compiled(model)
