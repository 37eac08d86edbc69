"""Archives made to harm, and archives changed at random, through the packer."""

import contextlib
import io
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import alexnet
from alexnet.errors import AlexNetError
from archives import JPEG, jpeg, tar_bytes, train_tar, write_files, write_tar, write_zip
from faults.images import MUTATIONS
from faults.tally import Tally
from hostile import HOSTILE

GOOD = {f"{label}/{i}.jpg": jpeg(10 * i + j) for j, label in enumerate("ab") for i in range(3)}


def by_hand(count: int, seed: int, folder: Path) -> Tally:
    """Archives that lead out, link, lie about their sizes, nest, repeat and end early."""
    tally = Tally()
    for name, build in list(_hostile())[:count]:
        _tried(tally, name, folder, build)
    return tally


def mutated(count: int, seed: int, folder: Path) -> Tally:
    """A tar, a zip and a tar of tars whose bytes were changed at random."""
    tally, dice = Tally(), random.Random(seed)
    source = folder / "whole"
    source.mkdir()
    whole = [
        ("set.tar", write_tar(source / "a.tar", GOOD).read_bytes()),
        ("set.zip", write_zip(source / "a.zip", GOOD).read_bytes()),
        ("set.tar", train_tar({"a": {"1.jpg": jpeg(1)}, "b": {"2.jpg": jpeg(2)}})),
    ]
    for turn in range(count):
        suffix, data = dice.choice(whole)
        for _ in range(dice.randint(1, 3)):
            data = dice.choice(MUTATIONS)(data, dice)

        def build(place: Path, name: str = suffix, data: bytes = data) -> Path:
            (place / name).write_bytes(data)
            return place / name

        _tried(tally, f"seed {seed}, turn {turn}", folder, build)
    return tally


def _tried(tally: Tally, name: str, folder: Path, build: Callable[[Path], Path]) -> None:
    """Packs what is built in a folder of its own, beside files that are none of its business."""
    place = folder / "place"
    if place.exists():
        shutil.rmtree(place)
    (place / "source").mkdir(parents=True)
    (place / "bystander.txt").write_text("as it was")
    source, out = build(place / "source"), place / "out"
    before = _content(place)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            alexnet.data_pack(source, out=out, size=16, expect={}, workers=1)
        tally.outcomes["packed, what is bad named"] += 1
        if not (out / "manifest.json").is_file():
            tally.losses.append(f"{name}: ended without a manifest")
    except AlexNetError as error:
        tally.outcomes["refused in one line"] += 1
        if "\n" in str(error):
            tally.losses.append(f"{name}: {error}")
        if (out / "manifest.json").exists():
            tally.losses.append(f"{name}: refused, and looks whole")
    except Exception as error:
        tally.outcomes["another error"] += 1
        tally.losses.append(f"{name}: {error!r}")
    after = {p: data for p, data in _content(place).items() if out not in (p, *p.parents)}
    if after != before:
        tally.losses.append(f"{name}: something outside the target changed")


def _content(place: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() if p.is_file() else b"" for p in place.rglob("*")}


def _hostile() -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Eighty and more: those of the tests, the same inside a class's tar, and names."""
    for name, (build, _) in HOSTILE.items():
        yield name, lambda place, build=build: build(place / "set.archive")
        yield f"{name}, as a class of a tar", lambda place, build=build: _nested(place, build)
    names = (
        "../x.jpg", "a/../../x.jpg", "/x.jpg", "//x.jpg", "a//x.jpg", "./a/x.jpg", "a/./x.jpg",
        "a\\x.jpg", "C:\\x.jpg", "C:/x.jpg", "a/x.jpg/", "~/x.jpg", "$HOME/x.jpg", "a/x.jpg\n",
        "\x1b[2J/x.jpg", "a/\u202egpj.x.jpg", "A/X.JPG", "con/nul.jpg", "a/" + "x" * 300 + ".jpg",
        "a/" * 200 + "x.jpg", ".hidden/x.jpg", "a/.jpg", "-rf/x.jpg", "a b/x y.jpg", "a/é.jpg",
        "a/e\u0301.jpg", "manifest.json", "out/manifest.json", "train/a/x.jpg", "TRAIN/a/x.jpg",
    )  # fmt: skip
    for member in names:
        files = {**GOOD, member: JPEG}
        yield f"tar with {member!r:.40}", lambda place, f=files: write_tar(place / "set.tar", f)
        yield f"zip with {member!r:.40}", lambda place, f=files: write_zip(place / "set.zip", f)
    for name, files in {
        "nothing in it": {},
        "text alone": {"a/readme.txt": b"x"},
        "empty images": {"a/1.jpg": b"", "b/1.jpg": b""},
        "archives named as images": {"a/1.jpg": tar_bytes(GOOD), "b/1.jpg": JPEG},
    }.items():
        yield name, lambda place, f=files: write_tar(place / "set.tar", f)
        yield f"{name}, a zip", lambda place, f=files: write_zip(place / "set.zip", f)


def _nested(place: Path, build: Callable[[Path], Path]) -> Path:
    inner = build(place / "inner.archive")
    data = inner.read_bytes()
    inner.unlink()
    return write_files(place, {"set.tar": tar_bytes({"a.tar": data, "b.tar": tar_bytes(GOOD)})}) / (
        "set.tar"
    )
