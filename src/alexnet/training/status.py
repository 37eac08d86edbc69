"""What stands under a training's bar on a terminal: how it goes, at a glance."""

import math
import resource
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import TextIO

import torch

from alexnet.runs.records import Event, TrainEvent, ValEvent
from alexnet.terminal import can_print, percent

WIDTH = 14  # characters of a sparkline
_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=*#"


class Status:
    """Collects the events of a training. `text` is three lines of at most 79 columns."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], list[float]] = {}
        self._last: TrainEvent | None = None

    def note(self, event: Event) -> None:
        """Take an event; what is neither of training nor of validation is passed over."""
        if not isinstance(event, TrainEvent | ValEvent):
            return
        loss = event.loss_mean if isinstance(event, TrainEvent) else event.loss
        for name, value in (("loss", loss), ("top-1", event.top1)):
            if value is not None:
                self._series.setdefault((name, event.event), []).append(value)
        if isinstance(event, TrainEvent):
            self._last = event

    def text(self) -> str:
        rows = []
        for name, show in (("loss", lambda v: f"{v:.4f}"), ("top-1", percent)):
            parts = [
                f"{spark(values)} {show(values[-1])} {said}"
                for event, said in (("train", "train"), ("val", "validation"))
                if (values := self._series.get((name, event)))
            ]
            if parts:
                rows.append(f"{name:<5}  " + "   ".join(parts))
        if self._last is not None:
            rows.append(
                f"{self._last.images_per_s or 0:,.0f} images/s, "
                f"{percent(self._last.data_wait or 0, 1)} of the time waiting for data, {_memory()}"
            )
        return "\n".join(rows)


def spark(values: Sequence[float], width: int = WIDTH, stream: TextIO | None = None) -> str:
    """Values as one line of blocks, the lowest at the bottom; of many, means of equal stretches.
    What is not a number is a question mark. `stream` is where they are to be printed, if not on
    standard error."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    blocks = _BLOCKS if can_print(_BLOCKS, stream or sys.stderr) else _PLAIN
    known = [v for v in values if math.isfinite(v)]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    top = len(blocks) - 1
    return "".join(
        blocks[round(top * (v - low) / span) if span else 0] if math.isfinite(v) else "?"
        for v in values
    )


def _memory() -> str:
    """The most that the process held so far, and the GPU for it."""
    unit = 1 if sys.platform == "darwin" else 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    text = f"{held / 2**20:,.0f} MiB at most"
    if torch.cuda.is_available():
        text += f", GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return text
