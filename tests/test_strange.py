"""Input of those who mean harm: names that command, names that are no text, runs that were edited,
pipes among photos. Each is one line with the remedy, or is taken as what it is."""

import html.parser
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.data import open_image_set
from alexnet.errors import CheckpointError, DataError
from alexnet.runs import RunDir

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "<script>alert(1)<"
CLASSES = (
    b"\x1b[31mred\nline",
    b"-rf",
    SCRIPT.encode(),
    b"caf\xe9",
    b"| **b** ![x](y)",
    b"n" * 255,
)
SHORT: dict[str, Any] = {
    "steps": 2, "batch_size": 4, "eval_every": 1, "doctor": "off", "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, classes and files called what nobody would call them."""
    root = tmp_path_factory.mktemp("strange") / os.fsdecode(b"caf\xe9") / "photos"
    for label, name in enumerate(CLASSES):
        folder = os.path.join(os.fsencode(root), name)
        os.makedirs(folder)
        for i, file in enumerate((b"\x1b[2J\n.png", b"\xff.png", b"-x.png", b"3.png", b"4.png")):
            with open(os.path.join(folder, file), "wb") as out:
                Image.new("RGB", (32, 32), (40 * label, 50 * i, 9 * i)).save(out, "png")
    return root


@pytest.fixture(scope="module")
def strange(photos: Path) -> Path:
    """A run on them."""
    run = photos.parents[1] / "run"
    alexnet.train("cifar10", data=photos, run=run, size=32, **SHORT)
    return run


@pytest.fixture(scope="module")
def page(strange: Path) -> str:
    """The report on it."""
    return Path(alexnet.report(strange).out).read_text()


def lines(captured: str) -> list[str]:
    return [line for line in captured.splitlines() if line]


@pytest.mark.parametrize(
    "words", [["classify", "RUN", "PHOTOS"], ["test", "RUN"], ["inspect", "RUN", "mistakes"]]
)
def test_names_do_not_command_the_terminal(
    words: list[str], strange: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    given = {"RUN": str(strange), "PHOTOS": str(photos)}
    assert main([given.get(word, word) for word in words]) == 0
    said = capsys.readouterr()
    assert "\\x1b[31mred" in said.out, "the class is named"
    for text in (said.out, said.err):
        assert "\x1b" not in text
        assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]


def test_a_name_forges_no_line(
    strange: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["classify", str(strange), str(photos), "--top", "1"]) == 0
    *shown, precision = lines(capsys.readouterr().out)
    assert len(shown) == 2 * 5 * len(CLASSES)
    assert precision.startswith("probabilities in ")


class Tags(html.parser.HTMLParser):
    """The tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)


def test_a_report_is_text_and_pictures(page: str) -> None:
    assert "script" not in Tags(page).found
    assert Tags(f"{page}{SCRIPT}/script>").found >= {"script"}, "would be seen"
    assert "/caf\\udce9/photos" in page, "a path that is no UTF-8 is written out"


def test_pages_have_a_way_past_the_links(page: str) -> None:
    """By keyboard and to a screen reader: the first link leads to what the page is about."""
    for text in (page, (ROOT / "docs/claims.html").read_text()):
        assert text.index('href="#main"') < text.index("<nav")
        assert text.count('id="main"') == 1


def test_other_formats_take_the_names(strange: Path, tmp_path: Path) -> None:
    """What wrote text failed on names that are no UTF-8."""
    alexnet.export(strange, format="safetensors", out=tmp_path / "hub")
    card = (tmp_path / "hub/README.md").read_text()
    assert SCRIPT not in card
    assert "alert" in card, "the class is named"
    assert "![x]" not in card
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    alexnet.inspect(strange, "features", out=tmp_path / "f.parquet")


def test_classes_are_text(photos: Path, strange: Path) -> None:
    names = open_image_set(photos).classes
    assert "caf\\udce9" in names
    assert all(name.encode() for name in names)
    assert alexnet.load(strange).classes == names


def test_two_classes_that_would_be_called_the_same_are_refused(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"caf\\udce9"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        Image.new("RGB", (8, 8)).save(os.path.join(os.fsdecode(folder), "1.png"))
    with pytest.raises(DataError, match="two classes are called 'caf"):
        open_image_set(tmp_path)


def test_a_pipe_among_photos_is_named(
    tree: Path, strange: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To open it would wait for ever."""
    data = Path(shutil.copytree(tree, tmp_path / "tree"))
    os.mkfifo(data / "class-0/pipe.jpg")
    for words in (["train", "--data", str(data)], ["train", "cifar10", "--data", str(data)]):
        capsys.readouterr()
        assert main([*words, "--steps", "1", "--run", str(tmp_path / "run")]) == 2
        said = [line for line in lines(capsys.readouterr().err) if line.startswith("alexnet:")]
        assert len(said) == 1
        assert "pipe.jpg" in said[0]
    assert main(["classify", str(strange), str(data / "class-0/pipe.jpg")]) == 2
    assert "a pipe or a device" in capsys.readouterr().err


# Runs whose JSON somebody edited. The digest of a recipe does not cover what is said of the data.

EDITS: dict[str, dict[str, Any]] = {
    "one class": {"classes": ["a"]},
    "a class twice": {"classes": ["a", "a"]},
    "classes that are a number": {"classes": 5},
    "no name": {"classes": ["a", None]},
    "a mean of text": {"mean": "x"},
    "a mean without an end": {"mean": [float("inf")]},
    "no mean": {"mean": []},
    "std": {"std": [10**400]},
    "covariance": {"covariance": [1, 2]},
    "path": {"path": 3},
    "counts": {"counts": {"train": "x"}},
}


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A run to edit."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def test_an_edited_description_is_refused(copied: Path) -> None:
    file = copied / "recipe.json"
    saved = json.loads(file.read_text())
    mean, std = (3 * saved["data"][key] for key in ("mean", "std"))
    file.write_text(json.dumps(saved | {"data": saved["data"] | {"mean": mean, "std": std}}))
    alexnet.load(copied)  # they are of colour, and what is read of it is grey
    for edited in ([], *(saved["data"] | edit for edit in EDITS.values())):
        file.write_text(json.dumps(saved | {"data": edited}))
        with pytest.raises(CheckpointError, match=r"recipe\.json: .* restore a copy"):
            alexnet.load(copied)


EVENTS: list[dict[str, Any]] = [
    {},
    {"event": 5},
    {"event": "val"},
    {"event": "train", "step": "x", "epoch": 1, "loss": 1},
    {"event": "train", "step": 1, "epoch": 1, "loss": []},
    {"event": "train", "step": 10**400, "epoch": 1, "loss": 1},
    {"event": "val", "step": 1, "epoch": 1, "n": 9, "loss": 1, "top1_ci95": [1]},
    {"event": "doctor", "name": 1, "severity": "note", "evidence": "", "advice": ""},
    {"event": "look", "step": 1, "epoch": 1, "dead": 3},
]


def test_an_edited_event_is_refused(copied: Path) -> None:
    log = copied / "metrics.jsonl"
    whole = log.read_text()
    for good in (
        {"event": "train", "step": 1, "epoch": 0.5, "loss": float("nan")},
        {"event": "of another version"},
    ):
        log.write_text(f"{whole}{json.dumps(good)}\n")
        assert RunDir.open(copied).events()[-1].event == good["event"]
    for bad in EVENTS:
        log.write_text(f"{whole}{json.dumps(bad)}\n")
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line \d+: .* restore a copy"):
            RunDir.open(copied).events()


def edit_data(run: Path) -> None:
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"]["classes"] = 5
    (run / "recipe.json").write_text(json.dumps(saved))


def edit_log(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event":"val","step":[],"epoch":1,"n":3,"loss":0}\n')


def pipe_log(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")


@pytest.mark.parametrize(
    ("edit", "words"),
    [(edit_data, ["test"]), (edit_log, ["inspect", "curves"]), (pipe_log, ["inspect", "curves"])],
)
def test_an_edited_run_is_one_line(
    edit: Callable[[Path], None],
    words: list[str],
    copied: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit(copied)
    capsys.readouterr()
    assert main([words[0], str(copied), *words[1:]]) == 2
    (line,) = lines(capsys.readouterr().err)
    assert "restore" in line
