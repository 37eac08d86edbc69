"""All that was measured of one network and its data, for the rules to judge."""

from dataclasses import dataclass
from typing import Any

import torch

from alexnet.diagnosis.batches import Probe, Seen, entropy
from alexnet.diagnosis.contract import Contract
from alexnet.diagnosis.signal import Signals
from alexnet.diagnosis.trial import RateRange, Trial


@dataclass
class Findings:
    """`rate` is the optimiser's learning rate; `after` is measured after the trial steps."""

    train: Seen
    val: Seen | None = None
    rate: float | None = None
    classes: int = 0
    signals: Signals | None = None
    contract: Contract | None = None
    trial: Trial | None = None
    after: Signals | None = None
    rates: RateRange | None = None
    overfit: Trial | None = None
    probe: Probe | None = None

    def prior(self) -> float:
        """The entropy of the labels seen, in nats: the least loss of who ignores the images."""
        return entropy(torch.bincount(torch.cat(self.train.labels).clamp(min=0)))

    def figures(self) -> dict[str, Any]:
        """What people plot: losses and rates, data and probe."""
        rates, probe = self.rates, self.probe
        return {
            "classes": self.classes,
            "images": self.train.n,
            "label_entropy": self.prior(),
            "mean": self.train.mean.tolist(),
            "std": self.train.std.tolist(),
            "loss": None if self.signals is None else self.signals.loss,
            "trial": None if self.trial is None else self.trial.losses,
            "overfit": None if self.overfit is None else self.overfit.losses,
            "rates": None if rates is None else {"rate": rates.rates, "loss": rates.losses},
            "best_rate": None if rates is None else rates.best,
            "rate_limit": None if rates is None else rates.limit,
            "probe": None if probe is None else {"n": probe.n, "accuracy": probe.accuracy},
        }
