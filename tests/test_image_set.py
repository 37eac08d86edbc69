"""What one verb sees all see: train, test, classify, check and pack, of any folder or archive."""

import os
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import alexnet
from alexnet.data import ImageFiles, PackOptions, list_images, open_image_set, pack_images
from alexnet.errors import DataError
from archives import jpeg

Seen = Mapping[str, Mapping[str, int]]
"""Images by part and class."""

CLASSES = ("cat", "dog", "emu")
PICTURES = [jpeg(i, 12, 10) for i in range(8)]
PART_NAMES = {
    "train": ("train", "Training Set", "seg_train"),
    "val": ("val", "valid", "dev-set"),
    "test": ("test", "TEST", "test_images"),
}


@dataclass(frozen=True)
class Tree:
    """A folder as a stranger has it: files by name, folders without any, and links."""

    files: Mapping[str, int]
    empty: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()  # name, and what it leads to

    def write(self, root: Path, beside: Path) -> Path:
        root.mkdir()
        for name, picture in self.files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(PICTURES[picture] if file.suffix.lower() == ".jpg" else b"text")
        for name in self.empty:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, to in self.links:
            target = {"outside": beside, "root": root, "nothing": root / "gone"}.get(to, root / to)
            link = root / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                link.symlink_to(target)
        return root


NAMES = st.sampled_from(["1.jpg", "2.JPG", "3.jpg", "a b.jpg", ".hidden.jpg", "._1.jpg", "n.txt"])
INNER = st.sampled_from(["", "", "", "deep/", "deep/er/", ".cache/", "__MACOSX/"])


@st.composite
def class_folders(draw: st.DrawFn) -> Tree:
    """Class folders with anything in them, in parts or not, in folders around or not."""
    parts = draw(st.sampled_from([(), (), ("train",), ("train", "test"), ("train", "val", "test")]))
    tops = [draw(st.sampled_from(PART_NAMES[part])) + "/" for part in parts] or [""]
    around = draw(st.sampled_from(["", "", "photos/", "archive/photos/"]))
    files: dict[str, int] = {}
    empty: list[str] = []
    folders: list[str] = []
    for top in tops:
        classes = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=3, unique=True))
        for name in CLASSES[:2] if draw(st.integers(0, 3)) else classes:
            folder = f"{around}{top}{name}"
            folders.append(folder)
            inside = draw(st.lists(st.tuples(INNER, NAMES), max_size=3))
            if draw(st.integers(0, 9)):
                inside.append(("", "0.jpg"))
            for inner, file in inside:
                files[f"{folder}/{inner}{file}"] = draw(st.integers(0, len(PICTURES) - 1))
            if not inside:
                empty.append(folder)
    for stray in draw(st.lists(st.sampled_from(["x.jpg", "notes/x.txt", "more/x.jpg",
                                                ".git/x.jpg", "__MACOSX/cat/._x.jpg"]),
                               max_size=2, unique=True)):  # fmt: skip
        files[draw(st.sampled_from(["", around])) + stray] = 0
    targets = [*folders, *files, "outside", "root", "nothing"]
    links = draw(st.lists(st.tuples(st.sampled_from(folders), st.sampled_from(
        ["/link", "/link.jpg", "/deep/link", "/.link", "-linked"]), st.sampled_from(targets)),
        max_size=2))  # fmt: skip
    return Tree(files, tuple(empty), tuple((a + b, to) for a, b, to in links))


def count(parts: Iterator[tuple[str, str]]) -> Seen:
    """Images by part and class, of the (part, class) of each."""
    found: dict[str, dict[str, int]] = {}
    for (part, name), number in Counter(parts).items():
        found.setdefault(part, {})[name] = number
    return found


def trained_on(data: Path) -> tuple[Seen, list[str]]:
    """What `train` reads, from the seam behind it."""
    images = open_image_set(data, aloud=False)
    parts = [(part, images.read(part)) for part in images.parts]
    names = [name for _, part in parts for name in part.images.names()]  # type: ignore[union-attr]
    seen = count((name, images.classes[i]) for name, part in parts for i in part.labels.tolist())
    return seen, sorted(names)


def measured_on(data: Path) -> Seen:
    """What `test --data` reads of a network that knows all classes."""
    images = open_image_set(data, to_train=False, known=CLASSES, aloud=False)
    return count(
        (part, images.classes[i]) for part in images.parts
        for i in images.read(part).labels.tolist()
    )  # fmt: skip


def checked(data: Path) -> Seen:
    """The readable images that `data check` counts in class folders of a part."""
    report = alexnet.data_check(data, workers=0)
    unread = len(report.refused)
    assert report.images == report.ok + len(report.repairable) + unread
    in_parts = {"train", "val", "test"} & report.counts.keys() or {"all"}
    return {
        part: kept for part in in_parts
        if (kept := {n: x for n, x in report.counts[part].items() if n and x})
    }  # fmt: skip


def packed(data: Path, out: Path) -> tuple[Seen, list[str]]:
    """What `data pack` packs, and the names of the images that it refuses."""
    images = open_image_set(data, aloud=False)
    manifest = pack_images(images, out, PackOptions(8), expect=None, workers=0)
    labels = {part: np.load(out / f"{part}.labels.npy").tolist() for part in manifest["counts"]}
    seen = count((part, manifest["classes"][i]) for part, some in labels.items() for i in some)
    return seen, [entry["path"] for entry in manifest["refused"]]


def as_archive(root: Path, kind: str) -> Path:
    """An archive of a folder, links followed, as `zip -r` and `tar -h` do."""
    path = root.with_suffix(kind)
    members = sorted(walk(root, "", ()))
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.write(root / name, name)
    else:
        with tarfile.open(path, "w", dereference=True) as tar:
            for name in members:
                tar.add(root / name, name, recursive=False)
    return path


def walk(root: Path, folder: str, above: tuple[Path, ...]) -> Iterator[str]:
    """All below a folder by its own simple rule: a folder is not entered within itself."""
    real = (root / folder).resolve()
    if real in above:
        return
    if folder:
        yield folder
    for name in os.listdir(root / folder):
        inner = f"{folder}/{name}" if folder else name
        if (root / inner).is_dir():
            yield from walk(root, inner, (*above, real))
        elif (root / inner).is_file():
            yield inner


def check_all_see_the_same(tree: Tree, place: Path) -> Counter[str]:
    """All five of one folder, and of the archives of it. Returns what became of each."""
    beside = place / "beside"
    beside.mkdir()
    (beside / "far.jpg").write_bytes(PICTURES[7])
    root = tree.write(place / "data", beside)
    fates: Counter[str] = Counter()
    seen_before: Seen | None = None
    dangling = any(to == "nothing" for _, to in tree.links)
    forms = [root] if dangling else [root, as_archive(root, ".zip"), as_archive(root, ".tar")]
    for data in forms:
        out = place / f"pack-{data.suffix[1:]}"
        try:
            seen, names = trained_on(data)
        except DataError as error:
            why = str(error)
            with pytest.raises(DataError) as caught:
                packed(data, out)
            assert str(caught.value) == why
            if any(path.suffix.lower() == ".jpg" for path in root.rglob("*")):
                try:
                    assert alexnet.data_check(data, workers=0).note == " ".join(why.split())
                except DataError as nothing:
                    assert "holds no image" in str(nothing)
            fates["refused"] += 1
            continue
        shown, refused = packed(data, out)
        unread = Counter(name for name in refused)
        assert sum(map(sum_of, seen.values())) == sum(map(sum_of, shown.values())) + len(refused)
        if not unread:
            assert seen == shown
        assert checked(data) == shown
        assert measured_on(data) == seen
        listed = list_images(data)
        assert isinstance(listed, ImageFiles)
        outside = open_image_set(data, aloud=False).outside
        rest = [] if outside is None else outside.names()
        unlabelled = [n for n in listed.names() if n not in {*names, *rest}]
        assert sorted([*names, *rest, *unlabelled]) == sorted(listed.names())
        assert not unlabelled
        assert seen_before in (None, seen)
        seen_before = seen
        fates["read"] += 1
    return fates


def sum_of(table: Mapping[str, int]) -> int:
    return sum(table.values())


def all_see_the_same(tmp_path_factory: pytest.TempPathFactory, examples: int) -> Counter[str]:
    fates: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(class_folders())
    def check(tree: Tree) -> None:
        place = tmp_path_factory.mktemp("tree")
        try:
            fates.update(check_all_see_the_same(tree, place))
        finally:
            shutil.rmtree(place)

    check()
    return fates


def test_all_verbs_see_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random trees: links, hidden files, nesting, folders around, parts, and archives of them."""
    fates = all_see_the_same(tmp_path_factory, 40)
    assert min(fates["read"], fates["refused"]) > 10


@pytest.mark.slow
def test_all_verbs_see_the_same_of_many_trees(tmp_path_factory: pytest.TempPathFactory) -> None:
    fates = all_see_the_same(tmp_path_factory, 1000)
    assert min(fates["read"], fates["refused"]) > 100
