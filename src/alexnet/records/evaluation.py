"""Evaluation of a network: its figures on a set of images, and its answers for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexnet.records.base import Entry, Record, json_key, optional

Interval = tuple[float, float]
"""The lower and upper bound of a 95 % interval, as fractions."""


@dataclass(frozen=True, kw_only=True)
class EvalResult(Record):
    """The figures of a network over a set of images.

    `n` is the number of images, `loss` their mean cross-entropy (nats). `top1` and `top5` are the
    fractions of images whose class has the highest score, or one of the five highest; `top1_ci95`
    and `top5_ci95` are the 95 % intervals. Equal scores count as in a random order in `top1` and
    `top5` (which `top1_expected` and `top5_expected` repeat), as hits in `top1_optimistic` and
    `top5_optimistic`, and as misses in `top1_pessimistic` and `top5_pessimistic`. With five classes
    or fewer, everything about top-5 is None.
    """

    n: int
    loss: float
    top1: float
    top1_ci95: Interval
    top1_optimistic: float
    top1_pessimistic: float
    top1_expected: float
    top5: float | None = None
    top5_ci95: Interval | None = optional()
    top5_optimistic: float | None = optional()
    top5_pessimistic: float | None = optional()
    top5_expected: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class EvalImages(Record):
    """The images that figures are about, and those that were left out.

    `split` is train, val or test of the run's own data (`own`), or a part of other data. `seen`
    counts images that the run was trained or validated on, None where that is not known; they are
    left out unless `with_seen`. `near_seen` counts images that look like copies of those; they are
    included. `repeated` counts images that are the same as another one, `contradicted` images with
    a copy in another class. `ignored` counts images of unknown classes, by class. `absent` are the
    classes without an image.
    """

    split: str
    own: bool
    seen: int | None
    near_seen: int | None
    repeated: int
    contradicted: int
    with_seen: bool
    ignored: Mapping[str, int]
    absent: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PartialEvalResult(Record):
    """The fields of EvalResult, of which runs of 0.1.0 and other programs may have written fewer:
    `n`, `loss`, `top1`, `top1_ci95`, `top1_optimistic`, `top1_pessimistic`, `top1_expected`,
    `top5`, `top5_ci95`, `top5_optimistic`, `top5_pessimistic` and `top5_expected`."""

    n: int
    loss: float
    top1: float | None = optional()
    top1_ci95: Interval | None = optional()
    top1_optimistic: float | None = optional()
    top1_pessimistic: float | None = optional()
    top1_expected: float | None = optional()
    top5: float | None = None
    top5_ci95: Interval | None = optional()
    top5_optimistic: float | None = optional()
    top5_pessimistic: float | None = optional()
    top5_expected: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class PartialEvalImages(Record):
    """The fields of EvalImages, None where there were no images, or an earlier version did not
    write them: `split`, `own`, `seen`, `near_seen`, `repeated`, `contradicted`, `with_seen`,
    `ignored` and `absent`."""

    split: str | None = optional()
    own: bool | None = optional()
    seen: int | None = None
    near_seen: int | None = None
    repeated: int | None = optional()
    contradicted: int | None = optional()
    with_seen: bool | None = optional()
    ignored: Mapping[str, int] | None = optional()
    absent: Sequence[str] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ClassCount(Entry):
    """The number (`n`) of images of the class `class_name`, and the number classified `right`."""

    class_name: str = json_key("class")
    right: int
    n: int


@dataclass(frozen=True, kw_only=True)
class UnreadFile(Entry):
    """The `path` of a file that could not be read, and the `reason`."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TestResult(EvalImages, EvalResult):
    """The result of `alexnet test`: the figures of a run on every image of a split.

    `views` is the number of crops of each image that were averaged. They were computed by `engine`
    (torch, int8, onnx or openvino) in `precision` (fp32, bf16 or int8), in a number of `processes`,
    at `images_per_s`; the test took `wall_s` seconds. `run` and `checkpoint` were tested. `data` is
    the path of the images, or their kind where they have no path. `unreadable` images are not
    counted. `per_class` has the counts of each class, in order. `figures` are the paths of the
    pictures: the confusion matrix and the most confident mistakes.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes called Test... for tests

    views: int
    engine: str
    precision: str
    processes: int
    images_per_s: float
    wall_s: float
    run: str
    checkpoint: str
    data: str
    unreadable: Sequence[UnreadFile] = ()
    per_class: Sequence[ClassCount]
    figures: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ClassProbability(Record):
    """The `probability` of the class `class_name`. `title` is its readable name, where the class is
    called by a code such as a WordNet id. `index` is its position in the network's outputs."""

    class_name: str = json_key("class")
    title: str | None = optional()
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class ImageAnswer(Entry):
    """The likeliest classes (`top`) of the image at `path`, the best first. `seen` is true where
    the run was trained or validated on this image."""

    path: str
    top: Sequence[ClassProbability]
    seen: bool | None = optional()


@dataclass(frozen=True, kw_only=True)
class ClassifyResult(Record):
    """The result of `alexnet classify`.

    `results` are the answers, `errors` the files that could not be read. `seen` counts the images
    that the run was trained or validated on, None where that is not known. The answers are those
    of `run` at `checkpoint`, computed by `engine` (torch, int8, onnx or openvino) in `precision`
    (fp32, bf16 or int8).
    """

    results: Sequence[ImageAnswer]
    seen: int | None
    errors: Sequence[UnreadFile]
    run: str
    checkpoint: str
    engine: str
    precision: str
