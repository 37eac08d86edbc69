"""The images that a run could not read: which, why, and what became of each.

    reported    the run stopped for it, and waits for what becomes of it
    left out    nothing of it is used from a step on
    removed     the same, of a file that was taken away
    repaired    it is read as before, and has the size that it had
    replaced    another image of its name is read

They are kept in the run, so that a training that is cut and continued leaves out the same images
from the same steps on, whichever process or thread came upon them.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import CheckpointError
from alexnet.records import (
    BadImage,
    BadImageEvent,
    BadImageList,
    DataCard,
    LeftOutImage,
    Misfit,
)
from alexnet.support.files import read_json, write_json
from alexnet.support.options import AdvisedCall, option

NAME = "unreadable.json"
NOTED = "unreadable-elsewhere.json"  # by a test or a look at the run, maybe beside its training
_OTHERS = "no longer those of a run that nothing disturbed: another image stands in its place"
BITS = {
    "reported": "undisturbed so far: the training stopped before it used this image",
    "left out": _OTHERS,
    "removed": _OTHERS,
    "repaired": "those of a run that nothing disturbed, if it is the image that it was",
    "replaced": "no longer those of a run that nothing disturbed: it is another image now",
}
"""What became of an image, and what that means for the bits of the weights."""


def bad_image_event(image: BadImage) -> BadImageEvent:
    """The line of an image in metrics.jsonl, which says what its fate means for the bits."""
    return BadImageEvent(
        path=image.path,
        split=image.split,
        index=image.index,
        reason=image.reason,
        step=image.step,
        fate=image.fate,
        bits=BITS[image.fate],
    )


class BadImages:
    """Those of one run, in a file of it. Without a `run` they are kept nowhere."""

    def __init__(self, run: Path | None = None, name: str = NAME) -> None:
        self.run, self._name = run, name
        self._images: dict[tuple[str, int], BadImage] = {}
        self.paths: set[str] = set()

    @staticmethod
    def of(run: Path, name: str = NAME) -> "BadImages":
        """Those that a run has kept. Raises CheckpointError where the file is damaged."""
        bad, path = BadImages(run, name), run / name
        if not path.is_file():
            return bad
        values = read_json(path)
        try:
            bad.put(BadImageList.read(values).images, keep=False)
        except Misfit as misfit:
            raise CheckpointError(f"{path} is damaged ({misfit}): restore it from a copy") from None
        return bad

    def __iter__(self) -> Iterator[BadImage]:
        return iter(list(self._images.values()))

    def __len__(self) -> int:
        return len(self._images)

    def get(self, split: str, index: int) -> BadImage | None:
        return self._images.get((split, index))

    def out_at(self, split: str, step: int) -> NDArray[np.intp]:
        """The indices that an update leaves out."""
        images = list(self._images.values())  # threads ask while others are added
        return np.array(
            [i.index for i in images if i.split == split and i.is_out and i.step <= step],
            np.intp,
        )

    def put(self, images: Iterable[BadImage], keep: bool = True) -> None:
        """Takes images in, or what became of them since, and keeps all in the run.

        Raises CheckpointError where the disk refuses.
        """
        known = dict(self._images)
        known |= {(image.split, image.index): image for image in images}
        self._images = known
        self.paths = {image.path for image in known.values()}
        if self.run is not None and keep:
            listed = BadImageList(format=BadImageList.FORMAT, images=tuple(known.values()))
            write_json(self.run / self._name, listed)


def most_left_out(share: float, count: int) -> int:
    """How many images of a split of `count` may be left out."""
    return max(int(share * count), 1)


def left_out_of(run: Path, trained: DataCard | Mapping[str, Any]) -> list[LeftOutImage]:
    """Images that a training did not use since they could not be read."""
    if not isinstance(trained, DataCard):
        trained = DataCard.from_json(trained, str(run / "recipe.json"))
    return list(trained.left_out or ()) + [
        LeftOutImage(path=image.path, split=image.split, reason=image.reason, step=image.step)
        for image in BadImages.of(run)
        if image.is_out
    ]


def remedy(again: AdvisedCall, step: int, share: float | None = None, most: int = 0) -> str:
    """What is to be done about images for which a training stopped, where `again` is the command
    that goes on; of more than the `share` of a split that may be left out, what the limit is."""
    saved = f"all is saved at step {step:,}: repair, replace or remove it, then `{again}`"
    if share is None:
        return f"{saved}; or go on without it: `{again.also(bad_images='skip')}`"
    return f"{option('bad_share', share)} leaves out {most:,} at most; {saved}"
