"""How well a network does on images: figures, what they are of, and answers image by image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexnet.runs.records.base import Entry, Record, keyed, optional

Interval = tuple[float, float]
"""The two ends of a 95 % interval, fractions."""


@dataclass(frozen=True, kw_only=True)
class EvalResult(Record):
    """The figures of a network over a set of images.

    `n` images were shown; `loss` is their mean cross-entropy (nats). `top1` and `top5` are the
    fractions whose class is the likeliest, or among the five likeliest, `top1_ci95` and `top5_ci95`
    their 95 % intervals. Classes with equal scores count as the chance of a random order
    (`top1_expected`, `top5_expected`, the same numbers), as hits (`top1_optimistic`,
    `top5_optimistic`) or as misses (`top1_pessimistic`, `top5_pessimistic`). With five classes or
    fewer all of top-5 is None.
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
    """The images that figures are of, and what was left out of them.

    `split` is train, val or test of the run's own data (`own`), or a part of others. `seen` counts
    the images that the run was trained or validated on, None where that is not known; they are left
    out unless `with_seen`. `near_seen` counts those that look like copies of such images, and are
    measured. `repeated` counts those that are the same as another one, `contradicted` those with
    a copy in another class. `ignored` counts images of unknown classes, by class; `absent` are the
    classes that have no image.
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
class ClassCount(Entry):
    """How many of the `n` images of the class `class_name` were named `right`."""

    class_name: str = keyed("class")
    right: int
    n: int


@dataclass(frozen=True, kw_only=True)
class UnreadFile(Entry):
    """A file that could not be read: its `path`, and the `reason`."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TestResult(EvalImages, EvalResult):
    """What `alexnet test` returns: the figures of a run on every image of a split.

    `views` crops of each image were averaged. `engine` (torch, int8, onnx or openvino) computed, in
    `precision` (fp32, bf16 or int8), with so many `processes`. `images_per_s` were shown, and
    `wall_s` seconds passed. `run` and `checkpoint` are what was tested, `data` is where the images
    lie or their kind. `unreadable` are the images that are not counted, `per_class` the counts of
    each class in order, `figures` the pictures made: confusion and surest mistakes.
    """

    __test__: ClassVar[bool] = False  # no test of pytest's

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
    """A class with its `probability`: `class_name`, its `title` where people call it otherwise (as
    WNIDs), and its `index` among the network's outputs."""

    class_name: str = keyed("class")
    title: str | None = optional()
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class ImageAnswer(Entry):
    """What a network says of the image at `path`: its likeliest classes (`top`), the best first.
    `seen` is true of an image that the run was trained or validated on."""

    path: str
    top: Sequence[ClassProbability]
    seen: bool | None = optional()


@dataclass(frozen=True, kw_only=True)
class ClassifyResult(Record):
    """What `alexnet classify` returns.

    `results` are the answers, `errors` the files that could not be read. `seen` counts the images
    that the run was trained or validated on, None where that is not known. `run` and `checkpoint`
    answered, computed by `engine` (torch, int8, onnx, openvino) in `precision` (fp32, bf16, int8).
    """

    results: Sequence[ImageAnswer]
    seen: int | None
    errors: Sequence[UnreadFile]
    run: str
    checkpoint: str
    engine: str
    precision: str
