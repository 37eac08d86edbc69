"""Real training that is killed, and what is continued against what was never cut."""

import itertools
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

import alexnet
from alexnet.runs import RunDir
from conftest import patterns, without_report, write_idx
from faults.tally import Tally, in_child
from teams import end, members, torchrun

STEPS, PER_EPOCH, VALIDATE = 16, 7, 4
FIELDS: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 16,
    "eval_every": VALIDATE / PER_EPOCH,
    "log_every": 1,
    "shift": 2,
    "rotate": 10.0,
    "cutout": 6,
    "workers": 1,
    "opt": "adamw",
    "lr": 2e-3,
}
HUNG = 3600  # seconds that no case takes, however busy the machine
CLOCK = {"images_per_s", "eta_s", "wall_s", "data_wait", "time"}


def kills(count: int, seed: int, folder: Path) -> Tally:
    """Training killed at random moments, three times a run, and continued to its end."""
    tally, dice = Tally(), random.Random(seed)
    data = _data(folder)
    fields = {**FIELDS, "precision": "fp32", "save_every": 3}
    began = time.monotonic()
    train(folder / "whole", data, fields)
    whole = time.monotonic() - began
    turn = 0
    while tally.outcomes["killed"] < count:
        run, turn = folder / f"run-{turn}", turn + 1
        for _ in range(min(3, count - tally.outcomes["killed"])):
            if not _killed_after(dice.uniform(0.05, 0.9) * whole, run, data, fields):
                break  # it had ended
            tally.outcomes["killed"] += 1
        train(run, data, fields)
        if different := _differs(run, folder / "whole"):
            tally.losses.append(f"seed {seed}, run {turn}: {different}")
        shutil.rmtree(run)
    return tally


def resume_matrix(count: int, seed: int, folder: Path) -> Tally:
    """Cut at the first, a middle and the last step of an epoch and right after a validation, with
    each number of workers, in either precision, and continued with another number of workers."""
    return _matrix(_cut_one, count, seed, folder)


def resume_matrix_of_two(count: int, seed: int, folder: Path) -> Tally:
    """The same of two processes under torchrun, which starts both anew when the first is killed."""
    return _matrix(_cut_two, count, seed, folder)


def _matrix(cut: Callable[..., str], count: int, seed: int, folder: Path) -> Tally:
    tally, data = Tally(), _data(folder)
    steps = {"first": PER_EPOCH + 1, "middle": PER_EPOCH + 3, "last": PER_EPOCH,
             "after validation": VALIDATE}  # fmt: skip
    cases = list(itertools.product(("fp32", "bf16"), steps.items(), (0, 1, 2)))
    for precision, (name, step), workers in random.Random(seed).sample(cases, min(count, 24)):
        whole, run = folder / precision, folder / f"{precision}-{step}-{workers}"
        fields = {**FIELDS, "precision": precision, "workers": workers, "save_every": 1}
        failed = cut(data, whole, run, step, fields)
        if not failed:
            tally.outcomes[f"cut at the {name} step, {precision}"] += 1
            resumed = [e["step"] for e in _events(run) if e["event"] == "resume"]
            failed = _differs(run, whole) if resumed == [step] else f"resumed at {resumed}"
        if failed:
            tally.losses.append(f"{precision}, {name}, {workers} workers: {failed}")
    return tally


def _cut_one(data: Path, whole: Path, run: Path, step: int, fields: dict[str, Any]) -> str:
    if not whole.exists():
        train(whole, data, fields)

    def cut() -> str:
        kill_after(step)
        train(run, data, fields)
        return "ended"

    status, said = in_child(cut)
    if status != -signal.SIGKILL:
        return said
    train(run, data, {"workers": (fields["workers"] + 1) % 3})
    return ""


def _cut_two(data: Path, whole: Path, run: Path, step: int, fields: dict[str, Any]) -> str:
    log = run.with_suffix(".log")
    given = [data, whole, run, step, json.dumps(fields)]
    process = torchrun(2, given, log, "--max-restarts", "1", module="faults.ranks")
    status: object
    try:
        status = process.wait(HUNG)
        left = members(process)
    except subprocess.TimeoutExpired:
        status, left = f"none after {HUNG} s", members(process)
    finally:
        end(process)
    return f"{len(left)} left, status {status}: {log.read_text()[-2000:]}" if status or left else ""


def kill_after(step: int) -> None:
    """The process dies by SIGKILL once a checkpoint of that step is there."""
    # Deep because a kill in the middle of a training comes from within it.
    from alexnet.training import fitting

    real = fitting.save_checkpoint

    def save(root: Path, at: int, **rest: Any) -> Path:
        made = real(root, at, **rest)
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    # Patched because the kill has to come right after that save.
    fitting.save_checkpoint = save


def _data(folder: Path) -> Path:
    """112 images to train on: seven steps an epoch."""
    data = folder / "data"
    write_idx(data, "train", *patterns(124, seed=1))
    write_idx(data, "t10k", *patterns(20, seed=2))
    return data


def train(run: Path, data: Path, fields: dict[str, Any]) -> None:
    """A run from its beginning, or on from where it is, which only another `workers` may change."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        if (run / "checkpoints/last").is_symlink():
            free = {key: fields[key] for key in ("workers",) if key in fields}
            alexnet.train(resume=True, run=run, **free)
        else:
            alexnet.train("digits", data=data, run=run, doctor="off", **fields)


def _killed_after(delay: float, run: Path, data: Path, fields: dict[str, Any]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
            train(run, data, fields)
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _differs(run: Path, whole: Path) -> str:
    """What is not as in the run that was never cut, or nothing."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, theirs = (r / "checkpoints/last" / name for r in (run, whole))
        if mine.read_bytes() != theirs.read_bytes():
            return f"{name} differs"
    lines = [_lines(r) for r in (run, whole)]
    return "" if lines[0] == lines[1] else "the lines of metrics.jsonl differ"


def _events(run: Path) -> list[dict[str, Any]]:
    return RunDir.open(run).events()


def _lines(run: Path) -> list[str]:
    found = [{k: v for k, v in e.items() if k not in CLOCK} for e in _events(run)]
    return [json.dumps(e) for e in found if e["event"] in ("train", "val")]
