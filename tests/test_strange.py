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
from alexnet import commands
from alexnet.cli import main
from alexnet.data.raw import class_names
from alexnet.data.sources import open_source
from alexnet.errors import CheckpointError, DataError
from alexnet.files import write_atomic
from alexnet.interchange.hub import escape_markdown
from alexnet.pages import claims_page
from alexnet.runs.records import DataCard, Misfit, read_event

SCRIPT = "<script>alert(1)<"
CLASSES = (
    b"\x1b[31mred\nline",
    b"-rf",
    SCRIPT.encode(),
    b"caf\xe9",
    b"| **b** ![x](y)",
    b"n" * 255,
)
SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "eval_every": 1, "doctor": "off"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes and files called what nobody would call them."""
    root = tmp_path_factory.mktemp("strange") / "photos"
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
    run = photos.parent / "run"
    commands.train("cifar10", data=photos, run=run, size=32, **SHORT)
    return run


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


def test_a_report_is_text_and_pictures(strange: Path) -> None:
    page = Path(commands.report(strange)["out"]).read_text()
    assert "script" not in Tags(page).found
    assert Tags(f"{page}{SCRIPT}/script>").found >= {"script"}, "would be seen"


def test_other_formats_take_the_names(strange: Path, tmp_path: Path) -> None:
    """What wrote text failed on names that are no UTF-8."""
    commands.export(strange, format="safetensors", out=tmp_path / "hub")
    card = (tmp_path / "hub/README.md").read_text()
    assert SCRIPT not in card
    assert escape_markdown(SCRIPT) in card
    assert "![x]" not in card
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    commands.inspect(strange, "features", out=tmp_path / "f.parquet")


def test_classes_are_text(photos: Path, strange: Path) -> None:
    names = open_source(photos).classes
    assert "caf\\udce9" in names
    assert all(name.encode() for name in names)
    assert alexnet.load(strange).classes == names
    with pytest.raises(DataError, match="two classes are called"):
        class_names(("caf\udce9", "caf\\udce9"))


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

DATA = {"classes": ["a", "b"], "mean": [1.0], "std": [2.0], "digest": "d", "covariance": []}
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


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_description_is_refused(name: str) -> None:
    DataCard.read(DATA).check_channels(1)
    colour = DataCard.read({**DATA, "mean": [1.0] * 3, "std": [1.0] * 3})
    colour.check_channels(1)  # grey of a colour set
    with pytest.raises(Misfit):
        colour.check_channels(2)
    for odd in (DATA | EDITS[name], []):
        with pytest.raises(Misfit):
            DataCard.read(odd)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": 5},
        {"event": "val"},
        {"event": "train", "step": "x", "epoch": 1, "loss": 1},
        {"event": "train", "step": 1, "epoch": 1, "loss": []},
        {"event": "train", "step": 10**400, "epoch": 1, "loss": 1},
        {"event": "val", "step": 1, "epoch": 1, "n": 9, "loss": 1, "top1_ci95": [1]},
        {"event": "doctor", "name": 1, "severity": "note", "evidence": "", "advice": ""},
        {"event": "look", "step": 1, "epoch": 1, "dead": 3},
    ],
)
def test_an_edited_event_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"line 3: .*it was edited"):
        read_event(event, "metrics.jsonl, line 3")
    line = {"event": "train", "step": 1, "epoch": 0.5, "loss": float("nan")}
    assert read_event(line, "a line").step == 1
    other = {"event": "of another version", "note": 1}
    assert read_event(other, "a line").to_json() == other


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
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    edit(run)
    capsys.readouterr()
    assert main([words[0], str(run), *words[1:]]) == 2
    (line,) = lines(capsys.readouterr().err)
    assert "restore" in line


def test_pages_have_a_way_past_the_links() -> None:
    """By keyboard and to a screen reader: the first link leads to what the page is about."""
    page = claims_page([])
    assert page.index('href="#main"') < page.index("<nav")
    assert page.count('id="main"') == 1


def test_a_page_on_data_in_such_a_folder_is_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "page.html", "data: /home/caf\udce9")
    assert (tmp_path / "page.html").read_text() == "data: /home/caf\\udce9"
