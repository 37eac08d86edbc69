"""Photos that lie on their side, as phones store them: turned upright in training, and wherever the
weights go. Upright and turned files hold the same pixels, so every figure must be the same."""

import io
import json
import re
import shutil
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import alexnet
from alexnet import cli as program
from conftest import Launch, without_report
from shell import Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli

Pixels = NDArray[np.uint8]
CLASSES = ("bottom", "left", "right", "top")  # where the bright band is
SHORT = [
    *("--size", 32, "--crop", 32, "--steps", 16, "--batch-size", 8, "--no-flip", "--views", 1),
    *("--cutout", 0, "--precision", "fp32", "-j", 0, "--no-doctor", "--eval-every", 4),
]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


def photo(label: str, seed: int) -> Pixels:
    """40 x 30 pixels, bright at one side."""
    image = np.random.default_rng(seed).integers(0, 90, (30, 40, 3), np.uint8)
    image[{"top": np.s_[:9], "bottom": np.s_[-9:], "left": np.s_[:, :9], "right": np.s_[:, -9:]}[
        label
    ]] += 150  # fmt: skip
    return image


def stored(upright: Pixels, orientation: int) -> Pixels:
    """How a camera stores what it tags so, by the table of the EXIF standard: which side of the
    picture row 0 is, and which column 0."""
    across = upright.transpose(1, 0, 2)
    by_number = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: across,  # left, top
        6: across[::-1],  # right, top
        7: across[::-1, ::-1],  # right, bottom
        8: across[:, ::-1],  # left, bottom
    }
    return np.ascontiguousarray(by_number[orientation])


def file_of(upright: Pixels, orientation: int = 1, kind: str = "PNG", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(stored(upright, orientation)).save(out, kind, exif=exif, **options)
    return out.getvalue()


def write_photos(folder: Path, each: int, turned: bool, seed: int = 0) -> Path:
    for c, label in enumerate(CLASSES):
        (folder / label).mkdir(parents=True)
        for i in range(each):
            data = file_of(photo(label, seed + 100 * c + i), 1 + (c + i) % 8 if turned else 1)
            (folder / label / f"{i:02}.png").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos upright and turned, new ones of each kind, and packs of the turned."""
    root = tmp_path_factory.mktemp("orient")
    for name, turned in (("upright", False), ("turned", True)):
        write_photos(root / name, 10, turned)
        write_photos(root / f"new-{name}", 4, turned, seed=5000)
    for orient in ("apply", "ignore"):
        words = ["data", "pack", root / "turned", "--out", root / f"pack-{orient}", "--size", 32]
        assert program.main([*map(str, words), "--orient", orient]) == 0
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        learn(root, "of-turned", "photos", "turned")
    return root


def learn(place: Path, run: str, recipe: str | Path, data: str, *flags: object) -> Path:
    """A run by its name, trained when it is first asked for."""
    words = ["train", recipe, "--data", place / data, "--run", place / run, *SHORT, *flags]
    if not (place / run).exists():
        assert program.main([str(word) for word in words]) == 0
    return place / run


def learn_ignoring(place: Path) -> Path:
    return learn(place, "ignored", "photos", "turned", "--orient", "ignore")


def weights(run: Path) -> bytes:
    return (run / "checkpoints/best/model.safetensors").read_bytes()


def saved(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    return found


def answers(out: str) -> list[Any]:
    return [result["top"] for result in one_object(out)["results"]]


# One image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(place: Path, kind: str, orientation: int) -> None:
    upright, options = photo("top", 1), {"lossless": True} if kind == "WEBP" else {}
    found = alexnet.load(place / "of-turned").decode(file_of(upright, orientation, kind, **options))
    np.testing.assert_array_equal(found, alexnet.load(place / "of-turned").decode(upright))


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_jpeg(place: Path, kind: str, orientation: int) -> None:
    second = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    data = file_of(photo("top", 1), orientation, kind, **(second if kind == "MPO" else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind
        pixels = np.array(image)
    back = {6: 8, 8: 6}.get(orientation, orientation)  # every other one undoes itself
    predictor = alexnet.load(place / "of-turned")
    np.testing.assert_array_equal(predictor.decode(data), predictor.decode(stored(pixels, back)))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "I;16"])
def test_every_kind_of_pixel_is_turned(place: Path, mode: str) -> None:
    wide = Image.fromarray(photo("left", 2))
    image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    image = image if mode == "I;16" else wide.convert("L" if mode in ("1", "LA") else "RGB")
    image = image if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, turned = io.BytesIO(), io.BytesIO()
    image.save(upright, "PNG")
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    predictor = alexnet.load(place / "of-turned")
    expected = predictor.decode(upright.getvalue())
    np.testing.assert_array_equal(predictor.decode(turned.getvalue()), expected)


BROKEN = {
    "no TIFF": b"XXXXXXXXXXXX",
    "empty": b"",
    "cut in the entry": b"II*\0\x08\0\0\0\x05\0\x12\x01",
    "directory beyond the end": b"II*\0\xff\xff\xff\xff",
    "zero": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0",
    "nine": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
    "text": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x026\0\0\0\0\0\0\0",
    "real": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x0b\0\0\0\x01\x40\xc0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", BROKEN)
def test_broken_exif_is_as_none(place: Path, kind: str, broken: str) -> None:
    image, plain, odd = Image.fromarray(photo("top", 3)), io.BytesIO(), io.BytesIO()
    image.save(plain, kind)
    image.save(odd, kind, exif=b"Exif\0\0" + BROKEN[broken])
    predictor = alexnet.load(place / "of-turned")
    expected = predictor.decode(plain.getvalue())
    np.testing.assert_array_equal(predictor.decode(odd.getvalue()), expected)


def test_an_orientation_before_the_rest_is_damaged_counts(place: Path) -> None:
    """The entry is whole, and what follows it is cut off."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01"
    data = file_of(photo("top", 1), 6)
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(out, "PNG", exif=exif)
    predictor = alexnet.load(place / "of-turned")
    expected = predictor.decode(data)
    np.testing.assert_array_equal(predictor.decode(out.getvalue()), expected)


# A run


def test_training_sees_them_upright(place: Path) -> None:
    """Bit for bit."""
    run = place / "of-turned"
    assert saved(run)["recipe"]["orient"] == "apply"
    assert saved(run)["data"]["orient"] == "apply"
    assert weights(learn(place, "of-upright", "photos", "upright")) == weights(run)
    assert weights(learn_ignoring(place)) != weights(run)


def test_training_says_so(place: Path, cli: Cli) -> None:
    words = ("--data", place / "turned", *SHORT, "--steps", 1)
    _, _, said = cli("train", "photos", "--run", place / "said", *words)
    assert any("of 28 sampled training images have" in line and "turned upright" in line
               for line in said)  # fmt: skip
    _, _, said = cli("train", "photos", "--run", place / "left", *words, "--orient", "ignore")
    assert any("left as stored (--orient apply" in line for line in said)
    words = ("--data", place / "upright", *SHORT, "--steps", 1)
    _, _, said = cli("train", "photos", "--run", place / "none", *words)
    assert not any("EXIF" in line for line in said)


def test_every_answer_is_that_of_the_upright_photo(place: Path, cli: Cli) -> None:
    """classify, test, inspect and Python."""
    run, upright, turned = place / "of-turned", place / "new-upright", place / "new-turned"
    found = [answers(cli("classify", run, folder, "--json")[1]) for folder in (upright, turned)]
    assert found[0] == found[1]
    assert len({top[0]["class"] for top in found[0]}) > 1, "it learnt something"
    tests = [one_object(cli("test", run, "--data", folder, "--json")[1]) for folder in
             (upright, turned)]  # fmt: skip
    figures = [(t["n"], t["loss"], t["top1"], t["per_class"]) for t in tests]
    assert figures[0] == figures[1]
    files = [sorted(folder.rglob("*.png"))[:8] for folder in (upright, turned)]
    seen = [one_object(cli("inspect", run, "predictions", *some, "--json")[1]) for some in files]
    assert [i["top"] for i in seen[0]["predictions"]] == [i["top"] for i in seen[1]["predictions"]]
    predictor = alexnet.load(run)
    np.testing.assert_array_equal(predictor.predict(files[0]), predictor.predict(files[1]))


def test_the_server_turns_them(launch: Launch, place: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    log = place / "serve.log"
    process = launch(["serve", place / "of-turned", "--port", 0], log)

    def ask(path: str, orientation: int | None = None) -> dict[str, Any]:
        found = re.search(r"http://\S+/", log.read_text())
        assert found
        data = None if orientation is None else file_of(photo("left", 7), orientation)
        asked = urllib.request.Request(found[0] + path, data, {"Content-Type": "image/png"})
        with urllib.request.urlopen(asked, timeout=60) as said:
            answer: dict[str, Any] = json.load(said)
        return answer

    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(AssertionError, OSError):
            if ask("readyz")["ok"]:
                break
        assert process.is_alive(), log.read_text()
        time.sleep(0.05)

    for path in ("classify", "explain"):
        one, other = (ask(path, orientation) for orientation in (1, 6))
        for key in ("results", "input", "evidence"):
            assert one.get(key) == other.get(key)
    assert ask("model")["preprocessing"]["orient"] == "apply"
    process.terminate()
    process.join(60)


def test_an_export_says_so_and_comes_back(place: Path, cli: Cli, tmp_path: Path) -> None:
    out, run = tmp_path / "folder", tmp_path / "back"
    status, _, _ = cli("export", place / "of-turned", "--format", "safetensors", "--out", out)
    assert status == 0
    assert json.loads((out / "certificate.json").read_text())["preprocessing"]["orient"] == "apply"
    assert json.loads((out / "config.json").read_text())["alexnet"]["recipe"]["orient"] == "apply"
    assert "turned upright by the EXIF orientation" in (out / "README.md").read_text()
    assert cli("test", out, "--certificate")[0] == 0
    status, said, _ = cli("import", out, "--run", run)
    assert status == 0
    assert "turned upright by EXIF" in said
    assert saved(run)["recipe"]["orient"] == "apply"
    files = sorted((place / "new-turned").rglob("*.png"))
    expected = alexnet.load(place / "of-turned").predict(files)
    np.testing.assert_allclose(alexnet.load(run).predict(files), expected, atol=1e-6)


def test_foreign_weights_ignore_it_unless_told(place: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "plain.safetensors"
    shutil.copy(place / "of-turned/checkpoints/best/model.safetensors", out)
    runs = {}
    for flags in ([], ["--orient", "apply"]):
        run = tmp_path / f"run{len(flags)}"
        words = ("--as", "fast-32", "--size", 32, "--crop", 32, "--run", run, *flags)
        status, said, errors = cli("import", out, *words)
        assert status == 0, errors
        assert ("turned upright" in said) == bool(flags)
        runs[len(flags)] = run
    assert [saved(run)["recipe"]["orient"] for run in runs.values()] == ["ignore", "apply"]
    turned, upright = (place / f"new-{kind}" for kind in ("turned", "upright"))
    _, ignored, said = cli("classify", runs[0], turned, "--json")
    assert any("15 of 16 images have an EXIF orientation" in line for line in said)
    _, applied, said = cli("classify", runs[2], turned, "--json")
    assert not any("EXIF" in line for line in said)
    _, expected, said = cli("classify", runs[0], upright, "--json")
    assert answers(applied) == answers(expected) != answers(ignored)


def test_fine_tuning_keeps_it(place: Path, cli: Cli) -> None:
    """That of a run; of a file, or of weights that were imported, own photos are upright."""
    few = ["--steps", 1, "--precision", "fp32", "-j", 0, "--no-doctor"]
    ignored = learn_ignoring(place)
    file = place / "plain.safetensors"
    shutil.copy(ignored / "checkpoints/best/model.safetensors", file)
    words = ("--as", "fast-32", "--size", 32, "--crop", 32)
    assert cli("import", file, *words, "--run", place / "imported")[0] == 0
    for init, flags, orient in (
        (ignored, [], "ignore"),
        (ignored, ["--orient", "apply"], "apply"),
        (place / "of-turned", [], "apply"),
        (place / "imported", [], "apply"),
        (file, ["--model", "fast-32"], "apply"),
    ):
        run = place / f"tuned-{len(list(place.glob('tuned-*')))}"
        status, _, said = cli("train", "--data", place / "turned", "--init", init, "--run", run,
                              *few, *flags)  # fmt: skip
        assert status == 0, said
        assert saved(run)["recipe"]["orient"] == orient


# Packed sets


@pytest.mark.parametrize("orient", ["apply", "ignore"])
def test_a_run_reads_photos_as_its_pack_did(place: Path, cli: Cli, orient: str) -> None:
    run = learn(place, f"of-pack-{orient}", "photos", f"pack-{orient}")
    assert saved(run)["recipe"]["orient"] == orient
    tree = place / "of-turned" if orient == "apply" else learn_ignoring(place)
    assert weights(run) == weights(tree), "the pack and the run read alike"
    new = place / "new-turned"
    _, out, _ = cli("classify", run, new, "--json")
    assert answers(out) == answers(cli("classify", tree, new, "--json")[1])
    other = "ignore" if orient == "apply" else "apply"
    status, _, said = cli("test", run, "--data", place / f"pack-{other}")
    assert status == 2
    assert f"--orient {other}, and 35 of its photos have an EXIF orientation" in said[-1]
    assert cli("test", run)[0] == 0
    upright = place / "pack-upright"
    if not upright.exists():  # packed otherwise, and nothing in it lies otherwise
        assert cli("data", "pack", place / "new-upright", "--out", upright, "--size", 32,
                   "--orient", other)[0] == 0  # fmt: skip
    assert cli("test", run, "--data", upright)[0] == 0


def test_a_recipe_is_told_what_the_pack_did(place: Path, cli: Cli, tmp_path: Path) -> None:
    words = (*SHORT, "--steps", 1, "--data")
    status, _, said = cli("train", "photos", *words, place / "pack-ignore", "--run", tmp_path / "a")
    assert status == 0
    assert any(
        line.startswith("orient ignore: ") and line.endswith("was packed so") for line in said
    )
    status, _, said = cli("train", "bn", "--model", "fast-32", *words, place / "pack-apply",
                          "--run", tmp_path / "b")  # fmt: skip
    assert status == 0
    assert saved(tmp_path / "b")["recipe"]["orient"] == "apply"


@pytest.mark.parametrize("orient", ["apply", "ignore"])
def test_the_opposite_of_a_pack_is_refused(
    place: Path, cli: Cli, tmp_path: Path, orient: str
) -> None:
    """As a flag, as a line of a recipe file, and where a recipe is chosen. Nothing is written."""
    pack = place / f"pack-{'ignore' if orient == 'apply' else 'apply'}"
    file = tmp_path / "mine.toml"
    assert cli("train", "photos", *SHORT, "--steps", 1, "--data", place / "turned", "--orient",
               orient, "--run", tmp_path / "first")[0] == 0  # fmt: skip
    shutil.copy(tmp_path / "first/recipe.toml", file)
    run = tmp_path / "run"
    for words in (["photos", "--orient", orient], [file], ["--orient", orient]):
        flags = [] if words[0] == "--orient" else SHORT
        status, _, said = cli("train", *words, "--data", pack, "--run", run, "--steps", 1, *flags)
        assert status == 2
        assert f"orient is '{orient}', and {pack} was packed with" in said[-1]
        assert "pack it again with" in said[-1]
        assert not run.exists()
    text = "\n".join(line for line in file.read_text().splitlines() if "orient" not in line)
    file.write_text(text)
    assert cli("train", file, "--data", pack, "--run", run, "--steps", 1)[0] == 0


def test_packing_as_stored_says_so(place: Path, cli: Cli, tmp_path: Path) -> None:
    _, _, said = cli("data", "pack", place / "turned", "--out", tmp_path / "a", "--size", 32)
    assert any("35 files have an EXIF orientation" in line for line in said)
    words = ("--out", tmp_path / "b", "--size", 32, "--orient", "apply")
    _, _, said = cli("data", "pack", place / "turned", *words)
    assert not any("EXIF" in line for line in said)


def test_jpegs_are_packed_upright(place: Path, tmp_path: Path) -> None:
    """Also those that would be kept as they came, being of the size already."""
    for i, label in enumerate(CLASSES):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        square = photo(label, i)[:, 5:35]
        for n in range(3):
            data = file_of(square, 6 if n else 1, "JPEG", quality=95)
            (folder / f"{n}.jpg").write_bytes(data)
    out = tmp_path / "pack"
    alexnet.data_pack(tmp_path / "photos", out=out, size=30, encoding="jpeg", orient="apply")
    run = tmp_path / "run"
    alexnet.train("photos", data=out, run=run, size=30, crop=28, steps=1, batch_size=4, workers=0,
                  precision="fp32", doctor="off")  # fmt: skip
    predictor = alexnet.load(run)
    for i, label in enumerate(CLASSES):
        data = (tmp_path / "photos" / label / "1.jpg").read_bytes()
        upright = predictor.decode(photo(label, i)[:, 5:35])
        apart = np.abs(predictor.decode(data).astype(int) - upright).mean()
        assert apart < 20, label


# Runs from before


def as_before(run: Path, to: Path) -> Path:
    """A run as 0.1.0 left it, whose recipe.json knows of no orientation."""
    shutil.copytree(run, to, symlinks=True)
    before = saved(to)
    for part in ("recipe", "data"):
        del before[part]["orient"]
    (to / "recipe.json").write_text(json.dumps(before))
    return to


def test_a_run_from_before_reads_photos_as_they_are_stored(
    place: Path, cli: Cli, tmp_path: Path
) -> None:
    ignored = learn_ignoring(place)
    run = as_before(ignored, tmp_path / "run")
    new = place / "new-turned"
    _, out, _ = cli("classify", run, new, "--json")
    assert answers(out) == answers(cli("classify", ignored, new, "--json")[1])
    assert cli("test", run)[0] == 0
    assert cli("train", "--resume", "--run", run)[0] == 0


def test_a_run_from_before_of_upright_photos_says_how_it_reads_them(
    place: Path, cli: Cli, tmp_path: Path
) -> None:
    """Its pack turned them, and its recipe could not say so: its figures and bits stay."""
    plain = learn(place, "of-pack-ignore", "photos", "pack-ignore")
    run = as_before(plain, tmp_path / "run")
    before = saved(run)
    before["data"]["path"] = str(place / "pack-apply")  # as if it had been trained on that
    (run / "recipe.json").write_text(json.dumps(before))
    status, _, said = cli("classify", run, place / "new-turned")
    assert status == 0
    assert sum("was trained on photos that" in line for line in said) == 1
    out = tmp_path / "folder"
    assert cli("export", run, "--format", "safetensors", "--out", out)[0] == 0
    assert cli("import", out, "--orient", "apply", "--run", tmp_path / "upright")[0] == 0
    _, out_json, said = cli("classify", tmp_path / "upright", place / "new-turned", "--json")
    assert not any("EXIF" in line or "learnt" in line for line in said)
    expected = cli("classify", run, place / "new-upright", "--json")[1]
    assert answers(out_json) == answers(expected)
    words = ("--steps", 1, "--precision", "fp32", "-j", 0, "--no-doctor")
    status, _, said = cli("train", "--data", place / "turned", "--init", run, "--run",
                          tmp_path / "tuned", *words)  # fmt: skip
    assert status == 0
    assert saved(tmp_path / "tuned")["recipe"]["orient"] == "apply"


@pytest.mark.parametrize(
    ("name", "digest"), [("digits", "7bb29b97395c87a5"), ("paper-2012", "c4e410461fe0af4b")]
)
def test_recipes_that_ignore_it_are_what_they_were(cli: Cli, name: str, digest: str) -> None:
    found = one_object(cli("recipes", name, "--json")[1])
    assert (found["orient"], found["digest"]) == ("ignore", digest)


def test_who_applies_it(cli: Cli) -> None:
    every = one_object(cli("recipes", "--json")[1])["recipes"]
    found = {r["name"]: one_object(cli("recipes", r["name"], "--json")[1])["orient"] for r in every}
    assert [name for name, orient in found.items() if orient == "apply"] == ["photos"]


def test_what_is_chosen_for_a_pack_is_as_it_was_packed(
    place: Path, cli: Cli, tmp_path: Path
) -> None:
    for pack in ("ignore", "apply"):
        run = tmp_path / pack
        status, _, said = cli("train", "--data", place / f"pack-{pack}", "--minutes", 0.01,
                              "--steps", 1, "--run", run)  # fmt: skip
        assert status == 0, said
        assert json.loads((run / "recipe.json").read_text())["recipe"]["orient"] == pack
