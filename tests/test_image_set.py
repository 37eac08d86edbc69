"""What one verb sees all see: train, test, classify, check and pack, of any folder or archive."""

import json
import os
import re
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

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
    labels = {part: np.load(out / f"{part}.labels.npy").tolist() for part in manifest.counts}
    seen = count((part, manifest.classes[i]) for part, some in labels.items() for i in some)
    return seen, [file.path for file in manifest.refused]


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
            if "holds no image" not in why:
                assert alexnet.data_check(data, workers=0).note == " ".join(why.split())
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
    fates = all_see_the_same(tmp_path_factory, 25)
    assert min(fates["read"], fates["refused"]) > 5


@pytest.mark.slow
def test_all_verbs_see_the_same_of_many_trees(tmp_path_factory: pytest.TempPathFactory) -> None:
    fates = all_see_the_same(tmp_path_factory, 1000)
    assert min(fates["read"], fates["refused"]) > 50


# By the verbs themselves

TRAIN: dict[str, Any] = {
    "model": "cuda-convnet-18", "size": 16, "crop": 16, "batch_size": 2, "precision": "fp32",
    "workers": 0, "steps": 1, "cutout": 0, "doctor": "off",
}  # fmt: skip


def strange_tree(place: Path) -> Path:
    """Six cats and five dogs in a folder with all that strangers' folders have."""
    photos = place / "data/photos"
    for i in range(5):
        for name in ("cat", "dog"):
            (photos / name).mkdir(parents=True, exist_ok=True)
            (photos / name / f"{i}.jpg").write_bytes(
                jpeg(100 * i + CLASSES.index(name), 20, 20 + i)
            )
    for name in (".hidden.jpg", "__MACOSX/1.jpg", ".cache/1.jpg"):
        (photos / "dog" / name).parent.mkdir(exist_ok=True)
        (photos / "dog" / name).write_bytes(b"no image")
    (place / "data/__MACOSX").mkdir()
    (place / "data/__MACOSX/._1.jpg").write_bytes(b"no image")
    (place / "data/readme").mkdir()
    (place / "data/readme/read.txt").write_text("photos of animals")
    (place / "far").mkdir()
    (place / "far/6.jpg").write_bytes(jpeg(7, 22, 20))
    (photos / "cat/more").symlink_to(place / "far")
    (photos / "cat/round").symlink_to(photos)
    return place / "data"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on other photos of the same classes."""
    place = tmp_path_factory.mktemp("run")
    for i in range(6):
        for name in ("cat", "dog"):
            (place / "data" / name).mkdir(parents=True, exist_ok=True)
            (place / "data" / name / f"{i}.jpg").write_bytes(
                jpeg(999 * i + CLASSES.index(name) + 50, 30, 20)
            )
    alexnet.train("photos", data=str(place / "data"), run=str(place / "run"), **TRAIN)
    return place / "run"


@pytest.mark.parametrize("form", ["folder", ".zip", ".tar"])
def test_every_verb_sees_all_of_a_strange_folder(form: str, run: Path, tmp_path: Path) -> None:
    data = strange_tree(tmp_path)
    if form != "folder":
        data = as_archive(data, form)
    result = alexnet.train("photos", data=str(data), run=str(tmp_path / "run"), **TRAIN)
    about = json.loads((tmp_path / "run/recipe.json").read_text())["data"]
    assert about["kind"] == ("folder" if form == "folder" else "archive")
    with np.load(tmp_path / "run/files.npz") as table:
        assert np.bincount(table["all.labels"]).tolist() == [6, 5]
    assert result.run == str(tmp_path / "run")
    assert alexnet.test(run, data=str(data)).n == 11
    assert len(alexnet.classify(run, [data]).results) == 11
    checked = alexnet.data_check(data)
    assert (checked.counts, checked.note) == ({"all": {"cat": 6, "dog": 5}}, "")
    alexnet.data_pack(data, out=tmp_path / "out", size=8)
    assert np.bincount(np.load(tmp_path / "out/all.labels.npy")).tolist() == [6, 5]
    # Its own held-out images are found again, and an archive trains to the weights of the folder.
    assert alexnet.test(tmp_path / "run").own
    if form != "folder":
        folder = tmp_path / "again"
        alexnet.train("photos", data=str(tmp_path / "data"), run=str(folder), **TRAIN)
        assert weights(folder) == weights(tmp_path / "run")


def weights(run: Path) -> bytes:
    return (run / "checkpoints/step-1/model.safetensors").read_bytes()


def test_an_archive_per_class_or_part(run: Path, tmp_path: Path) -> None:
    """As if they were unpacked where they lie: cat.zip, dog.tar; or train.zip, test.zip."""
    data = strange_tree(tmp_path) / "photos"
    by_class, by_part = tmp_path / "classes", tmp_path / "parts"
    by_class.mkdir()
    by_part.mkdir()
    shutil.rmtree(data / "dog/__MACOSX")
    for link in ("more", "round"):
        (data / "cat" / link).unlink()
    for name in ("cat", "dog"):
        shutil.make_archive(str(by_class / name), "tar", data / name)
    for part in ("train", "test"):
        shutil.make_archive(str(by_part / part), "zip", data)
    assert measured_on(by_class) == trained_on(by_class)[0] == {"all": {"cat": 5, "dog": 5}}
    assert set(trained_on(by_part)[0]) == {"train", "test"}
    assert alexnet.data_check(by_part).counts == trained_on(by_part)[0]
    assert alexnet.test(run, data=str(by_class)).n == 10
    # Beside images, an archive is what was unpacked, and is not read twice.
    shutil.copytree(data / "cat", by_class / "cat")
    shutil.copytree(data / "dog", by_class / "dog")
    images = open_image_set(by_class, aloud=False)
    assert images.notes == (f"{by_class}: cat.tar, dog.tar: archives beside the images, not read",)
    assert len(images.read("all").labels) == 10


def test_links_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    data = strange_tree(tmp_path) / "photos"
    (data / "emu").symlink_to(tmp_path / "not mounted")
    (data / "cat/gone.jpg").symlink_to(tmp_path / "gone.jpg")
    images = open_image_set(data, aloud=False)
    assert images.notes == (f"{data}: 1 link leads nowhere, first emu: not read",)
    assert images.classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"cat/gone\.jpg: no such file"):
        alexnet.train("photos", data=str(data), run=str(tmp_path / "run"), **TRAIN)


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    """Twelve folders that each link to all others have more ways through them than any disk."""
    for name in "abcdefghijkl":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(PICTURES[0])
        for other in "abcdefghijkl":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    with pytest.raises(DataError, match="more than 50,000 links to folders"):
        open_image_set(tmp_path)


def test_the_layout_of_the_guide_is_read(tmp_path: Path) -> None:
    """The code that docs/contributing.md adds a layout with."""
    guide = (Path(__file__).parents[1] / "docs/contributing.md").read_text()
    section = guide.partition("## Add a data layout")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "prefixes", "exec"), names)
    opening, root = names["Opening"], tmp_path / "flat"
    root.mkdir()
    for i, name in enumerate(("cat_1.jpg", "cat_2.jpg", "dog_1.jpg")):
        (root / name).write_bytes(PICTURES[i])
    for data in (root, as_archive(root, ".zip")):
        images = names["open_prefixes"](opening(data))
        assert images.classes == ("cat", "dog")
        assert images.read("all").labels.tolist() == [0, 0, 1]
        pack_images(images, tmp_path / f"out{data.suffix}", PackOptions(8), expect=None, workers=0)
    assert names["open_prefixes"](opening(tmp_path)) is None


# Runs from before keep their rules


def test_a_run_from_before_goes_on_by_its_rules(tmp_path: Path, run: Path) -> None:
    """It followed no links inside a class, and cut floats to 0..255."""
    before = Path(shutil.copytree(run.parent, tmp_path / "copy", symlinks=True))
    file = before / "run/recipe.json"
    saved = json.loads(file.read_text())
    saved["data"]["path"] = str(before / "data")
    assert saved["data"]["rules"] == 2
    file.write_text(json.dumps(saved))
    for name in ("far", "data/cat/__MACOSX"):
        (before / name).mkdir()
    (before / "far/1.jpg").write_bytes(PICTURES[1])
    (before / "data/dog/more").symlink_to(before / "far")
    floats = tmp_path / "floats.tif"
    Image.fromarray(np.full((20, 20), 200, np.float32)).save(floats)
    with pytest.raises(DataError, match="changed since the run began"):
        alexnet.test(before / "run", split="train")
    assert "unknown scale" in alexnet.classify(before / "run", [floats]).errors[0].reason
    del saved["data"]["rules"]
    file.write_text(json.dumps(saved))
    assert alexnet.test(before / "run", split="train").n == saved["data"]["counts"]["train"]
    assert len(alexnet.classify(before / "run", [floats]).results) == 1
