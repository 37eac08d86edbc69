"""Results of `alexnet inspect`: a record for each view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from alexnet.records.base import Entry, Misfit, json_key, optional
from alexnet.records.evaluation import (
    ClassCount,
    EvalResult,
    Interval,
    PartialEvalImages,
    UnreadFile,
)


@dataclass(frozen=True, kw_only=True)
class InspectResult(PartialEvalImages):
    """The fields that all views have.

    `what` names the view. It shows `run` at `checkpoint`, computed in `precision` (fp32 or bf16;
    None where the network was not used). `figures` are the paths of its pictures. Where images were
    opened, `data` is their path, or their kind where they have no path, and `unreadable` are those
    that could not be read.
    """

    derived_first: ClassVar[bool] = True

    what: str
    precision: str | None = optional()
    run: str
    figures: Sequence[str]
    checkpoint: str | None = optional()
    unreadable: Sequence[UnreadFile] | None = optional()
    data: str | None = optional()

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        if self.data is None:  # no images were opened; null would mean that the count is not known
            for key in ("seen", "near_seen"):
                del values[key]
        return values


@dataclass(frozen=True, kw_only=True)
class FilterTower(Entry):
    """The kernels of one tower: the index of the `first`, the number of `kernels`, and the fraction
    of their energy that is `colour`."""

    first: int
    kernels: int
    colour: float


@dataclass(frozen=True, kw_only=True)
class FiltersResult(InspectResult):
    """The kernels of the convolution `part`: the number of `kernels`, each of `size` x `size`
    pixels. With three input channels also the `towers`, and the fraction of each kernel's energy
    that is `colour`."""

    what: Literal["filters"] = "filters"
    part: str
    kernels: int
    size: int
    towers: Sequence[FilterTower] | None = optional()
    colour: Sequence[float] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ActivationsResult(InspectResult):
    """The images of a `split`, out of `n`, with the highest outputs in `channels` of `part`."""

    what: Literal["activations"] = "activations"
    part: str
    split: str
    n: int
    channels: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ImageMaps(Entry):
    """The `channels` of a part, ordered by their highest output for the image at `path`, and the
    highest output of all (`peak`)."""

    path: str
    channels: Sequence[int]
    peak: float


@dataclass(frozen=True, kw_only=True)
class MapsResult(InspectResult):
    """The outputs of `part` for each of `images`."""

    what: Literal["activations"] = "activations"
    part: str
    images: Sequence[ImageMaps]


@dataclass(frozen=True, kw_only=True)
class Neighbour(Entry):
    """A training image near another image: `image` is its name, `class_name` its class, and
    `distance` the distance in the chosen metric."""

    image: str
    class_name: str = json_key("class")
    distance: float


@dataclass(frozen=True, kw_only=True)
class ImageNeighbours(Entry):
    """The training images nearest to the image at `path`, the nearest first.

    `near` has them by the space of the distance: the name of a part, or pixels. In JSON these names
    are keys beside path.
    """

    path: str
    near: Mapping[str, Sequence[Neighbour]]

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        return {"path": self.path, **values["near"]}

    @classmethod
    def read(cls, values: object) -> Self:
        if not isinstance(values, Mapping):
            raise Misfit(values, "an object")
        near = {key: value for key, value in values.items() if key != "path"}
        return super().read({"path": values.get("path"), "near": near})


@dataclass(frozen=True, kw_only=True)
class NeighborsResult(InspectResult):
    """The training images nearest to each of `n` images (`neighbors`), by the outputs of `part` and
    by pixels. `metric` is euclidean or cosine."""

    what: Literal["neighbors"] = "neighbors"
    part: str
    metric: str
    n: int
    neighbors: Sequence[ImageNeighbours]


@dataclass(frozen=True, kw_only=True)
class Agreement(Entry):
    """How often the nearest training images have the same class, over `n` images.

    `first` is the fraction of images whose nearest neighbour has their class, `first_ci95` its 95 %
    interval. `share` is the mean fraction of the `k` nearest neighbours that have it.
    """

    n: int
    k: int
    first: float
    first_ci95: Interval
    share: float


@dataclass(frozen=True, kw_only=True)
class AgreementResult(InspectResult):
    """How often the training images nearest to the `n` images of a `split` have the same class.

    `agreement` has it by the space of the distance: the outputs of `part`, or pixels. `metric` is
    euclidean or cosine.
    """

    what: Literal["neighbors"] = "neighbors"
    part: str
    metric: str
    n: int
    split: str
    agreement: Mapping[str, Agreement]


@dataclass(frozen=True, kw_only=True)
class NamedProbability(Entry):
    """The `probability` of the class `class_name`."""

    class_name: str = json_key("class")
    probability: float


@dataclass(frozen=True, kw_only=True)
class ShownPrediction(Entry):
    """The likeliest classes (`top`) of an `image`, the best first. `class_name` is its true class,
    None where that is not known."""

    image: str
    class_name: str | None = json_key("class")
    top: Sequence[NamedProbability]


@dataclass(frozen=True, kw_only=True)
class PredictionsResult(InspectResult):
    """The `predictions` for `n` images of a `split`, None where the images were named."""

    what: Literal["predictions"] = "predictions"
    n: int
    predictions: Sequence[ShownPrediction]
    split: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class Mistake(Entry):
    """A misclassified `image` of the class `class_name`: the network's answer (`said`), and its
    `probability`."""

    image: str
    class_name: str = json_key("class")
    said: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ConfusedPair(Entry):
    """The number (`n`) of images of the class `class_name` that the network classified as another
    class (`said`)."""

    class_name: str = json_key("class")
    said: str
    n: int


@dataclass(frozen=True, kw_only=True)
class MistakesResult(InspectResult):
    """The mistakes of a network: `wrong` of the `n` images of a `split`.

    `mistakes` are the most confident ones, `pairs` the most confused classes. `doubtful` is the
    number of labels that may be wrong, and `labels` are the first of them. Where doubtful labels
    were not searched for, it is None, and `labels_not_looked_for` says why.
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
    """The peak of a saliency map: its `row` and `column` in pixels of the input, and its value
    (`largest`). `sum` is the sum over the map."""

    row: int
    column: int
    largest: float
    sum: float


@dataclass(frozen=True, kw_only=True)
class ImageEvidence(Entry):
    """The evidence for the class `class_name` in the image at `path`: the `probability` of the
    class, and the peaks of the saliency `maps`, by method."""

    path: str
    class_name: str = json_key("class")
    probability: float
    maps: Mapping[str, Peak]


@dataclass(frozen=True, kw_only=True)
class SaliencyResult(InspectResult):
    """The evidence for a class in each of `images`; Grad-CAM is computed at `part`."""

    what: Literal["saliency"] = "saliency"
    part: str
    images: Sequence[ImageEvidence]


@dataclass(frozen=True, kw_only=True)
class ConfusionResult(EvalResult, InspectResult):
    """How often each class of a `split` is confused with the others: counts by class (`per_class`)
    and the figures over all images."""

    what: Literal["confusion"] = "confusion"
    split: str
    per_class: Sequence[ClassCount]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin(Entry):
    """The `n` images whose highest probability is between `low` and `high`: its mean (`said`), the
    fraction of right answers (`right`), and the 95 % interval of that (`right_ci95`)."""

    low: float
    high: float
    n: int
    said: float
    right: float
    right_ci95: Interval


@dataclass(frozen=True, kw_only=True)
class CalibrationResult(InspectResult):
    """The calibration of probabilities, over `n` images of a `split`, in `bins`.

    `ece` is the expected calibration error, `ece_ci95` its interval. A perfectly calibrated network
    measures `ece_by_chance` on so many images, with the interval `ece_by_chance_ci95`. `surplus` is
    the mean probability (`mean_said`) minus `accuracy`, `surplus_ci95` its interval; above 0 the
    network is overconfident.
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
    """The data of a run: `counts` has the number of images of each class, in order, by split.
    `augmentations` are the fields of the recipe that change images."""

    what: Literal["data"] = "data"
    counts: Mapping[str, Sequence[int]]
    augmentations: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FeaturesResult(InspectResult):
    """The outputs of `part` for the `n` images of a `split`: an array of this `shape` in the file
    `out`. The file `images` has the image and the class of each row."""

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
    `top1_ci95`, the number of images it was `fitted` to, and its L2 term (`strength`)."""

    part: str
    top1: float
    top1_ci95: Interval
    n: int
    fitted: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class ProbeResult(InspectResult):
    """Linear `probes` of each part, tested on the `n` images of a `split`."""

    what: Literal["probe"] = "probe"
    split: str
    n: int
    probes: Sequence[PartProbe]


@dataclass(frozen=True, kw_only=True)
class SimilarityResult(InspectResult):
    """The similarity of the parts of two runs, on `n` images of a `split`. `cka` (linear, unbiased)
    has a row for each part of the run (`rows`) and a column for each part of the `other` run
    (`columns`)."""

    what: Literal["similarity"] = "similarity"
    other: str
    split: str
    n: int
    rows: Sequence[str]
    columns: Sequence[str]
    cka: Sequence[Sequence[float]]
