"""Storage: what is committed survives kills, full disks, bit flips and second writers."""

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import files
from alexnet.errors import AlexNetError, CheckpointError, UsageError
from alexnet.files import DirLock, read_json, sha256_of, write_atomic, write_json
from alexnet.runs import checkpoint
from alexnet.runs.board import Board
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint, load_latest
from alexnet.runs.rundir import RunDir, fresh_run_path, latest_run

ENV = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}


def save(root: Path, step: int, *, value: float = 0, best: bool = False, **more: Any) -> Path:
    model = {"weight": torch.full((2, 3), float(step)), "bias": torch.tensor(value)}
    momentum = {"momentum": torch.full((2, 3), float(step))}
    return checkpoint.save_checkpoint(
        root, step, model=model, optimizer=momentum, state={"step": step}, best=best, **more
    )


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def fail(message: str) -> None:
    raise AssertionError(message)


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Round trips


def test_tensors_and_numbers_come_back_exactly(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    model = {
        "bf16": torch.randn(3, 2).bfloat16(),
        "int64": torch.tensor([2**62, -1]),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "view": torch.arange(12.0).reshape(3, 4).T[::2],
        "one": shared,
        "two": shared,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    numbers = [0.1, 1e-320, -0.0, math.pi, math.inf, -math.inf, 2**70]
    state = {"numbers": numbers, "text": "naïve \ud800\n", "nested": {"none": None, "yes": True}}
    path = checkpoint.save_checkpoint(
        tmp_path / "c", 7, model=model, optimizer={}, state=state | {"nan": math.nan}, best=True
    )
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.path, loaded.optimizer) == (7, path, {})
    assert loaded.model.keys() == model.keys()
    for name, tensor in model.items():
        assert loaded.model[name].dtype == tensor.dtype
        assert torch.equal(loaded.model[name], tensor)
        assert loaded.model[name].is_contiguous()
    assert math.isnan(loaded.state.pop("nan"))
    assert loaded.state == state
    assert math.copysign(1, loaded.state["numbers"][2]) == -1
    loaded.model["one"].add_(1)
    assert torch.equal(loaded.model["two"], shared)


def test_an_answer_needs_no_optimizer(tmp_path: Path) -> None:
    """Its file is not read then, so that damage to it does no harm; the weights are verified."""
    path = save(tmp_path, 1)
    whole = load_checkpoint(path)
    assert whole.optimizer
    for damage in (lambda f: f.write_bytes(b"x"), Path.unlink):
        damage(path / "optimizer.safetensors")
        with pytest.raises(CheckpointError, match="optimizer"):
            load_checkpoint(path)
        read = load_checkpoint(path, optimizer=False)
        assert (read.step, read.state, read.optimizer) == (1, whole.state, {})
        assert all(torch.equal(read.model[name], w) for name, w in whole.model.items())
    (path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_checkpoint(path, optimizer=False)


def test_names_lead_to_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    assert find_checkpoint(tmp_path).name == find_checkpoint(tmp_path, "step-1").name == "step-1"
    assert find_checkpoint(tmp_path, "last").name == "step-2"
    assert os.readlink(tmp_path / "best") == "step-1"
    assert load_checkpoint(tmp_path / "last").step == 2
    for wrong in ("step-3", "../step-1", "step-1/..", "", "step-1.5"):
        with pytest.raises(CheckpointError, match="step-2, step-1") as error:
            find_checkpoint(tmp_path, wrong)
        assert repr(wrong) in one_line(error)
    with pytest.raises(CheckpointError, match="none"):
        find_checkpoint(tmp_path / "nowhere")


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10):
        save(tmp_path, step, best=step == 2)
    assert names(tmp_path) == {"step-2", "step-4", "step-10", "best", "last"}
    save(tmp_path, 11, best=True, keep=1)
    assert names(tmp_path) == {"step-11", "best", "last"}
    with pytest.raises(UsageError, match="keep 0"):
        save(tmp_path, 12, keep=0)


def test_a_run_that_went_back_continues_from_there(tmp_path: Path) -> None:
    save(tmp_path, 100)
    save(tmp_path, 120)
    save(tmp_path, 70)
    assert load_latest(tmp_path, fail).step == 70
    save(tmp_path, 80)
    assert names(tmp_path) == {"step-70", "step-80", "last"}


# Kills and refusals


class Killed(BaseException):
    """What a killed process does next: nothing, clean-up included."""


CALLS = ("open", "mkdir", "rename", "replace", "symlink", "fsync", "unlink", "rmdir")


@contextlib.contextmanager
def failing(nth: int, *, killed: bool) -> Iterator[list[str]]:
    """Fail the `nth` call that changes the disk; killed, everything after it as well."""
    made: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if killed and len(made) >= nth:
                raise Killed
            if len(made) == nth:
                raise OSError(28, "No space left on device")
            return None if name == "fsync" else real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        patch.setattr("builtins.open", wrap("write", open))
        yield made


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("step", [2, 3])
def test_no_failing_call_loses_a_checkpoint(tmp_path: Path, killed: bool, step: int) -> None:
    origin = tmp_path / "origin"
    save(origin, 1, best=True)
    save(origin, 2)
    nth, more = 0, True
    while more:
        nth += 1
        root = tmp_path / str(nth)
        shutil.copytree(origin, root, symlinks=True)
        returned = False
        with failing(nth, killed=killed) as made:
            try:
                save(root, step, value=1, best=True)
                returned = True
            except (CheckpointError, Killed):
                pass
        more = len(made) >= nth
        latest = load_latest(root, fail)
        assert latest.step in {2, step}
        assert not returned or (latest.step, latest.model["bias"].item()) == (step, 1)
        assert load_checkpoint(find_checkpoint(root, "last")).step == latest.step
        assert load_checkpoint(find_checkpoint(root, "best")).step in {1, step}
        if not killed and not returned:
            assert not {name for name in names(root) if name.startswith(".")}
        save(root, 4, best=True)
        save(root, 5)
        assert names(root) == {"step-4", "step-5", "best", "last"}
    assert nth > 15


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from alexnet.runs.checkpoint import load_latest, save_checkpoint
torch.set_num_threads(1)
root, step = Path(sys.argv[1]), 0
def save(step):
    tensors = {"weight": torch.full((300_000,), float(step))}
    save_checkpoint(root, step, model=tensors, optimizer=tensors, state={"step": step},
                    best=step % 3 == 0)
def fail(message):
    raise AssertionError(message)
began = time.monotonic()
save(0)
took = time.monotonic() - began
for _ in range(12):
    child = os.fork()
    if child == 0:
        while True:
            step += 1
            save(step)
            save(step)
    time.sleep(random.uniform(0.5, 8) * took)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    latest = load_latest(root, fail)
    assert latest.step >= step, (latest.step, step)
    assert all((t == latest.step).all() for t in (latest.model | latest.optimizer).values())
    step = latest.step
save(step + 1)
print(step, sorted(p.name for p in root.glob(".tmp*")))
"""


def test_sigkill_while_saving(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path)]
    ran = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    steps, leftovers = ran.stdout.split(maxsplit=1)
    assert int(steps) > 0
    assert leftovers.strip() == "[]"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder that refuses to take a megabyte: a full tmpfs, else a file size limit."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield tmp_path
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limits[1]))
    try:
        yield tmp_path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk(small: Path) -> None:
    root = small / "checkpoints"
    save(root, 1, best=True)
    before = names(root)
    with pytest.raises(CheckpointError, match="free some space") as error:
        checkpoint.save_checkpoint(
            root, 2, model={"big": torch.ones(2**19)}, optimizer={}, state={}, best=True
        )
    assert str(root / "step-2") in one_line(error)
    with pytest.raises(CheckpointError, match="free some space"):
        write_atomic(small / "report.html", b"x" * 2**21)
    assert names(root) == before
    assert names(small) == {"checkpoints"}
    assert load_latest(root, fail).step == 1


# Damage


def test_every_bit_flip_and_cut_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for file in path.iterdir():
        whole = file.read_bytes()
        stride = max(1, len(whole) // 40)
        for place in {0, 8, 9, len(whole) - 1, *range(0, len(whole), stride)}:
            for damaged in (
                whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
                whole[:place],
            ):
                file.write_bytes(damaged)
                with pytest.raises(CheckpointError, match=file.name) as error:
                    load_checkpoint(path)
                one_line(error)
        file.write_bytes(whole)
    assert load_checkpoint(path).step == 1


def test_missing_extra_and_foreign(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / ".DS_Store").write_text("ignored")
    (path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        load_checkpoint(path)
    (path / "notes.txt").unlink()
    (path / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is missing"):
        load_checkpoint(path)
    for foreign in (tmp_path, tmp_path / "nowhere", path / "state.json"):
        with pytest.raises(CheckpointError, match="is no checkpoint"):
            load_checkpoint(foreign)


def forge(path: Path, name: str, data: bytes, **body: Any) -> None:
    """Put `data` in a checkpoint with a manifest that vouches for it."""
    (path / name).write_bytes(data)
    manifest = read_json(path / "manifest.json")
    manifest["files"][name] = checkpoint._seal(data)
    manifest = {key: manifest[key] for key in ("format", "step", "files")} | body
    write_json(path / "manifest.json", manifest | {"sha256": checkpoint._digest(manifest)})


def test_forged_content_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    cases = {
        "occurs twice": len(header).to_bytes(8, "little") + header + bytes(4),
        "within the file": (2**40).to_bytes(8, "little") + b"{}",
        "header 0": b"",
        "JSON object": (2).to_bytes(8, "little") + b"[]",
        "damaged": (len(entry) + 2).to_bytes(8, "little") + b"{" + entry + b"}",
    }
    for message, data in cases.items():
        forge(path, "model.safetensors", data)
        with pytest.raises(CheckpointError, match=message) as error:
            load_checkpoint(path)
        assert "model.safetensors" in one_line(error)
    bodies: list[dict[str, Any]] = [{"format": 2}, {"step": "1"}, {"files": []}, {"files": {}}]
    for body in bodies:
        forge(path, "state.json", b"{}", **body)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(path)
        one_line(error)
        shutil.rmtree(path)
        path = save(tmp_path, 1)


def test_damaged_newest_falls_back_with_a_warning(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "model.safetensors").write_bytes(b"")
    warnings: list[str] = []
    assert load_latest(tmp_path, warnings.append).step == 1
    assert len(warnings) == 1
    assert "step-2" in warnings[0]
    assert "\n" not in warnings[0]
    (tmp_path / "step-1" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="damaged: step-2, step-1"):
        load_latest(tmp_path, warnings.append)
    with pytest.raises(CheckpointError, match="no loadable checkpoint"):
        load_latest(tmp_path / "nowhere", fail)


# Files and locks


def test_write_atomic_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ü": 0.1})
    assert read_json(path) == {"ü": 0.1}
    write_atomic(path, "ü")
    assert sha256_of(path) == checkpoint._seal("ü".encode())["sha256"]
    deep = '{"a":' * 100_000
    for text in ("ü", "[]", "", '{"a":1,"a":2}', deep, f'{{"a":{"1" * 5000}}}'):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"a\.json") as error:
            read_json(path)
        assert len(one_line(error)) < 300
    monkeypatch.setattr(files, "JSON_LIMIT", 10)
    with pytest.raises(CheckpointError, match="at most 10 bytes"):
        read_json(path)
    for wrong in (tmp_path / "nowhere" / "b", path / "b"):
        for act in (lambda p: write_atomic(p, ""), read_json, sha256_of):
            with pytest.raises(CheckpointError) as error:
                act(wrong)
            assert str(wrong) in one_line(error)
    assert names(tmp_path) == {"a.json"}


HOLD = """
import os, sys, time
from pathlib import Path
from alexnet.files import DirLock
with DirLock(Path(sys.argv[1])):
    os.write(1, b"holder\\n" if os.fork() else b"child\\n")
    time.sleep(60)
"""


def test_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        try:
            assert holder.stdout is not None
            # The child has begun once it writes, and let go of the lock before that.
            assert {holder.stdout.readline() for _ in range(2)} == {"holder\n", "child\n"}
            with pytest.raises(UsageError, match=f"pid {holder.pid}") as error, DirLock(tmp_path):
                pass
            assert str(tmp_path) in one_line(error)
            holder.kill()
            holder.wait()
            # Its forked child lives on, as a data loading worker would for a while.
            with DirLock(tmp_path), pytest.raises(UsageError), DirLock(tmp_path):
                pass
            with DirLock(tmp_path):
                pass
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    with pytest.raises(CheckpointError, match="cannot lock"), DirLock(tmp_path / "nowhere"):
        pass


# Run directories


def test_run_directories(tmp_path: Path) -> None:
    path = fresh_run_path(tmp_path / "runs", "tiny")
    assert path == tmp_path / "runs" / "tiny-1"
    assert latest_run(tmp_path / "runs", "tiny") is None
    run = RunDir.create(path)
    with run.lock():
        RunDir.create(path)  # a run killed before it had a recipe can be started again
    with pytest.raises(CheckpointError, match=r"no recipe\.json"):
        RunDir.open(path)
    run.write_recipe({"lr": 0.01})
    assert RunDir.open(path).recipe == {"lr": 0.01}
    RunDir.create(path)  # and so can one killed before its first checkpoint
    run.checkpoints.mkdir()
    (run.checkpoints / "last").symlink_to("step-0")
    assert run.figures.is_dir()
    assert run.checkpoints == path / "checkpoints"
    with pytest.raises(UsageError, match="--resume"):
        RunDir.create(path)
    (tmp_path / "runs" / "tiny-10").mkdir()
    (tmp_path / "runs" / "tiny-x").touch()
    assert latest_run(tmp_path / "runs", "tiny") == path
    assert fresh_run_path(tmp_path / "runs", "tiny").name == "tiny-11"
    with pytest.raises(UsageError, match="'runs'"):
        RunDir.create(tmp_path)
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(AlexNetError) as error:
            RunDir.create(wrong)
        assert str(wrong) in one_line(error)
    with pytest.raises(CheckpointError, match="nowhere"):
        RunDir.open(tmp_path / "nowhere")


def test_events_skip_broken_lines_and_what_a_resume_superseded(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    assert run.events() == []
    for step in (1, 2, 3, 4):
        run.log({"event": "train", "step": step, "epoch": step, "loss": 0.1 * step})
    run.close()
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'[1]\n\xff\n{"event":"train","st')
    run.log({"event": "resume", "step": 3})
    run.log({"event": "train", "step": 4, "epoch": 4, "loss": math.inf})
    run.log({"event": "resume", "step": 2})
    run.log({"event": "train", "step": 3, "epoch": 3, "loss": 0.5})
    run.log({"event": "done"})
    run.close()
    kept = [(e["event"], e.get("step"), e.get("loss")) for e in RunDir(run.path).events()]
    train = [("train", 1, 0.1), ("train", 2, 0.2)]
    assert kept == [*train, ("resume", 2, None), ("train", 3, 0.5), ("done", None, None)]


def test_full_disk_while_logging(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device") as error:
        run.log({"event": "train"})
    assert "metrics.jsonl" in one_line(error)
    (run.path / "metrics.jsonl").unlink()
    run.log({"event": "train"})
    run.close()
    assert json.loads((run.path / "metrics.jsonl").read_text()) == {"event": "train"}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """By its own reader; what a restart takes back is gone there too."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train = {"event": "train", "loss": 1.0, "loss_mean": 1.5, "top1": 0.5, "top5": None, "lr": 0.1}
    val = {"event": "val", "loss": 2.0, "top1": 0.25, "top1_ci95": [0.2, 0.3], "top5": None}
    said = {"event": "doctor", "name": "dead-units", "where": "relu1", "severity": "will not learn"}
    for start, steps in ((0, (1, 2, 3)), (2, (3,))):
        board = Board(tmp_path, start)
        for step in steps:
            for line in (train, val, said | {"evidence": "all are 0", "advice": "lower it"}):
                board.add({**line, "step": step, "images_per_s": 10.0 * step})
        board.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"train/loss", "train/acc1", "train/lr", "val/acc1", "val/acc1_ci95_low"} <= {
        *tags["scalars"]
    }
    assert "train/acc5" not in tags["scalars"]
    assert [e.step for e in found.Scalars("train/loss")] == [1, 2, 3]
    assert [e.value for e in found.Scalars("train/images_per_sec")] == [10, 20, 30]
    (last, *_) = found.Tensors("doctor/text_summary")[::-1]
    assert b"dead-units" in last.tensor_proto.string_val[0]
