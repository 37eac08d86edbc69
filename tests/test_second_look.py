"""Settings that are looked at again: a training that starts again with others is the training that
would have begun with them, to the bit, wherever it is killed."""

import json
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.errors import Interrupted
from alexnet.runs import RunDir
from alexnet.training import threads
from conftest import CLOCK, forkserver, patterns, without_report, write_idx
from given_steps import Changing, Given, alone_at_first, train_and_die, train_choosing
from test_reproduce import commands_of

EPOCH = 6  # steps
OLD: dict[str, Any] = {"precision": "fp32", "channels_last": False}
NEW: dict[str, Any] = {"precision": "fp32", "channels_last": True}


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """To choose from; and no pictures, at which other tests look."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two threads to choose from")
    with pytest.MonkeyPatch.context() as patch, threads(2):
        patch.delenv("OMP_NUM_THREADS", raising=False)
        without_report(patch)
        yield


@pytest.fixture(scope="module")
def fields(tiny: dict[str, Any]) -> dict[str, Any]:
    settled = {"precision": "auto", "doctor": "off", "whiten": True}
    return {**tiny, **settled, "steps": 10, "batch_size": 16, "save_every": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images, 108 of them trained on."""
    folder = tmp_path_factory.mktemp("data") / "idx"
    write_idx(folder, "train", *patterns(120, seed=1))
    write_idx(folder, "t10k", *patterns(20, seed=2))
    return folder


@pytest.fixture(scope="module")
def references(
    data: Path, fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs that began with either settings, given by flags."""
    folder = tmp_path_factory.mktemp("references")
    for name, given, count in (("old", OLD, 1), ("new", NEW, 2)):
        with threads(count):
            alexnet.train("digits", data=data, run=folder / name, **{**fields, **given})
    assert weights(folder / "old") != weights(folder / "new"), "else the tests below say nothing"
    return {name: folder / name for name in ("old", "new")}


def weights(run: Path) -> bytes:
    return (run / "checkpoints/last/model.safetensors").read_bytes()


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


def events(run: Path) -> list[dict[str, Any]]:
    clean = [e for e in RunDir.open(run).events() if e.event != "resume"]
    return [{k: v for k, v in e.items() if k not in CLOCK} for e in clean]


def assert_same_run(run: Path, reference: Path) -> None:
    """Weights, optimiser, state, links, figures and every record but the clock's are the same."""
    for link in ("last", "best"):
        mine, theirs = (os.readlink(r / "checkpoints" / link) for r in (run, reference))
        assert mine == theirs
        for file in ("model.safetensors", "optimizer.safetensors"):
            one, other = (r / "checkpoints" / link / file for r in (run, reference))
            assert one.read_bytes() == other.read_bytes(), f"{link}: {file}"
        ours, theirs = (read(r, f"checkpoints/{link}/state.json") for r in (run, reference))
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert events(run) == events(reference)
    ours, theirs = (read(r, "recipe.json") for r in (run, reference))
    assert ours == theirs
    ours, theirs = (read(r, "environment.json") for r in (run, reference))
    assert ours["settings"]["chosen"] == theirs["settings"]["chosen"]
    assert ours["threads"] == theirs["threads"]
    assert (run / "recipe.toml").read_text() == (reference / "recipe.toml").read_text()
    digests = [(r / "image-digests.safetensors").read_bytes() for r in (run, reference)]
    assert digests[0] == digests[1]
    left = {path.name for path in run.iterdir()} - {path.name for path in reference.iterdir()}
    assert not left
    assert {p.name for p in (run / "checkpoints").iterdir()} == {
        p.name for p in (reference / "checkpoints").iterdir()
    }


def test_it_is_the_training_that_would_have_begun_so(
    data: Path, fields: dict[str, Any], references: dict[str, Path], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    before = [random.getstate()[1], torch.get_rng_state().tolist()]
    train_choosing(alone_at_first(run).choosing(), "digits", data=data, run=run, **fields)
    assert [random.getstate()[1], torch.get_rng_state().tolist()] == before
    assert torch.get_num_threads() == 2
    assert_same_run(run, references["new"])

    said = [line for line in capfd.readouterr().err.splitlines() if "starting again" in line]
    assert len(said) == 1
    assert (
        "settings: fp32, channels last, 2 thread(s) now takes 250 ms where fp32, contiguous, "
        "1 thread(s) takes 1,000: starting again, " in said[0]
    )
    settings = read(run, "environment.json")["settings"]
    assert settings["again"]["step"] == EPOCH
    assert settings["again"]["before"] == {**OLD, "threads": 1, "compile": False}
    assert settings["again"]["lost_s"] > 0
    assert {row["threads"] for row in settings["again"]["measured"]} == {1, 2}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    place = next(i for i, line in enumerate(lines) if line["event"] == "resume")
    assert lines[place] == {"event": "resume", "step": 0, "settings": settings["chosen"]}
    assert max(line["step"] for line in lines[:place]) == EPOCH, "it trained before"
    walls = [line["wall_s"] for line in lines[place:] if line["event"] == "train"]
    assert min(walls) > settings["again"]["lost_s"], "the time that was lost was spent"
    words = commands_of(Path(alexnet.report(run, brief=True).out))[0]
    assert words.startswith("OMP_NUM_THREADS=2 alexnet train digits ")
    assert "--no-channels-last" not in words


def test_what_is_still_the_best_goes_on(
    data: Path, fields: dict[str, Any], references: dict[str, Path], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And says that it was looked at: here after the first step, for no second had to pass."""
    run, first = tmp_path / "run", Given(bf16=9, plain=0.5, threads1=0.5)
    looks = Changing(run, first, later := Given(bf16=9, plain=0.6, threads1=0.95))
    train_choosing(looks.choosing(0), "digits", data=data, run=run, **fields)
    assert len(later.asked) >= 3
    assert_same_run(run, references["old"])
    assert "settings, timed again at step 1: fp32, contiguous, 1 thread(s): 570 ms" in (
        capfd.readouterr().err
    )
    settings = read(run, "environment.json")["settings"]
    assert settings["again"]["step"] == 1
    assert settings["measured"][0]["seconds"] != settings["again"]["measured"][0]["seconds"]


@pytest.mark.parametrize("why", ["precision is given", "short", "resumed"])
def test_it_looks_again_only_where_that_helps(
    why: str, data: Path, fields: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    looks = alone_at_first(run)
    choosing = looks.choosing(0)
    if why == "precision is given":
        fields = {**fields, "precision": "fp32"}
    if why == "short":
        choosing = replace(choosing, long_s=25 * 3600.0)
    if why == "resumed":

        def stop() -> None:
            if len(looks.later.asked) == 1:  # a second one would be obeyed at once
                os.kill(os.getpid(), signal.SIGTERM)

        looks.when_later = stop  # while it looks: it is obeyed, and what was found is forgotten
        with pytest.raises(Interrupted):
            train_choosing(choosing, "digits", data=data, run=run, **fields)
        assert not read(run, "environment.json")["settings"].get("again")
        looks.later.asked.clear()
        train_choosing(choosing, resume=True, run=run)
    else:
        train_choosing(choosing, "digits", data=data, run=run, **fields)
    assert not looks.later.asked
    assert read(run, "recipe.json")["recipe"]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("call", "name", "goes_on"),
    [
        ("look", "", "old"),
        ("replace", "starting-again.json", "old"),
        ("replace", "recipe.json", "new"),
        ("rename", "checkpoints", "new"),
        ("rename", "step-3", "new"),  # as it trains
    ],
)
def test_killed_at_any_moment_it_is_one_of_the_two(
    call: str, name: str, goes_on: str, data: Path, fields: dict[str, Any],
    references: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    """At some of them; those between are below."""
    run = tmp_path / "run"
    process = forkserver().Process(
        target=train_and_die, args=(str(data), str(run), fields, call, name)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()
    alexnet.train(run=run, resume=True, doctor="off")
    assert_same_run(run, references[goes_on])
