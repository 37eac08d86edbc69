"""The real command under torchrun: killed, preempted, restarted, continued, always the same run."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import alexnet
from alexnet.errors import UsageError
from alexnet.runs import RunDir
from conftest import patterns, read_events, without_report, write_idx
from teams import LONG, end, members, run_team, torchrun, workers
from test_parallel import furthest
from test_resume import assert_same_run, at_step, flags, strip, tensors

STEPS = 16  # of 13 an epoch
FIELDS = {
    "steps": STEPS,
    "batch_size": 17,
    "eval_every": 0.4,
    "log_every": 1,
    "save_every": 3,
    "keep": 99,
    "lr": 2e-3,
    "precision": "fp32",
    "workers": 1,
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_idx(folder, "train", *patterns(250, seed=1))
    write_idx(folder, "t10k", *patterns(50, seed=2))
    return folder


def words(data: Path, run: Path) -> list[Any]:
    return ["train", "digits", "--data", data, "--run", run, *flags(FIELDS)]


def wait_for(ready: Callable[[], bool], process: "subprocess.Popen[str]", log: Path) -> None:
    until = time.monotonic() + LONG
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


def train_here(data: str, run: str, more: dict[str, Any]) -> dict[str, Any]:
    """A training of one rank of several."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        if more.get("resume"):
            found = alexnet.train(run=run, **more)
        else:
            found = alexnet.train("digits", data=data, run=run, **FIELDS, **more)
    return {"step": found["step"], "top1": found["top1"]}


def train_and_compile(data: str, run: str) -> dict[str, Any]:
    """The same; and that compiled steps are for one process alone."""
    found = train_here(data, run, {})
    with pytest.raises(UsageError, match="leave compile=True out under torchrun"):
        train_here(data, f"{run}-2", {"compile": True})
    return found


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("reference")
    run_team(folder / "team", 2, train_here, str(data), str(folder / "run"), {})
    return folder / "run"


def kill_one(data: Path, reference: Path, folder: Path, rank: int, step: int) -> None:
    """SIGKILL to a rank at a step; torchrun starts both anew, and they end as if never cut."""
    run, log = folder / "run", folder / "log"
    process = torchrun(2, words(data, run), log, "--max-restarts", "3")
    try:
        wait_for(lambda: at_step(run) >= step, process, log)
        os.kill(workers(process)[rank], signal.SIGKILL)
        assert process.wait(LONG) == 0, log.read_text()
        assert not members(process)
    finally:
        end(process)
    assert [e for e in read_events(run) if e["event"] == "resume"], "it was to be started anew"
    assert_same_run(run, reference)


def test_a_killed_rank_is_started_anew(data: Path, reference: Path, tmp_path: Path) -> None:
    kill_one(data, reference, tmp_path, random.randrange(2), random.randrange(1, STEPS - 4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_killed_ranks(data: Path, reference: Path, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    for turn in range(20):
        rank, step = dice.randrange(2), dice.randrange(1, STEPS - 4)
        print(f"seed {seed}, turn {turn}: rank {rank} killed at step {step}")
        folder = tmp_path / str(turn)
        folder.mkdir()
        kill_one(data, reference, folder, rank, step)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("number", "status", "to"),
    [
        (signal.SIGTERM, 143, {"torchrun"}),
        (signal.SIGUSR2, 140, {1}),  # to one alone: --stop-signal
        pytest.param(signal.SIGINT, 130, {"torchrun"}, marks=pytest.mark.slow),
        # As a cluster does, to every process.
        pytest.param(signal.SIGUSR1, 138, {1, "torchrun"}, marks=pytest.mark.slow),
    ],
)
def test_preempted_it_saves_and_goes_on(
    number: int,
    status: int,
    to: set[Any],
    data: Path,
    reference: Path,
    tmp_path: Path,
) -> None:
    """Both ranks save at one step and end with the signal's code; nobody stays behind."""
    run, log, exits = tmp_path / "run", tmp_path / "log", tmp_path / "exits"
    exits.mkdir()
    given = words(data, run)
    # Without save_every a checkpoint at this step can only come from the signal.
    given[given.index("--save-every") + 1] = "0"
    if number == signal.SIGUSR2:
        given += ["--stop-signal", "USR2"]
    process = torchrun(2, given, log, module="exits", EXITS=str(exits))
    try:
        wait_for(lambda: at_step(run) >= 4, process, log)
        for one in sorted(to, key=str):
            os.kill(process.pid if one == "torchrun" else workers(process)[one], number)
        assert process.wait(LONG) == 1, "torchrun's own"
        assert not members(process), "orphans"
    finally:
        end(process)
    said = log.read_text()
    assert said.count("2 processes: up to 9 of a batch's 17 images") == 1
    assert {path.name: path.read_text() for path in exits.iterdir()} == {
        "0": str(status),
        "1": str(status),
    }, said
    saved = int(os.readlink(run / "checkpoints/last").removeprefix("step-"))
    assert saved < STEPS
    assert said.count(f"saved at step {saved} of {STEPS}") == 1
    assert said.count(f"alexnet train --resume --run {run}") == 1
    assert read_events(run)[-1]["step"] == saved
    if number != signal.SIGUSR2:
        goes_on(run, reference, tmp_path)


def goes_on(run: Path, reference: Path, folder: Path) -> None:
    # With another number of processes: the same up to the order of sums.
    other = Path(shutil.copytree(run, folder / "other", symlinks=True))
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train(resume=True, run=other)
    assert far_apart(other, reference) < 0.02
    run_team(folder / "again", 2, train_here, "", str(run), {"resume": True})
    assert tensors(run)["model.safetensors"] == tensors(reference)["model.safetensors"]
    clean = [strip(e) for e in RunDir.open(run).events() if e.event != "resume"]
    assert clean == read_events(reference)


def far_apart(run: Path, other: Path) -> float:
    mine, theirs = (load_file(r / "checkpoints/last/model.safetensors") for r in (run, other))
    kept = [name for name, value in mine.items() if value.dim() > 1]
    far = furthest({n: mine[n] for n in kept}, {n: theirs[n] for n in kept})
    print(f"weights of two numbers of processes: {far:.1e} apart")
    return far


def test_three_ranks_go_on_to_the_bit(data: Path, tmp_path: Path) -> None:
    """DDP puts gradients into other buckets after its first step, and three sum differently."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    results = run_team(tmp_path / "a", 3, train_and_compile, str(data), str(whole))
    assert results[0] == results[1] == results[2]
    assert not Path(f"{whole}-2").exists()
    shutil.copytree(whole, cut, symlinks=True)
    for folder in (cut / "checkpoints").glob("step-*"):
        if int(folder.name[5:]) > 6:
            shutil.rmtree(folder)
    for name, target in (("last", "step-6"), ("best", "step-5")):
        (cut / "checkpoints" / name).unlink()
        (cut / "checkpoints" / name).symlink_to(target)
    state = json.loads((cut / "checkpoints/step-6/state.json").read_text())
    assert torch.tensor(state["sums"]).shape == (3, 4)
    run_team(tmp_path / "b", 3, train_here, str(data), str(cut), {"resume": True})
    assert tensors(cut)["model.safetensors"] == tensors(whole)["model.safetensors"]
    clean = [strip(e) for e in RunDir.open(cut).events() if e.event != "resume"]
    assert clean == read_events(whole)
