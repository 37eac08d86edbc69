"""What TensorBoard shows: scalars under the tags people expect, weights, images, the graph."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.errors import Unavailable
from alexnet.options import option
from alexnet.runs.records import Event

_TAGS = {
    "train": {
        "loss": "train/loss",
        "loss_mean": "train/loss_mean",
        "top1": "train/acc1",
        "top5": "train/acc5",
        "lr": "train/lr",
        "images_per_s": "train/images_per_sec",
    },
    "look": {"update": "train/update_to_weight"},
    "val": {"loss": "val/loss", "top1": "val/acc1", "top5": "val/acc5"},
}


class Board:
    """Writes a run's events into `<run>/tensorboard/`; the steps after `step` are written anew."""

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
        """One event of metrics.jsonl; figures that are None are left out."""
        line = event.to_json()
        if line["event"] == "doctor":
            said = f"**{line['name']}** {line['where']}: {line['evidence']}; {line['advice']}"
            self._writer.add_text("doctor", said, line["step"])
        for name, share in line.get("dead", {}).items():
            self._writer.add_scalar(f"dead/{name}", share, line["step"])
        for key, tag in _TAGS.get(line["event"], {}).items():
            if line.get(key) is not None:
                self._writer.add_scalar(tag, line[key], line["step"])
        if line["event"] == "val":
            for name, bound in zip(("low", "high"), line["top1_ci95"], strict=True):
                self._writer.add_scalar(f"val/acc1_ci95_{name}", bound, line["step"])

    def graph(self, model: nn.Module, x: Tensor) -> None:
        """The network's graph, traced with an input (1, C, H, W) in evaluation mode."""
        was_training = model.training
        with warnings.catch_warnings():
            # The tracer warns of itself and of every size that it takes for a constant.
            warnings.simplefilter("ignore")
            self._writer.add_graph(model.eval(), x)
        model.train(was_training)

    def add_histograms(
        self, step: int, model: nn.Module, activations: Mapping[str, Tensor]
    ) -> None:
        """Histograms of every parameter, and of what parts say of the same few images."""
        for name, parameter in model.named_parameters():
            self._writer.add_histogram(f"weights/{name}", parameter.detach().float().cpu(), step)
        for name, values in activations.items():
            self._writer.add_histogram(f"activations/{name}", values.float().cpu(), step)

    def picture(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """A picture (H, W, 3)."""
        self._writer.add_image(tag, pixels, step, dataformats="HWC")

    def settings(self, recipe: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """The recipe's fields as hyper-parameters, with the run's final figures."""
        plain = {
            k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in recipe.items()
        }
        self._writer.add_hparams(plain, dict(figures), run_name=".")

    def close(self) -> None:
        self._writer.close()
