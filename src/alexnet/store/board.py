"""Scalars for TensorBoard, under the tags people expect."""

from pathlib import Path
from typing import Any

from alexnet.errors import Unavailable

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
                "--tensorboard needs a package that is not installed: "
                "pip install 'alexnet[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """One event of metrics.jsonl; figures that are None are left out."""
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

    def close(self) -> None:
        self._writer.close()
