"""TensorBoard's files of a run: scalars under their usual tags, histograms, images, the graph."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.errors import Unavailable
from alexnet.records import DoctorEvent, Event, LookEvent, TrainEvent, ValEvent
from alexnet.support.options import option

_TAGS: dict[type[Event], dict[str, str]] = {
    TrainEvent: {
        "loss": "train/loss",
        "loss_mean": "train/loss_mean",
        "top1": "train/acc1",
        "top5": "train/acc5",
        "lr": "train/lr",
        "images_per_s": "train/images_per_sec",
    },
    LookEvent: {"update_ratio": "train/update_to_weight"},
    ValEvent: {"loss": "val/loss", "top1": "val/acc1", "top5": "val/acc5"},
}


class TensorBoard:
    """Writes a run's events into `<run>/tensorboard/`, replacing those after `step`."""

    def __init__(self, run: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Unavailable(
                f"{option('tensorboard', True)} needs a package that is not installed: "
                "pip install 'alexnet[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def add(self, event: Event) -> None:
        """Add an event of metrics.jsonl, without the figures that are None."""
        if isinstance(event, DoctorEvent):
            text = f"**{event.name}** {event.where}: {event.evidence}; {event.advice}"
            self._writer.add_text("doctor", text, event.step)
        if isinstance(event, LookEvent):
            for name, fraction in event.dead.items():
                self._writer.add_scalar(f"dead/{name}", fraction, event.step)
        for name, tag in _TAGS.get(type(event), {}).items():
            if (value := getattr(event, name)) is not None:
                self._writer.add_scalar(tag, value, event.step)
        if isinstance(event, ValEvent) and event.top1_ci95 is not None:
            for name, bound in zip(("low", "high"), event.top1_ci95, strict=True):
                self._writer.add_scalar(f"val/acc1_ci95_{name}", bound, event.step)

    def add_graph(self, model: nn.Module, image: Tensor) -> None:
        """Add the network's graph, traced with an image (1, C, H, W) in evaluation mode."""
        was_training = model.training
        with warnings.catch_warnings():
            # The tracer warns that it is deprecated, and of every size that it makes a constant.
            warnings.simplefilter("ignore")
            self._writer.add_graph(model.eval(), image)
        model.train(was_training)

    def add_histograms(
        self, step: int, model: nn.Module, activations: Mapping[str, Tensor]
    ) -> None:
        """Add histograms of all parameters, and of the outputs of parts for a few fixed images."""
        for name, parameter in model.named_parameters():
            self._writer.add_histogram(f"weights/{name}", parameter.detach().float().cpu(), step)
        for name, values in activations.items():
            self._writer.add_histogram(f"activations/{name}", values.float().cpu(), step)

    def add_picture(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Add a picture (H, W, 3)."""
        self._writer.add_image(tag, pixels, step, dataformats="HWC")

    def add_recipe(self, recipe: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Add the recipe's fields as hyper-parameters, with the run's final figures."""
        hyperparameters = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in recipe.items()
        }
        self._writer.add_hparams(hyperparameters, dict(figures), run_name=".")

    def close(self) -> None:
        self._writer.close()
