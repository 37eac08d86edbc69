"""Images that were changed at random, through everything that reads images."""

import io
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import alexnet
from alexnet.data import decode_image
from alexnet.errors import DataError
from archives import encode, picture
from faults.tally import Tally

SECONDS = 2.0  # of the processor, for one image
CLASSES = 4


def mutated(count: int, seed: int, folder: Path) -> Tally:
    """Mutated images of seven formats: checked, trained on, classified."""
    tally, dice = Tally(), random.Random(seed)
    tree = folder / "tree"
    good = _write(tree, count, dice)
    with _processor(count, "check", tally):
        report = alexnet.data_check(tree)
    named = {Path(entry["path"]) for entry in report["refused"]}
    tally.outcomes["refused by check, by name"] += len(named)
    tally.outcomes["repairable"] += len(report["repairable"])
    tally.outcomes["fine"] += report["ok"] - len(good)
    for path in named & good:
        tally.losses.append(f"seed {seed}: {path.name} is whole, and refused")
    if report["images"] != count + len(good):
        tally.losses.append(f"seed {seed}: {report['images']} of {count + len(good)} checked")
    slowest = max(_decoded(path, tally) for path in sorted(tree.rglob("*.*")))
    if slowest > SECONDS:
        tally.losses.append(f"seed {seed}: one image took {slowest:.1f} s of the processor")

    words = {"size": 32, "crop": 32, "batch_size": 8, "precision": "fp32", "doctor": "off"}
    words |= {"model": "alexnet-32", "steps": 2}
    try:
        _quiet(alexnet.train, "photos", data=tree, run=folder / "refused", **words)
        tally.losses.append(f"seed {seed}: trains on a tree that holds damaged images")
    except DataError as error:  # it is packing that leaves them out
        if not any(path.name in str(error) for path in named):
            tally.losses.append(f"seed {seed}: {error}")
    run, packed = folder / "run", folder / "packed"
    _quiet(alexnet.data_pack, tree, out=packed, size=32)
    _quiet(alexnet.train, "photos", data=packed, run=run, **words)
    with _processor(count, "classify", tally):
        answered = _quiet(alexnet.classify, run, [tree])
    seen = {Path(entry["path"]) for entry in answered["results"]}
    errors = {Path(entry["path"]) for entry in answered["errors"]}
    if len(seen) + len(errors) != count + len(good) or not good <= seen:
        tally.losses.append(f"seed {seed}: {len(seen)} and {len(errors)} of {count + len(good)}")
    for entry in answered["errors"]:
        if "\n" in entry["reason"] or Path(entry["path"]).name not in entry["reason"]:
            tally.losses.append(f"seed {seed}: {entry}")
    if len(alexnet.load(run).classes) != CLASSES:
        tally.losses.append(f"seed {seed}: a class is missing")
    return tally


def _write(tree: Path, count: int, dice: random.Random) -> set[Path]:
    """Mutated images, and whole ones beside them, which are given back."""
    whole, good = _originals(), set[Path]()
    for label in range(CLASSES):
        (tree / f"class-{label}").mkdir(parents=True)
        for i in range(8):
            path = tree / f"class-{label}" / f"whole-{i}.png"
            path.write_bytes(encode(picture(100 * label + i), "PNG"))
            good.add(path)
    for turn in range(count):
        suffix, data = dice.choice(whole)
        for _ in range(dice.randint(1, 3)):
            data = dice.choice(MUTATIONS)(data, dice)
        (tree / f"class-{turn % CLASSES}" / f"{turn:05}{suffix}").write_bytes(data)
    return good


def _originals() -> list[tuple[str, bytes]]:
    made = []
    for suffix, format, modes in (
        (".jpg", "JPEG", ("RGB", "L", "CMYK")),
        (".png", "PNG", ("RGB", "L", "P", "RGBA", "I;16", "1")),
        (".gif", "GIF", ("P", "L")),
        (".bmp", "BMP", ("RGB", "P")),
        (".webp", "WEBP", ("RGB", "RGBA")),
        (".tif", "TIFF", ("RGB", "L")),
        (".ppm", "PPM", ("RGB", "L")),
    ):
        for mode in modes:
            image = picture(len(made), 48, 36)
            made.append((suffix, encode(image.convert(mode), format)))
    progressive = encode(picture(99), "JPEG", progressive=True, quality=95)
    return [*made, (".jpg", progressive)]


def _bytes_changed(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 12)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def _header_changed(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[dice.randrange(min(64, len(changed)))] = dice.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _spliced(data: bytes, dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    place = dice.randrange(len(data) + 1)
    return data[:place] + data[start:end] + data[place:]


def _dropped(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start + dice.randint(1, 200) :]


def _numbers(data: bytes, dice: random.Random) -> bytes:
    """Four bytes become a large or a negative number."""
    place = dice.randrange(len(data) + 1)
    number = dice.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", bytes(4)))
    return data[:place] + number + data[place + 4 :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _bytes_changed, _header_changed, _cut, _spliced, _dropped, _numbers,
)  # fmt: skip


def _decoded(path: Path, tally: Tally) -> float:
    """Seconds of this thread that reading one file as the network sees it took."""
    began = time.thread_time()
    try:
        pixels = decode_image(path, channels=3, size=32, name=str(path))
        if pixels.shape != (32, 32, 3) or pixels.dtype != np.uint8:
            tally.losses.append(f"{path.name}: decodes to {pixels.dtype} {pixels.shape}")
    except DataError as error:
        if "\n" in str(error):
            tally.losses.append(f"{path.name}: {error}")
    except Exception as error:
        tally.losses.append(f"{path.name}: {error!r}")
    return time.thread_time() - began


class _processor:
    """Whether a pass over all images costs less of the processor than its hangs would."""

    def __init__(self, count: int, what: str, tally: Tally) -> None:
        self.limit, self.what, self.tally = 10 + 0.2 * count, what, tally

    def __enter__(self) -> None:
        self.began = _used()

    def __exit__(self, *_: object) -> None:
        if (took := _used() - self.began) > self.limit:
            self.tally.losses.append(f"{self.what} took {took:.0f} s of the processor")


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _quiet(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    import contextlib

    import pytest

    from conftest import without_report

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        without_report(patch)
        return call(*args, **options)
