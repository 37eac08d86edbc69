"""What `alexnet inspect` returns: a record for each thing that is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from alexnet.runs.records.base import Entry, Misfit, Record, keyed, optional
from alexnet.runs.records.evaluation import ClassCount, EvalResult, Interval, UnreadFile


@dataclass(frozen=True, kw_only=True)
class InspectResult(Record):
    """What all of them say of where they come from.

    `what` was looked at. `run` and its `checkpoint` were asked, in `precision` (fp32 or bf16; None
    where the network was asked nothing); `figures` are the pictures made. Where images were opened,
    `data` is where they lie, or their kind, `unreadable` are those that could not be read, and the
    others are as in EvalImages: `split`, `own`, `seen`, `near_seen`, `repeated`, `contradicted`,
    `with_seen`, `ignored`, `absent`.
    """

    derived_first: ClassVar[bool] = True

    what: str
    precision: str | None = optional()
    run: str
    figures: Sequence[str]
    checkpoint: str | None = optional()
    unreadable: Sequence[UnreadFile] | None = optional()
    data: str | None = optional()
    split: str | None = optional()
    own: bool | None = optional()
    seen: int | None = None
    near_seen: int | None = None
    repeated: int | None = optional()
    contradicted: int | None = optional()
    with_seen: bool | None = optional()
    ignored: Mapping[str, int] | None = optional()
    absent: Sequence[str] | None = optional()

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        if self.data is None:  # no images were opened, which has nothing to do with not known
            for key in ("seen", "near_seen"):
                del found[key]
        return found


@dataclass(frozen=True, kw_only=True)
class FilterTower(Entry):
    """A tower's share of a layer's kernels: the `first` of them, how many `kernels`, and the share
    of their energy that is `colour`, 0 to 1."""

    first: int
    kernels: int
    colour: float


@dataclass(frozen=True, kw_only=True)
class FiltersResult(InspectResult):
    """The kernels of the convolution `part`: so many `kernels` of `size` x `size` pixels. Of one
    that sees three channels also its `towers`, and how much of each kernel's energy is `colour`."""

    what: Literal["filters"] = "filters"
    part: str
    kernels: int
    size: int
    towers: Sequence[FilterTower] | None = optional()
    colour: Sequence[float] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ActivationsResult(InspectResult):
    """The images, of `n` of a `split`, that excite `channels` of `part` most."""

    what: Literal["activations"] = "activations"
    part: str
    split: str
    n: int
    channels: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ImageMaps(Entry):
    """The `channels` of a part in the order of their highest output for the image at `path`, and
    the highest of all (`peak`)."""

    path: str
    channels: Sequence[int]
    peak: float


@dataclass(frozen=True, kw_only=True)
class MapsResult(InspectResult):
    """What `part` makes of `images`."""

    what: Literal["activations"] = "activations"
    part: str
    images: Sequence[ImageMaps]


@dataclass(frozen=True, kw_only=True)
class Neighbour(Entry):
    """A training image near to another one: `image` is its name, `class_name` its class, and
    `distance` how far it is, in the metric that was asked for."""

    image: str
    class_name: str = keyed("class")
    distance: float


@dataclass(frozen=True, kw_only=True)
class ImageNeighbours(Entry):
    """The training images nearest to the image at `path`, the nearest first, by what they are
    `near` in: the name of a part, and pixels. In JSON each of those is a key beside path."""

    path: str
    near: Mapping[str, Sequence[Neighbour]]

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        return {"path": self.path, **found["near"]}

    @classmethod
    def read(cls, values: object) -> Self:
        if not isinstance(values, Mapping):
            raise Misfit(values, "an object")
        near = {key: value for key, value in values.items() if key != "path"}
        return super().read({"path": values.get("path"), "near": near})


@dataclass(frozen=True, kw_only=True)
class NeighborsResult(InspectResult):
    """The training images nearest to `n` images, by the numbers of `part` and by pixels; `metric`
    is euclidean or cosine. `neighbors` are those of each image."""

    what: Literal["neighbors"] = "neighbors"
    part: str
    metric: str
    n: int
    neighbors: Sequence[ImageNeighbours]


@dataclass(frozen=True, kw_only=True)
class Agreement(Entry):
    """How far the `k` nearest training images share the class of theirs, over `n` images: the
    fraction whose `first` neighbour does, its 95 % interval `first_ci95`, and the `share` of all k
    on average."""

    n: int
    k: int
    first: float
    first_ci95: Interval
    share: float


@dataclass(frozen=True, kw_only=True)
class AgreementResult(InspectResult):
    """How far the training images nearest to `n` images of a `split` share their class, by what
    they are near in (`agreement`): the numbers of `part`, and pixels. `metric` is euclidean or
    cosine."""

    what: Literal["neighbors"] = "neighbors"
    part: str
    metric: str
    n: int
    split: str
    agreement: Mapping[str, Agreement]


@dataclass(frozen=True, kw_only=True)
class NamedProbability(Entry):
    """The class `class_name` with its `probability`."""

    class_name: str = keyed("class")
    probability: float


@dataclass(frozen=True, kw_only=True)
class ShownPrediction(Entry):
    """What a network says of an `image`: its likeliest classes (`top`), the best first.
    `class_name` is the image's own class, None where nobody said."""

    image: str
    class_name: str | None = keyed("class")
    top: Sequence[NamedProbability]


@dataclass(frozen=True, kw_only=True)
class PredictionsResult(InspectResult):
    """The `predictions` of `n` images, of a `split` or named ones (None)."""

    what: Literal["predictions"] = "predictions"
    n: int
    predictions: Sequence[ShownPrediction]
    split: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class Mistake(Entry):
    """An `image` of the class `class_name` that the network `said` is another, with its
    `probability`."""

    image: str
    class_name: str = keyed("class")
    said: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ConfusedPair(Entry):
    """So many (`n`) images of the class `class_name` of which the network `said` another."""

    class_name: str = keyed("class")
    said: str
    n: int


@dataclass(frozen=True, kw_only=True)
class MistakesResult(InspectResult):
    """What a network gets wrong: `wrong` of `n` images of a `split`.

    `mistakes` are the surest ones, `pairs` the most confused classes. `doubtful` counts the labels
    that deserve a look, and `labels` are the first of them; None where they were not looked for,
    and `labels_not_looked_for` says why.
    """

    what: Literal["mistakes"] = "mistakes"
    split: str
    n: int
    wrong: int
    mistakes: Sequence[Mistake]
    pairs: Sequence[ConfusedPair]
    doubtful: int | None
    labels_not_looked_for: str
    labels: Sequence[Mistake]


@dataclass(frozen=True, kw_only=True)
class Peak(Entry):
    """Where a map of evidence is highest: `row` and `column` in pixels of the input, and `largest`,
    its value there; `sum` is that of the whole map."""

    row: int
    column: int
    largest: float
    sum: float


@dataclass(frozen=True, kw_only=True)
class ImageEvidence(Entry):
    """Where in the image at `path` the evidence for the class `class_name` lies, which has such a
    `probability`: the peaks of its `maps`, by method."""

    path: str
    class_name: str = keyed("class")
    probability: float
    maps: Mapping[str, Peak]


@dataclass(frozen=True, kw_only=True)
class SaliencyResult(InspectResult):
    """Where the evidence lies in `images`; Grad-CAM is taken at `part`."""

    what: Literal["saliency"] = "saliency"
    part: str
    images: Sequence[ImageEvidence]


@dataclass(frozen=True, kw_only=True)
class ConfusionResult(EvalResult, InspectResult):
    """How often each class of a `split` is taken for each other: `per_class` counts, and the
    figures over all images, as in EvalResult."""

    what: Literal["confusion"] = "confusion"
    split: str
    per_class: Sequence[ClassCount]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin(Entry):
    """`n` images whose probability lies from `low` to `high`: what was `said` on average, the
    fraction that was `right`, and its 95 % interval `right_ci95`."""

    low: float
    high: float
    n: int
    said: float
    right: float
    right_ci95: Interval


@dataclass(frozen=True, kw_only=True)
class CalibrationResult(InspectResult):
    """How far probabilities can be believed, over `n` images of a `split` in `bins`.

    `ece` is the expected calibration error, `ece_ci95` its interval; a network that is right as
    often as it says shows `ece_by_chance`, up to the end of `ece_by_chance_ci95`. `surplus` is
    `mean_said` minus `accuracy`, `surplus_ci95` its interval: above 0 it is too sure.
    """

    what: Literal["calibration"] = "calibration"
    split: str
    n: int
    bins: Sequence[CalibrationBin]
    ece: float
    ece_ci95: Interval
    ece_by_chance: float
    ece_by_chance_ci95: Interval
    mean_said: float
    accuracy: float
    surplus: float
    surplus_ci95: Interval


@dataclass(frozen=True, kw_only=True)
class CurvesResult(InspectResult):
    """The names of the `runs` whose curves were drawn."""

    what: Literal["curves"] = "curves"
    runs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DataResult(InspectResult):
    """What a network is shown: `counts` are the images of each class, in order, by split;
    `augmentations` are the fields of the recipe that change images."""

    what: Literal["data"] = "data"
    counts: Mapping[str, Sequence[int]]
    augmentations: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FeaturesResult(InspectResult):
    """The outputs of `part` for the `n` images of a `split`, written to the file `out` in this
    `shape`; the file `images` names each row's image and class."""

    what: Literal["features"] = "features"
    part: str
    split: str
    n: int
    shape: Sequence[int]
    out: str
    images: str


@dataclass(frozen=True, kw_only=True)
class PartProbe(Entry):
    """A linear classifier on the outputs of `part`: its accuracy `top1` on `n` images, the interval
    `top1_ci95`, how many images it was `fitted` to, and the L2 term (`strength`)."""

    part: str
    top1: float
    top1_ci95: Interval
    n: int
    fitted: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class ProbeResult(InspectResult):
    """Linear `probes` of each part, tried on the `n` images of a `split`."""

    what: Literal["probe"] = "probe"
    split: str
    n: int
    probes: Sequence[PartProbe]


@dataclass(frozen=True, kw_only=True)
class SimilarityResult(InspectResult):
    """How alike the parts of two runs are on `n` images of a `split`: `cka` (linear, without bias)
    has a row for each part of the run (`rows`) and a column for each of the `other` (`columns`)."""

    what: Literal["similarity"] = "similarity"
    other: str
    split: str
    n: int
    rows: Sequence[str]
    columns: Sequence[str]
    cka: Sequence[Sequence[float]]
