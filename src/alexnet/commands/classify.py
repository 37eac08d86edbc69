"""alexnet classify: names what images show."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet.data.archive import is_archive
from alexnet.data.digests import digest_images
from alexnet.data.forms import list_images
from alexnet.data.images import is_image, lies_turned
from alexnet.data.read_ahead import read_ahead
from alexnet.errors import AlexNetError, UsageError
from alexnet.evaluation_set import read_digests
from alexnet.interchange.runtimes import EngineName, with_engine
from alexnet.predictor import Image, load
from alexnet.recipe import Precision
from alexnet.records import ClassifyResult, ImageAnswer, UnreadFile
from alexnet.support.argument_checks import checked
from alexnet.support.terminal import progress, say

CLASSIFY_BATCH = 64  # images decoded and shown at a time


@checked()
def classify(
    run: str | Path,
    images: Image | Sequence[Image],
    *,
    top: int = 5,
    views: int = 1,
    checkpoint: str = "best",
    engine: EngineName = "torch",
    precision: Precision = "auto",
    stdin: BinaryIO | None = None,
) -> ClassifyResult:
    """The likeliest classes of images: files, folders and archives whole, "-" for standard input,
    the bytes of files, and pixels uint8 (H, W, C). One image needs no list.

    Returns a ClassifyResult: `results`, and `errors` for the files that could not be read; the
    others are classified all the same. `engine` is what computes: torch, int8, onnx or openvino;
    `precision` auto, fp32 or bf16.
    """
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1")
    assert isinstance(images, list)  # as `checked` makes it
    if not images:
        raise UsageError("images is empty: name one file or more")
    predictor = load(run, checkpoint)
    predictor.preprocess.check_views(views)
    predictor = with_engine(predictor, engine, precision=precision)
    top = min(top, len(predictor.classes))
    results: list[ImageAnswer] = []
    errors = []
    digests = read_digests(predictor.run)
    lying: list[str] = []
    sources = list(_find_images(images))

    def decode(start: int) -> list[tuple[str, NDArray[np.uint8] | AlexNetError]]:
        decoded: list[tuple[str, NDArray[np.uint8] | AlexNetError]] = []
        for path, read in sources[start : start + CLASSIFY_BATCH]:
            try:
                raw = (stdin or sys.stdin.buffer).read() if read is None else read()
                decoded.append((path, predictor.decode(raw, name=path)))
                if predictor.recipe.orient == "ignore" and isinstance(raw, Path | bytes):
                    lying.extend([path] * lies_turned(raw))
            except AlexNetError as error:
                decoded.append((path, error))
        return decoded

    blocks = range(0, len(sources), CLASSIFY_BATCH)
    with progress("classifying", len(sources), "images") as bar:
        for block in read_ahead(decode, blocks, predictor.recipe.workers):
            decoded = []
            for path, pixels in block:
                if isinstance(pixels, AlexNetError):
                    errors.append(UnreadFile(path=path, reason=str(pixels)))
                    say(f"alexnet: {pixels}")
                else:
                    decoded.append((path, pixels))
            probabilities = predictor.predict([pixels for _, pixels in decoded], views)
            for (path, pixels), row in zip(decoded, probabilities, strict=True):
                known = digests is not None and bool(digests.has(digest_images(pixels[None]))[0])
                answer = ImageAnswer(
                    path=path, top=predictor.rank(row, top), seen=True if known else None
                )
                results.append(answer)
            bar.advance(len(block))
    seen = None if digests is None else sum(answer.seen is True for answer in results)
    if seen:
        say(
            f"the run was trained or validated on {seen:,} of these {len(results):,} images: its "
            "answers about them say little about others"
        )
    if lying:
        say(
            f"{len(lying):,} of {len(sources):,} images have an EXIF orientation, {lying[0]} "
            "first: they are read as stored, as this run's recipe has it (orient ignore)"
        )
    return ClassifyResult(
        results=results,
        seen=seen,
        errors=errors,
        run=str(run),
        checkpoint=str(predictor.checkpoint),
        engine=engine,
        precision=predictor.precision,
    )


def _find_images(
    images: Iterable[Image],
) -> Iterator[tuple[str, Callable[[], Path | bytes | NDArray[np.uint8]] | None]]:
    """The name of each image, and what gives its file, bytes or pixels; None for standard input."""
    for i, image in enumerate(images):
        if not isinstance(image, str | Path):
            yield f"images[{i}]", partial(_itself, image)
            continue
        name, path = str(image), Path(image)
        if name == "-":
            yield name, None
        elif path.is_dir() or (path.is_file() and not is_image(name) and is_archive(path)):
            files = list_images(path)
            for i in range(len(files)):
                yield files.path(i), partial(files.source, i)
        else:
            yield name, partial(Path, name)


T = TypeVar("T")


def _itself(value: T) -> T:
    return value
