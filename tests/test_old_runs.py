"""Runs that 0.1.0 made are tested, classify, are looked into and go on as 0.1.0 had it.

They are in runs-0.1.0/, with the answers of the source that made them (scripts/old_runs.py).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import without_pictures
from old_runs import DATA, PLACE, RUNS, kept, machine, make_data, questions
from shell import Cli, cli, one_object

__all__ = ["cli"]
EXPECTED = json.loads((RUNS / "expected.json").read_text())
NAMES = sorted(DATA)
# Other processors round otherwise: with SSE instructions alone losses were 3e-8 apart, and those of
# the 24 updates that go on 2e-7.
CLOSE = {"test": 1e-4, "val": 1e-4, "classify": 1e-4, "confusion": 1e-4, "resume": 1e-3}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the runs, where they never were."""
    folder = tmp_path_factory.mktemp("moved") / "data"
    make_data(folder)
    shutil.copytree(RUNS / "pack", folder / "pack")
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """copied(name): a run that may be changed."""
    return lambda name: Path(shutil.copytree(RUNS / name, tmp_path / name, symlinks=True))


def close(found: Any, expected: Any, within: float) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value, within)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            close(one, other, within)
    else:
        assert found == (pytest.approx(expected, abs=within) if expected else expected), expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("asked", sorted(CLOSE))
def test_an_old_run_answers_as_it_did(
    name: str, asked: str, place: Path, copied: Callable[[str], Path], cli: Cli
) -> None:
    run = copied(name)
    words = questions(run, place / DATA[name], place / "photos")[asked]
    status, out, err = cli(*words)
    assert status == 0, err
    close(kept(asked, one_object(out)), EXPECTED["answers"][name][asked], CLOSE[asked])


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_to_the_same_end(
    name: str, place: Path, copied: Callable[[str], Path], cli: Cli
) -> None:
    """The same losses all along, and on such a machine as it was made on the same bits."""
    expected = EXPECTED["answers"][name]
    run = copied(name)
    digest = json.loads((run / "recipe.json").read_text())["digest"]
    status, _, err = cli(*questions(run, place / DATA[name], place)["resume"])
    assert status == 0, err
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] in ("train", "val")]
    assert losses == pytest.approx(expected["losses"], abs=CLOSE["resume"])
    assert json.loads((run / "recipe.json").read_text())["digest"] == digest
    manifest = json.loads((run / "checkpoints/last/manifest.json").read_text())
    if machine() == EXPECTED["machine"]:
        assert manifest["files"]["model.safetensors"]["sha256"] == expected["weights"]
        assert losses == expected["losses"]


@pytest.mark.parametrize("name", ["packed", "photos"])
def test_its_certificate_holds(
    name: str, place: Path, copied: Callable[[str], Path], cli: Cli
) -> None:
    status, out, err = cli("test", copied(name), "--certificate", "--data", place / DATA[name])
    assert status == 0, (out, err)


def test_its_data_is_said_where_it_is_not(copied: Callable[[str], Path], cli: Cli) -> None:
    if PLACE.exists():
        pytest.skip(f"{PLACE} is there: scripts/old_runs.py makes the runs in it")
    status, _, err = cli("test", copied("photos"))
    assert (status, len(err)) == (2, 1)
    assert str(PLACE / "photos") in err[0]
