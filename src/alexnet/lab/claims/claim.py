"""What a claim is, and what was measured of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet.lab.claims.study import Study
from alexnet.support.terminal import duration

ClaimVerdict = Literal[
    "confirmed", "not confirmed at this scale", "contradicted", "not enough seeds"
]

NEEDS = {
    "": "nothing",
    "cifar10": "CIFAR-10, or other images of 32 pixels",
    "photos": "photos in class folders",
    "ilsvrc-2010": "ILSVRC-2010, packed, and a GPU",
    "ilsvrc-2012": "ILSVRC-2012, packed, and a GPU",
}


@dataclass(frozen=True)
class Outcome:
    """What was measured: a number in the claim's unit with its 95 % interval where chance has a
    part in it, a sentence, and all figures behind it. `draw` puts pictures into a folder."""

    verdict: ClaimVerdict
    measured: float
    ci95: tuple[float, float] | None
    finding: str
    figures: dict[str, Any] = field(default_factory=dict)
    draw: Callable[[Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`paper` is what is printed and `source` where; `printed` the number in it, in `unit`.

    `data` is a key of NEEDS; `minutes` what it takes on two cores with `seeds` repetitions;
    `picture` describes the paper's figure, where it has one; `published` are top-1 and top-5 error
    (%) of this and other systems, by name and source.
    """

    name: str
    paper: str
    source: str
    unit: str
    measure: Callable[[Study], Outcome]
    printed: float | None = None
    data: str = ""
    minutes: float = 0.1
    seeds: int = 1
    picture: str = ""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        takes = "days" if self.data.startswith("ilsvrc") else duration(60 * self.minutes)
        return f"{NEEDS[self.data]}; {takes}"

    @property
    def command(self) -> str:
        return f"alexnet claim {self.name}" + (" --data DIR" if self.data else "")


def as_printed(measured: float, printed: float | None, digits: int) -> ClaimVerdict:
    """Whether an exact number is, rounded to the digits that are printed, what is printed."""
    assert printed is not None
    same = float(f"{measured:.{digits}g}") == float(f"{printed:.{digits}g}")
    return "confirmed" if same else "contradicted"
