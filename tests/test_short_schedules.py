"""A run too short for its own schedule is refused, or told what of it never comes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from old_runs import RUNS, make_digits, make_photos
from shell import Cli, clean_folder, cli

__all__ = ["clean_folder", "cli"]
pytestmark = pytest.mark.usefixtures("no_page")

# Seven steps an epoch.
TRAIN = ["train", "digits", "--model", "cuda-convnet-18", "--size", "12", "--crop", "12",
         "--batch-size", "16", "--precision", "fp32", "--workers", "0", "--shift", "0",
         "--doctor", "off", "--eval-every", "1", "--run", "run"]  # fmt: skip


STEPS, EPOCHS = ["--steps", "14"], ["--epochs", "2"]  # the same length


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder)
    return folder


def rates(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [event["lr"] for event in lines if event["event"] == "train"]


@pytest.mark.parametrize("schedule", ["cosine", "constant", "onecycle", "poly"])
@pytest.mark.parametrize(
    ("length", "said"),
    [
        (["--steps", "3"], r"is 14 steps .* --steps 3 end within it, at 21.4% of"),
        (["--steps", "14"], r"is 14 steps .* --steps 14 end within it, at 100.0% of"),
    ],
)
def test_a_warm_up_that_never_ends_is_refused(
    schedule: str, length: list[str], said: str, data: Path, cli: Cli
) -> None:
    words = [*TRAIN, "--data", data, "--schedule", schedule, "--warmup-epochs", "2"]
    status, _, err = cli(*words, *length)
    assert (status, len(err)) == (2, 1)
    assert re.search(r"warmup_epochs 2 " + said, err[0]), err
    remedy = re.search(r"use (--warmup-epochs) ([\d.e-]+),", err[0])
    assert remedy is not None
    assert not Path("run").exists()
    status, _, err = cli(*words, *length, *remedy.groups(), "--log-every", "1", "--lr", "0.5")
    assert status == 0, err
    assert max(rates(Path("run"))) == pytest.approx(0.5, rel=0.3)


def test_one_cycle_of_epochs_too(data: Path, cli: Cli) -> None:
    """Its own warm-up is a share of the run; one in epochs has to end like others'."""
    words = [*TRAIN, "--data", data, "--schedule", "onecycle", "--warmup-epochs", "3"]
    status, _, err = cli(*words, "--epochs", "2")
    assert (status, len(err)) == (2, 1)
    assert "warmup_epochs 3 is 21 steps of this data, and 14 steps end within it" in err[0]


@pytest.mark.parametrize(
    ("given", "length", "said"),
    [
        (["--schedule", "steps", "--drops", "1", "4", "7"], STEPS, "the drops at 4, 7"),
        (["--schedule", "steps", "--drops", "1", "4"], EPOCHS, "the drop at 4"),
        (["--part-lr", "fc10=2", "conv1=0.1@4"], STEPS, "conv1=0.1@4 of part_lr"),
        (["--part-lr", "fc10=2", "conv1=0.1@4"], EPOCHS, "conv1=0.1@4 of part_lr"),
        (
            ["--schedule", "plateau"],
            EPOCHS,
            "a lower rate after 3 of 2 validations without improvement",
        ),
        (
            ["--early-stop", "5"],
            STEPS,
            "an early stop after 5 of 2 validations without improvement",
        ),
        (
            ["--schedule", "plateau", "--eval-every", "9"],
            STEPS,
            "a lower rate after 3 of 1 validation without improvement",
        ),
    ],
)
def test_what_never_comes_is_said(
    given: list[str], length: list[str], said: str, data: Path, cli: Cli
) -> None:
    status, _, err = cli(*TRAIN, "--data", data, *given, *length)
    assert status == 0, err
    assert f"a run of 2 epochs does not reach: {said}" in err


def test_the_end_of_colour_noise_too(tmp_path: Path, cli: Cli) -> None:
    make_photos(tmp_path / "photos")
    words = ["train", "photos", *TRAIN[2:], "--data", tmp_path / "photos", "--size", "20"]
    words += ["--batch-size", "8", "--colour", "0.1", "--cutout", "0", "--steps", "3"]
    status, _, err = cli(*words, "--colour-until", "9")
    assert status == 0, err
    assert any(line.endswith("does not reach: the end of colour noise at 9") for line in err)


def test_a_warm_up_of_most_of_a_run_is_said(data: Path, cli: Cli) -> None:
    words = [*TRAIN, "--data", data, "--schedule", "cosine", "--warmup-epochs", "2"]
    status, _, err = cli(*words, "--steps", "15")
    assert status == 0, err
    assert "warm-up takes 93% of this run's 15 steps" in err


def test_nothing_is_said_of_a_schedule_that_fits(data: Path, cli: Cli) -> None:
    given: list[Any] = ["--schedule", "steps", "--drops", "1", "--warmup-epochs", "0.2"]
    given += ["--part-lr", "conv1=0.1@1", "--early-stop", "1", "--epochs", "2"]
    status, _, err = cli(*TRAIN, "--data", data, *given)
    assert status == 0, err
    assert not [line for line in err if "does not reach" in line or "warm-up" in line]


def test_a_run_that_began_so_goes_on(tmp_path: Path, data: Path, cli: Cli) -> None:
    """A run keeps its schedule: 0.1.0 began one with 84 steps and a warm-up of 88."""
    run = Path(shutil.copytree(RUNS / "stopped", tmp_path / "run", symlinks=True))
    status, _, err = cli("train", "--resume", "--run", run, "--data", data)
    assert status == 0, err
    assert rates(run)[-1] == pytest.approx(0.03 * 84 / 88)


def test_a_recipes_own_warm_up_is_shortened_and_said(data: Path, cli: Cli) -> None:
    """`bn --steps 5` has ended within it. No flag of a warm-up was given."""
    words = ["train", "bn", *TRAIN[2:], "--channels", "1", "--data", data, "--log-every", "1"]
    status, _, err = cli(*words, "--steps", "5", "--lr", "0.1")
    assert status == 0, err
    assert any("warm-up" in line and "shortened" in line for line in err)
    assert max(rates(Path("run"))) == pytest.approx(0.1, rel=0.3)
    kept = json.loads(Path("run/recipe.json").read_text())["recipe"]["warmup_epochs"]
    assert 0 < kept * 7 <= 1
    status, _, err = cli("train", "--resume", "--run", "run")
    assert status == 0, err
