"""A run that is cut and continued is the run that was never cut, to the bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.cli import main
from alexnet.errors import CheckpointError, DataError, Interrupted, UsageError
from alexnet.runs import RunDir
from conftest import CLOCK, Launch, forkserver, patterns, read_events, write_idx
from short_runs import at_each_step, cut_at
from short_runs import no_pictures as no_pictures  # around every test here

STEPS = 20  # of 9 an epoch
COMMON = {
    "steps": STEPS,
    "batch_size": 16,
    "eval_every": 0.3,
    "log_every": 1,
    "save_every": 2,
    "shift": 2,
    "rotate": 10.0,
    "scale": 0.1,
    "flip": True,
    "cutout": 6,
    "precision": "fp32",
    "workers": 1,
}
RECIPES: dict[str, dict[str, Any]] = {
    "plateau-sgd": {
        **COMMON,
        "opt": "sgd",
        "lr": 0.02,
        "schedule": "plateau",
        "plateau_patience": 1,
        "plateau_drops": 20,
    },
    "onecycle-adamw": {**COMMON, "opt": "adamw", "lr": 2e-3, "schedule": "onecycle"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """170 training images, 150 of them trained on: 9 steps an epoch, a validation every 3."""
    folder = tmp_path_factory.mktemp("data")
    write_idx(folder, "train", *patterns(170, seed=1))
    write_idx(folder, "t10k", *patterns(50, seed=2))
    return folder


def flags(fields: dict[str, Any]) -> list[str]:
    words = []
    for name, value in fields.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


def tensors(run: Path, checkpoint: str = "last") -> dict[str, bytes]:
    """The bytes of weights and optimiser, and the state without the clock."""
    folder = run / "checkpoints" / checkpoint
    files = ("model.safetensors", "optimizer.safetensors")
    contents = {name: (folder / name).read_bytes() for name in files}
    state = json.loads((folder / "state.json").read_text())
    del state["seconds"]
    contents["state"] = json.dumps(state, sort_keys=True).encode()
    return contents


def assert_same_run(run: Path, reference: Path) -> None:
    """Same weights, optimiser and state, last and best; same metrics after every resume."""
    for checkpoint in ("last", "best"):
        mine, theirs = (os.readlink(r / "checkpoints" / checkpoint) for r in (run, reference))
        assert mine == theirs
        for name, content in tensors(run, checkpoint).items():
            assert content == tensors(reference, checkpoint)[name], f"{checkpoint}: {name} differs"
    expected = read_events(reference)
    assert not [e for e in expected if e["event"] == "resume"]
    lines = read_events(run)
    resumes = [i for i, event in enumerate(lines) if event["event"] == "resume"]
    for i, place in enumerate(resumes):
        later = lines[place + 1 : resumes[i + 1] if i + 1 < len(resumes) else None]
        after = [event for event in expected if event["step"] > lines[place]["step"]]
        assert later == after[: len(later)]
    if resumes:
        assert later == after, "the last part does not reach the end"
    clean = [e for e in RunDir.open(run).events() if e.event != "resume"]
    assert [strip(e) for e in clean] == expected


def strip(event: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in CLOCK}


def wait_for(ready: Callable[[], bool], process: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.is_alive(), f"the run ended (status {process.exitcode}) before its step"
        assert time.monotonic() < end, "the run did not reach its step in time"
        time.sleep(0.01)


def at_step(run: Path) -> int:
    """The step of the last whole line of metrics.jsonl; -1 before there is a checkpoint."""
    if not (run / "checkpoints/last").is_symlink() or not (run / "metrics.jsonl").exists():
        return -1
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else 0


@pytest.fixture(scope="module")
def references(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The uninterrupted run of each recipe, made in this process when first asked for."""
    made: dict[str, Path] = {}

    def reference(name: str) -> Path:
        if name not in made:
            run = tmp_path_factory.mktemp("reference") / name
            alexnet.train("digits", data=data, run=run, **RECIPES[name])
            made[name] = run
        return made[name]

    return reference


def kill_at(
    launch: Launch, argv: list[Any], run: Path, step: int, number: int, log: Path, threads: int = 1
) -> int:
    """Starts a run and sends it a signal at `step`; returns its exit status."""
    process = launch(argv, log, threads)
    wait_for(lambda: at_step(run) >= step, process)
    os.kill(process.pid, number)  # type: ignore[arg-type]
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_resumed_uses_everything_it_should(
    name: str, references: Callable[[str], Path]
) -> None:
    """The proof below is worth nothing if the run has no order, momentum, drops or best in it."""
    run = references(name)
    events = read_events(run)
    assert [e["step"] for e in events if e["event"] == "train"] == list(range(1, STEPS + 1))
    assert [e["step"] for e in events if e["event"] == "val"] == [3, 6, 9, 12, 15, 18, 20]
    assert next(e for e in events if e["step"] == 9)["epoch"] == 1
    state = json.loads((run / "checkpoints/last/state.json").read_text())
    assert state["watch"]["best_step"] > 0
    if name == "plateau-sgd":
        assert 0 < state["watch"]["drops"] < 20
    assert (run / "checkpoints/last/optimizer.safetensors").stat().st_size > 1e6


def test_three_kills(
    data: Path, references: Callable[[str], Path], launch: Launch, tmp_path: Path
) -> None:
    """SIGKILL three times in one run, at random steps; each time it goes on where it was saved."""
    seed = random.randrange(10**6)
    steps = sorted(random.Random(seed).sample(range(1, STEPS - 4), 3))
    print(f"seed {seed}: killed at {steps}")
    run = tmp_path / "run"
    argv = ["train", "digits", "--data", data, "--run", run]
    argv += flags(RECIPES["onecycle-adamw"])
    for i, step in enumerate(steps):
        log = tmp_path / f"{i}.log"
        assert kill_at(launch, argv, run, step, signal.SIGKILL, log) == -signal.SIGKILL
        assert int(os.readlink(run / "checkpoints/last").removeprefix("step-")) < STEPS
        argv = ["train", "--resume", "--run", run]
    alexnet.train(resume=True, run=run)
    resumes = [e["step"] for e in read_events(run) if e["event"] == "resume"]
    assert len(resumes) == 3
    assert_same_run(run, references("onecycle-adamw"))


def test_kill_of_the_real_command(
    data: Path, references: Callable[[str], Path], tmp_path: Path
) -> None:
    """The same through `python -m alexnet`, with the plateau policy's memory and paper SGD."""
    run, step = tmp_path / "run", random.randrange(3, STEPS - 5)
    print(f"killed at {step}")
    argv = ["train", "digits", "--data", str(data), "--run", str(run)]
    argv += flags(RECIPES["plateau-sgd"])
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet", *argv], stderr=subprocess.PIPE, text=True
    )
    try:
        while at_step(run) < step:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    alexnet.train(resume=True, run=run)
    assert_same_run(run, references("plateau-sgd"))
    advice = {e["name"]: e["advice"] for e in read_events(run) if e["event"] == "doctor"}
    assert "--early-stop" in advice["overfitting"]  # the log's words, whoever trains


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_twenty_kills(name: str, threads: int, data: Path, launch: Launch, tmp_path: Path) -> None:
    """20 runs, each killed once at a random step and resumed, on the thread count given."""
    start = ["train", "digits", "--data", data, *flags(RECIPES[name])]
    reference = tmp_path / "reference"
    process = launch([*start, "--run", reference], tmp_path / "reference.log", threads)
    process.join(120)
    assert process.exitcode == 0
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    for turn in range(20):
        run, step = tmp_path / f"run-{turn}", dice.randrange(0, STEPS - 4)
        print(f"seed {seed}, turn {turn}: killed at step {step}")
        log = tmp_path / f"{turn}.log"
        kill_at(launch, [*start, "--run", run], run, step, signal.SIGKILL, log, threads)
        process = launch(["train", "--resume", "--run", run], log, threads)
        process.join(120)
        assert process.exitcode == 0, log.read_text()
        assert_same_run(run, reference)
        shutil.rmtree(run)


def end_command(argv: list[Any], run: Path, step: int, number: int, log: Path) -> int:
    """The same of the real command, which leaves no process behind."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "alexnet", *map(str, argv)], stderr=file, start_new_session=True
        )
    try:
        while at_step(run) < step:
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(number)
        process.wait()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        process.kill()
        process.wait()
    return process.returncode


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [
        (signal.SIGINT, 130, "plateau-sgd"),
        (signal.SIGTERM, 143, "onecycle-adamw"),
        (signal.SIGUSR1, 138, "plateau-sgd"),
        (signal.SIGUSR2, 140, "onecycle-adamw"),
    ],
)
def test_signal_saves_and_says_how_to_go_on(
    number: int,
    status: int,
    name: str,
    data: Path,
    references: Callable[[str], Path],
    launch: Launch,
    tmp_path: Path,
) -> None:
    run, log = tmp_path / "a run", tmp_path / "log"
    argv = ["train", "digits", "--data", data, "--run", run, *flags(RECIPES[name])]
    # Without save_every a checkpoint at this step can only come from the signal.
    argv[argv.index("--save-every") + 1] = "0"
    if number == signal.SIGUSR2:
        argv += ["--stop-signal", "12"]
        assert end_command(argv, run, 5, number, log) == status
    else:
        assert kill_at(launch, argv, run, 5, number, log) == status
    saved = int(os.readlink(run / "checkpoints/last").removeprefix("step-"))
    assert saved >= 5
    assert read_events(run)[-1]["step"] == saved, "work after the checkpoint was thrown away"
    said = log.read_text()
    assert "Traceback" not in said
    assert f"alexnet train --resume --run '{run}'" in said
    assert f"saved at step {saved} of {STEPS}" in said
    alexnet.train(resume=True, run=run)
    reference = references(name)
    assert tensors(run)["model.safetensors"] == tensors(reference)["model.safetensors"]
    assert tensors(run)["optimizer.safetensors"] == tensors(reference)["optimizer.safetensors"]
    clean = [strip(e) for e in RunDir.open(run).events() if e.event != "resume"]
    assert clean == read_events(reference)


def told_to_end(data: Path, run: Path, words: dict[str, str]) -> None:
    """Trains until SIGUSR2 stops it, and gets SIGTERM after that."""
    os.environ |= words

    def tell(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGUSR2)

    fields = RECIPES["onecycle-adamw"]
    with at_each_step(tell), pytest.raises(Interrupted) as stopped:
        alexnet.train("digits", data=data, run=run, stop_signal="USR2", **fields)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(128 + stopped.value.signum)


OF_TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": "29511"}  # fmt: skip


@pytest.mark.parametrize(("words", "status"), [(OF_TORCHRUN, 140), ({}, -signal.SIGTERM)])
def test_a_process_that_was_told_to_end_keeps_its_code(
    words: dict[str, str], status: int, data: Path, tmp_path: Path
) -> None:
    """torchrun sends SIGTERM to the others when one has ended, and that may come late."""
    process = forkserver().Process(target=told_to_end, args=(data, tmp_path / "run", words))
    process.start()
    process.join()
    assert process.exitcode == status


@pytest.mark.parametrize("name", ["KILL", "SIGSTOP", "SIGNONE", "9", "0", "99", ""])
def test_stop_signals_that_are_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", "--run", str(tmp_path / "run"), "--stop-signal", name]) == 2
    said = capsys.readouterr().err
    assert f"stop_signal {name!r}: name a signal that can be caught" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workers_change_nothing(
    data: Path, references: Callable[[str], Path], tmp_path: Path
) -> None:
    """Four here and one there; none are asked for below."""
    fields = RECIPES["onecycle-adamw"] | {"workers": 4}
    alexnet.train("digits", data=data, run=tmp_path / "run", **fields)
    reference = references("onecycle-adamw")
    mine, theirs = tensors(tmp_path / "run"), tensors(reference)
    assert mine["model.safetensors"] == theirs["model.safetensors"]
    assert mine["optimizer.safetensors"] == theirs["optimizer.safetensors"]
    assert read_events(tmp_path / "run") == read_events(reference)


def test_another_seed_changes_something(
    data: Path, references: Callable[[str], Path], tmp_path: Path
) -> None:
    """Otherwise the equalities above would hold for a constant."""
    fields = RECIPES["onecycle-adamw"] | {"seed": 1, "steps": 4}
    alexnet.train("digits", data=data, run=tmp_path / "run", **fields)
    first = [
        next(e["loss"] for e in read_events(run) if e["event"] == "train")
        for run in (tmp_path / "run", references("onecycle-adamw"))
    ]
    assert first[0] != first[1]


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of onecycle-adamw as a kill after step 11 leaves it. Read only: see `stopped`."""
    run = tmp_path_factory.mktemp("half") / "run"
    cut_at(11, "digits", data=data, run=run, **RECIPES["onecycle-adamw"])
    assert os.readlink(run / "checkpoints/last") == "step-10"
    return run


@pytest.fixture
def stopped(half: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(half, tmp_path / "stopped", symlinks=True))


def test_damaged_newest_checkpoint_falls_back(
    stopped: Path, references: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = stopped / "checkpoints/step-10/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    alexnet.train(resume=True, run=stopped)
    said = capsys.readouterr().err
    assert "step-10" in said
    assert "damaged" in said
    assert "trying the checkpoint before it" in said
    assert "from step 9" in said
    assert_same_run(stopped, references("onecycle-adamw"))


LATER = ("usable_cpus", "usable_because", "threads_given", "waiting")  # in environment.json


def test_cut_line_in_the_log_is_passed_over(
    stopped: Path, references: Callable[[str], Path]
) -> None:
    """And what an older version did not write of its environment is no change of it."""
    place = stopped / "environment.json"
    known = json.loads(place.read_text())
    place.write_text(json.dumps({k: v for k, v in known.items() if k not in LATER}))
    with (stopped / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event":"train","st')
    alexnet.train(resume=True, run=stopped)
    events = RunDir.open(stopped).events()
    clean = [strip(e) for e in events if e.event != "resume"]
    assert clean == read_events(references("onecycle-adamw"))
    assert [e for e in events if "changed" in e] == []


def test_free_fields_may_change(stopped: Path, references: Callable[[str], Path]) -> None:
    """And a change of the machine is noted."""
    place = stopped / "environment.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "threads": 99}))
    alexnet.train(resume=True, run=stopped, workers=0, keep=5)
    assert_same_run(stopped, references("onecycle-adamw"))
    (resumed,) = [e for e in read_events(stopped) if e["event"] == "resume"]
    assert resumed["changed"].startswith("threads was 99, is ")


def test_threads_of_a_run_are_believed_as_far_as_they_can_be(
    references: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it goes on with those that this process has."""
    run = tmp_path / "run"
    shutil.copytree(references("onecycle-adamw"), run, symlinks=True)
    place = run / "environment.json"
    known = json.loads(place.read_text())
    own = {"chosen": {"threads": os.cpu_count()}}
    odd = ({"chosen": {"threads": 10**9}}, {"chosen": {"threads": "2"}}, {"chosen": 3}, None)
    for settings in (own, *odd):
        place.write_text(json.dumps({**known, "settings": settings}))
        assert alexnet.train(resume=True, run=run).step == STEPS
        kept = f"{os.cpu_count()} threads, as this run began" in capsys.readouterr().err
        assert kept is (settings is own and os.cpu_count() != torch.get_num_threads())


def test_finished_run_resumes_to_itself(
    references: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = references("onecycle-adamw")
    run = tmp_path / "run"
    shutil.copytree(reference, run, symlinks=True)
    result = alexnet.train(resume=True, run=run)
    assert result.finished == "all steps are done"
    assert result.step == STEPS
    assert tensors(run) == tensors(reference)


def test_resume_is_refused_with_another_recipe(stopped: Path) -> None:
    before = read_events(stopped)
    with pytest.raises(UsageError, match=r"lr is 0\.002 .* 0\.5 was asked for"):
        alexnet.train(resume=True, run=stopped, lr=0.5)
    with pytest.raises(UsageError, match="is a run of 'digits', not of 'mnist'"):
        alexnet.train("mnist", resume=True, run=stopped)
    assert read_events(stopped) == before


def test_resume_is_refused_with_other_data(stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_idx(other, "train", *patterns(170, seed=9))
    write_idx(other, "t10k", *patterns(50, seed=2))
    with pytest.raises(DataError, match="changed since"):
        alexnet.train(resume=True, run=stopped, data=other)


def test_resume_takes_moved_data(
    stopped: Path, data: Path, references: Callable[[str], Path], tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    alexnet.train(resume=True, run=stopped, data=moved)
    assert_same_run(stopped, references("onecycle-adamw"))


@pytest.mark.parametrize("where", ["missing", "empty", "default"])
def test_resume_on_nothing(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    argv = ["train", "--resume"] + ([] if where == "default" else ["--run", where])
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "alexnet train" in said.err or "--run DIR" in said.err
    assert [p.name for p in tmp_path.rglob("*")] == ["empty"]


def test_resume_without_a_name_takes_the_latest(
    stopped: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of those that are runs; and a new one gets a number above all there are."""
    runs = tmp_path / "cwd/runs"
    runs.mkdir(parents=True)
    shutil.copytree(stopped, runs / "digits-1", symlinks=True)
    stopped.rename(runs / "digits-2")
    (runs / "digits-10").mkdir()
    (runs / "digits-x").touch()
    monkeypatch.chdir(tmp_path / "cwd")
    result = alexnet.train(resume=True)
    assert Path(result.run).name == "digits-2"
    result = alexnet.train("digits", data=data, **RECIPES["plateau-sgd"] | {"steps": 1})
    assert Path(result.run).name == "digits-11"


def test_two_runs_on_one_folder(
    data: Path, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fields = RECIPES["plateau-sgd"] | {"steps": 100_000, "save_every": 0, "eval_every": 100}
    argv = ["train", "digits", "--data", data, "--run", run, *flags(fields)]
    process = launch(argv, tmp_path / "log")
    try:
        wait_for(lambda: at_step(run) >= 1, process)
        for more in (["digits", "--data", str(data)], ["--resume"]):
            assert main(["train", *more, "--run", str(run)]) == 2
            said = capsys.readouterr().err.splitlines()
            assert len(said) == 1
            assert str(run) in said[0]
            if more == ["--resume"]:
                assert f"pid {process.pid}" in said[0]
        assert process.is_alive()
        assert not [e for e in read_events(run) if e["event"] == "resume"]
    finally:
        process.kill()
        process.join()


def test_foreign_checkpoint_is_refused(stopped: Path, trained: Path) -> None:
    step = os.readlink(trained / "checkpoints/last")
    shutil.rmtree(stopped / "checkpoints")
    shutil.copytree(trained / "checkpoints" / step, stopped / "checkpoints" / step)
    with pytest.raises(CheckpointError, match="another recipe"):
        alexnet.train(resume=True, run=stopped)


def test_random_state_is_not_in_the_process(
    stopped: Path, references: Callable[[str], Path]
) -> None:
    """Nothing is taken from torch's generator as it stands: the dropout masks are the step's."""
    torch.manual_seed(12345)
    torch.rand(77)
    alexnet.train(resume=True, run=stopped)
    assert tensors(stopped) == tensors(references("onecycle-adamw"))
