"""alexnet inspect and alexnet report, on a small run."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.data import reopen_dataset
from alexnet.errors import AlexNetError, UsageError
from alexnet.pages import RunPart, report_page
from alexnet.records import DataCard, RecordedEnvironment
from conftest import without_report

WHATS = (
    "filters", "activations", "features", "neighbors", "similarity", "probe", "saliency",
    "predictions", "mistakes", "confusion", "calibration", "curves", "data",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("r") / "run", symlinks=True))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    pixels = np.zeros((40, 30), np.uint8)
    pixels[5:15, 2:9] = 200
    path = tmp_path_factory.mktemp("i") / "some [odd] $name$.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def test_every_what_is_a_word_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    shown = capsys.readouterr().out.partition("  WHAT ")[2].partition("IMAGE_OR_RUN")[0]
    assert sorted(word.strip() for word in shown.split(",")) == sorted(WHATS)


def wants(what: str, run: Path, image: str, tmp_path: Path) -> list[str]:
    """The words after the what; few images, for drawing is most of the time."""
    return {
        "saliency": [image],
        "similarity": [str(run)],
        "activations": ["--count", "2"],
        "neighbors": ["--count", "2"],
        "predictions": ["--count", "2"],
        "data": ["--count", "3"],
        "probe": ["--part", "relu7"],
        "features": ["--out", str(tmp_path / "f.npy")],
    }.get(what, [])


@pytest.mark.parametrize("what", WHATS)
def test_each_says_and_draws(
    what: str, run: Path, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = wants(what, run, image, tmp_path)
    assert main(["inspect", str(run), what, *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["what"], found["run"]) == (what, str(run))
    for path in found["figures"]:
        with Image.open(path) as picture:
            assert picture.width > 300
        assert Path(path).parent == run / "figures"
    assert bool(found["figures"]) == (what != "features")
    assert not [p for p in (run / "figures").iterdir() if p.name.startswith(".tmp")]


def test_neighbours_have_the_class_of_who_asks(run: Path) -> None:
    found = alexnet.inspect(run, "neighbors", split="test", metric="cosine", count=1)
    shares = {way: a.share for way, a in found.agreement.items()}
    assert set(shares) == {"relu7", "pixels"}
    assert shares["relu7"] > 0.9  # the patterns are learnt to the end
    assert found.agreement["relu7"].n == 200


def test_features_come_with_images_and_labels(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "relu7.npy"
    found = alexnet.inspect(run, "features", out=out, split="test", part="relu7")
    assert np.load(out, mmap_mode="r").shape == tuple(found.shape) == (200, 256)
    lines = out.with_suffix(".csv").read_text().splitlines()
    assert lines[:2] == ["row,image,label,class", "0,test/0,0,0"]
    assert len(lines) == 201


def test_features_as_parquet_are_those_of_npy(run: Path, tmp_path: Path) -> None:
    """Row groups hold whole rows in order; maps are flattened and their shape stands beside."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    file = tmp_path / "f.parquet"
    of = {"split": "train", "part": "conv1"}  # 54 MB, which is more than a row group
    found = alexnet.inspect(run, "features", out=file, **of)
    alexnet.inspect(run, "features", out=tmp_path / "f.npy", **of)
    plain = np.load(tmp_path / "f.npy")
    assert tuple(found.shape) == plain.shape
    with parquet.ParquetFile(file) as opened:
        assert opened.num_row_groups > 1
        table = opened.read()
    assert table.column_names == ["image", "label", "class", "features"]
    assert json.loads(table.schema.metadata[b"shape"]) == list(found.shape[1:])
    rows = np.stack(table["features"].to_numpy())
    assert rows.dtype == np.float32
    assert (rows == plain.reshape(len(plain), -1)).all()
    lines = (tmp_path / "f.csv").read_text().splitlines()[1:]
    columns = [table[name].to_pylist() for name in ("image", "label", "class")]
    assert lines == [f"{i},{a},{b},{c}" for i, (a, b, c) in enumerate(zip(*columns, strict=True))]


def test_a_run_is_like_itself(run: Path) -> None:
    found = alexnet.inspect(run, "similarity", [run])
    assert np.diag(found.cka) == pytest.approx(1)


def test_mistakes_are_told_by_the_names_of_their_images(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    run = tmp_path / "untaught"
    alexnet.train("digits", data=idx_folder, run=run, **(tiny | {"lr": 1e-9, "steps": 2}))
    found = alexnet.inspect(run, "mistakes", split="train", count=5, out=tmp_path / "m.png")
    predictor = alexnet.load(run)
    of = reopen_dataset(predictor.recipe, predictor.data)
    names, split = of.names("train"), of.split("train")
    assert found.mistakes
    for told in found.mistakes + found.labels:
        row = names.index(told.image)
        (likely,) = predictor.predict([split.read(np.array([row]))[0]])
        assert predictor.classes[split.labels[row]] == told.class_name != told.said
        assert predictor.classes[likely.argmax()] == told.said
        assert likely.max() == pytest.approx(told.probability, abs=1e-3)


def test_pictures_go_where_they_are_asked(run: Path, image: str, tmp_path: Path) -> None:
    out = tmp_path / "s.svg"
    found = alexnet.inspect(run, "saliency", [image], method="grad-cam", out=out, label="3")
    assert found.figures == [str(out)]
    assert b"<svg" in out.read_bytes()
    assert found.images[0].class_name == "3"
    found = alexnet.inspect(run, "mistakes", out=tmp_path / "m.png")
    assert all(Path(path).name.startswith("m") for path in found.figures)


@pytest.mark.parametrize(
    ("what", "items", "options", "says"),
    [
        ("filtres", [], {}, "similarity: did you mean 'filters'?"),
        ("filters", [], {"part": "conv9"}, "no part 'conv9': there are conv1"),
        ("filters", [], {"part": "fc6"}, "fc6 has no kernels to show: there are those of conv1"),
        ("filters", ["a.png"], {}, "inspect filters takes no 'a.png'"),
        ("filters", [], {"metric": "cosine"}, "takes no metric=...: it takes part=..."),
        ("confusion", [], {"split": "tset"}, "no split 'tset': there are train, val, test"),
        ("confusion", [], {"out": "x.jpg"}, "a picture ends in .png or .svg"),
        ("confusion", [], {"out": "no/x.png"}, "no is no folder"),
        (
            "neighbors",
            [],
            {"metric": "manhattan"},
            "'manhattan'; it takes one of euclidean, cosine",
        ),
        ("neighbors", [], {"split": "train"}, "a training image is its own nearest one"),
        ("activations", [], {"channels": [99]}, "relu1 has no channel 99: there are 0 to 31"),
        ("saliency", [], {}, "saliency of what?"),
        ("saliency", ["missing.png"], {}, "missing.png: no such file"),
        ("features", [], {}, "give out=FILE.npy or FILE.parquet"),
        ("similarity", [], {}, "of two runs and 1 were named"),
        ("predictions", [], {"count": 0}, "count is 0; it must be 1 to 10,000"),
        ("probe", [], {"split": "train"}, "a probe is fitted to train"),
    ],
)
def test_bad_input_is_one_line(
    what: str, items: list[str], options: dict[str, Any], says: str, run: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlexNetError, match=re.escape(says)) as caught:
        alexnet.inspect(run, what, items, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_data_that_is_gone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"nowhere"):
        alexnet.inspect(run, "confusion", data=tmp_path / "nowhere")
    with pytest.raises(AlexNetError, match=r"nowhere"):
        alexnet.report(run, data=tmp_path / "nowhere", out=tmp_path / "r.html")
    for name in ("cat", "dog"):  # classes that the run does not know
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (28, 28)).save(tmp_path / "pets" / name / "1.png")
    result = alexnet.report(run, data=tmp_path / "pets", out=tmp_path / "r.html")
    assert "Without confusion, calibration, mistakes and neighbours" in Path(result.out).read_text()


def test_training_ends_with_a_page_that_reads_no_image(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "Not tested yet" in page
    assert "Written when training ended" in page
    again = re.search(r"alexnet train digits [^<]*", page)
    assert again
    assert "--steps 40 --batch-size 32" in again[0]


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report on a tested run."""
    alexnet.test(run)
    return alexnet.report(run, out=tmp_path_factory.mktemp("p") / "report.html")


def test_a_report_holds_everything(page: dict[str, Any]) -> None:
    text = Path(page.out).read_text()
    assert page.bytes == len(text.encode()) < 5_000_000
    assert page.left_out == []
    for words in ("Confusion, test", "Calibration, test", "The doctor&#x27;s verdicts", "of ties",
                  "First filters", "Nearest training images", "How to reproduce it"):  # fmt: skip
        assert words in text or words.replace("&#x27;", "'") in text, words
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert text.count("<img") == text.count('alt="') - text.count('alt=""')


def test_a_report_on_two_runs_says_where_they_differ(
    run: Path, tiny: dict[str, Any], idx_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other <b>"
    fields = {**tiny, "steps": 3, "lr": 0.0125}
    alexnet.train("digits", data=idx_folder, run=other, doctor="off", **fields)
    found = alexnet.report([run, other], brief=True)
    text = Path(found.out).read_text()
    assert found.out == str(run / "report-of-2.html")
    table = text.partition('id="differences"')[2].partition("</section>")[0]
    assert "0.0125" in table
    assert re.findall(r'<th scope="row">(\w+)</th>', table) == ["steps", "lr"]
    assert "other &lt;b&gt;" in text
    assert "other <b>" not in text


def test_pictures_beyond_the_limit_are_named(run: Path, tmp_path: Path) -> None:
    saved, environment = (
        json.loads((run / name).read_text()) for name in ("recipe.json", "environment.json")
    )
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    for name in ("large", "small"):
        kept = noise if name == "large" else noise[:20, :20]
        Image.fromarray(kept).save(tmp_path / f"{name}.png")
    pictures = [(name, tmp_path / f"{name}.png", name) for name in ("large", "small")]
    card = DataCard.from_json(saved["data"], "recipe.json")
    machine = RecordedEnvironment(environment)
    of = ("a run", saved["recipe"], saved["digest"], "a network", machine, card)
    part = RunPart(*of, None, [], [], pictures, [], [], None)
    curves = (tmp_path / "small.png", "curves")
    for limit, left_out in ((100_000, ["a run: large"]), (4_900_000, [])):
        page, found = report_page([part], {}, curves, "today", limit)
        assert found == left_out
        assert len(page) < limit
        assert page.count("<img") == 3 - len(left_out)
        assert ("Left out, to keep the page small: large.png" in page) is bool(left_out)


def test_reports_that_cannot_be(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a name that ends in \.html"):
        alexnet.report(run, out=tmp_path / "r.pdf")
    with pytest.raises(UsageError, match="a report on nothing"):
        alexnet.report([])
    with pytest.raises(AlexNetError, match="no such folder"):
        alexnet.report(tmp_path / "none")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync.sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_finds_nothing_wrong(browser: Any, page: dict[str, Any], width: int) -> None:
    seen: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 700})
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on("request", lambda r: None if r.url[:5] in ("file:", "data:") else seen.append(r.url))
    tab.goto(Path(page.out).as_uri())
    assert seen == []
    pictures = tab.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth, i.alt])")
    assert len(pictures) >= 6  # this run makes no mistakes to show
    assert all(loaded and alt for loaded, alt in pictures)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    for landmark in ("header", "nav", "main", "footer", "main section[aria-labelledby]"):
        assert tab.locator(landmark).count(), landmark
    assert tab.locator("h1").count() == 1
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert all(b - a <= 1 for a, b in pairwise(levels))
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#results")
    tab.close()
