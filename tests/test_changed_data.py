"""A folder that changed since a run began is not cut anew into images that were trained on."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet.errors import DataError
from conftest import without_pictures, without_report, write_tree
from shell import copy_place

CHANGED = r"changed since the run began, and (train|val|test) is cut out of it: .*(--data|data=)"


def trained_on(data: Path, tiny: dict[str, Any]) -> Path:
    fields = {**tiny, "steps": 2, "batch_size": 8, "channels": 3, "doctor": "off"}
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train("digits", data=data, run=data.parent / "run", **fields)
    return data.parent / "run"


@pytest.fixture(scope="module")
def place(tree: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ and run/. Read only."""
    place = tmp_path_factory.mktemp("place")
    trained_on(shutil.copytree(tree, place / "data"), tiny)
    return place


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A run on a folder of its own, in data/."""
    return copy_place(place, tmp_path) / "run"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def first_in(folder: Path) -> Path:
    return min(folder.iterdir())


@pytest.mark.usefixtures("no_pictures")
def test_as_it_was_it_is_tested(run: Path) -> None:
    before = alexnet.test(run)
    moved = run.parent / "data"
    moved.rename(run.parent / "elsewhere")
    after = alexnet.test(run, data=run.parent / "elsewhere")
    assert (before.n, before.loss) == (after.n, after.loss)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("change", ["added", "taken", "renamed"])
@pytest.mark.parametrize("older", [False, True])
def test_a_changed_folder_is_refused(run: Path, change: str, older: bool) -> None:
    alexnet.test(run)
    certificate = (run / "certificate.json").read_bytes()
    file = first_in(run.parent / "data" / "class-1")
    saved = json.loads((run / "recipe.json").read_text())
    if older:  # a run from before the listing was kept has counts alone
        del saved["data"]["listing"]
        (run / "recipe.json").write_text(json.dumps(saved))
        (run / "image-digests.safetensors").unlink()
    if change == "added":
        for i in range(9):
            shutil.copy(file, file.with_stem(f"{file.stem}-{i}"))
    elif change == "taken":
        for other in sorted(file.parent.iterdir())[:9]:
            other.unlink()
    else:
        file.rename(file.with_stem("zzz"))
    if older and change == "renamed":
        alexnet.test(run)
        return
    for asked in ({}, {"data": run.parent / "data"}, {"split": "train"}, {"split": "val"}):
        with pytest.raises(DataError, match=CHANGED):
            alexnet.test(run, **asked)
    assert (run / "certificate.json").read_bytes() == certificate


@pytest.mark.usefixtures("no_pictures")
def test_a_test_part_of_its_own_is_tested_whatever_else_changed(
    tree: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tree, data / "train")
    write_tree(data / "test", seed=1)
    run = trained_on(data, tiny)
    first_in(data / "train" / "class-1").unlink()
    assert alexnet.test(run).n > 0
    with pytest.raises(DataError, match="val is cut out of it"):
        alexnet.test(run, split="val")


def test_figures_of_other_weights_and_images_lie_beside_the_runs_own(run: Path) -> None:
    own = {Path(name).name for name in alexnet.test(run).figures}
    other = shutil.copytree(run.parent / "data", run.parent / "other")
    last = alexnet.test(run, checkpoint="last", data=other)
    drawn = {Path(name).name for name in last.figures}
    step = Path(last.checkpoint).name
    assert own == {"confusion-test.png", "mistakes-test.png"}
    assert drawn == {f"{kind}-test-{step}-other-data.png" for kind in ("confusion", "mistakes")}
    page = Path(alexnet.report(run, brief=True).out).read_text()
    for of in ("its.own", "other"):
        cells = (f"<td[^>]*>{cell}</td>" for cell in (of, "test", "1", "torch"))
        assert re.search("".join(cells), page)
