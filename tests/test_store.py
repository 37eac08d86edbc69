"""Storage: what is committed survives kills, full disks, bit flips and second writers."""

import contextlib
import hashlib
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

import alexnet
from alexnet.errors import AlexNetError, CheckpointError, UsageError
from alexnet.runs import RunDir, find_checkpoint, load_checkpoint, load_latest, save_checkpoint

# Deep because a kill between any two calls to the disk can be made here alone: a training that
# starts again would have to be run for each of them.
from alexnet.runs.restart import finish_restart, restart_run

ENV = os.environ | {"PYTHONPATH": str(Path(alexnet.__file__).parents[1])}


def save(root: Path, step: int, *, value: float = 0, best: bool = False, **more: Any) -> Path:
    model = {"weight": torch.full((2, 3), float(step)), "bias": torch.tensor(value)}
    momentum = {"momentum": torch.full((2, 3), float(step))}
    return save_checkpoint(
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
    path = save_checkpoint(
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
        # Patched because a fault at one certain call to the disk can be made in no other way.
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


@contextlib.contextmanager
def disk(before: Callable[[Path], None]) -> Iterator[None]:
    """A disk that calls `before` with the path of a file, before it is written through to it: there
    it may be slow, or full."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to know which file is written")
    real = os.fsync

    def call(descriptor: int) -> None:
        before(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        # Patched because a disk that is slow or full for one file can be made in no other way.
        patch.setattr(os, "fsync", call)
        yield


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from alexnet.runs import load_latest, save_checkpoint
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
for _ in range(8):
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
        save_checkpoint(
            root, 2, model={"big": torch.ones(2**19)}, optimizer={}, state={}, best=True
        )
    assert str(root / "step-2") in one_line(error)
    with pytest.raises(CheckpointError, match="free some space"):
        RunDir(small).write_recipe({"about": "x" * 2**21})
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
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {key: manifest[key] for key in ("format", "step", "files")} | body
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest}))


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


def test_a_record_is_whole_or_refused_in_one_line(tmp_path: Path) -> None:
    run, path = RunDir(tmp_path), tmp_path / "recipe.json"
    run.write_recipe({"ü": 0.1})
    assert run.recipe == {"ü": 0.1}
    run.write_recipe({"ü": 0.2})
    assert run.recipe == {"ü": 0.2}
    deep = '{"a":' * 100_000
    for text in ("ü", "[]", "", '{"a":1,"a":2}', deep, f'{{"a":{"1" * 5000}}}'):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"recipe\.json") as error:
            _ = run.recipe
        assert len(one_line(error)) < 300
    os.truncate(path, 65 * 2**20)
    with pytest.raises(CheckpointError, match="at most 67108864 bytes"):
        _ = run.recipe
    for wrong in (tmp_path / "nowhere", path):
        for act in (lambda other: other.write_recipe({}), lambda other: other.recipe):
            with pytest.raises(CheckpointError) as error:
                act(RunDir(wrong))
            assert str(wrong / "recipe.json") in one_line(error)
    assert names(tmp_path) == {"recipe.json"}


HOLD = """
import os, sys, time
from pathlib import Path
from alexnet.runs import RunDir
with RunDir(Path(sys.argv[1])).lock():
    os.write(1, b"holder\\n" if os.fork() else b"child\\n")
    time.sleep(60)
"""


def test_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    command, run = [sys.executable, "-c", HOLD, str(tmp_path)], RunDir(tmp_path)
    with subprocess.Popen(
        command, env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        try:
            assert holder.stdout is not None
            # The child has begun once it writes, and let go of the lock before that.
            assert {holder.stdout.readline() for _ in range(2)} == {"holder\n", "child\n"}
            with pytest.raises(UsageError, match=f"pid {holder.pid}") as error, run.lock():
                pass
            assert str(tmp_path) in one_line(error)
            holder.kill()
            holder.wait()
            # Its forked child lives on, as a data loading worker would for a while.
            with run.lock(), pytest.raises(UsageError), run.lock():
                pass
            with run.lock():
                pass
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    with pytest.raises(CheckpointError, match="cannot lock"), RunDir(tmp_path / "nowhere").lock():
        pass


# Run directories


def test_run_directories(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "tiny-1"
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
    with pytest.raises(UsageError, match="resume=True"):
        RunDir.create(path)
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
    kept = [(e.event, e.step, getattr(e, "loss", None)) for e in RunDir(run.path).events()]
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


# A run that starts again.


def make_run(folder: Path) -> RunDir:
    run = RunDir.create(folder)
    for name in ("recipe.json", "environment.json", "recipe.toml"):
        (run.path / name).write_text('"old"')
    tensors = {"weight": torch.zeros(2)}
    for step in (0, 4, 8):
        save_checkpoint(run.checkpoints, step, model=tensors, optimizer={},
                        state={"step": step}, best=step == 4)  # fmt: skip
        run.log({"event": "saved", "step": step})
    return run


def start_again(run: RunDir) -> None:
    texts = dict.fromkeys(("recipe.json", "environment.json", "recipe.toml"), '"new"')

    def save(folder: Path) -> None:
        save_checkpoint(folder, 0, model={"weight": torch.ones(2)}, optimizer={},
                        state={"step": 0}, best=False)  # fmt: skip

    restart_run(run, texts, {"event": "resume", "step": 0}, save)


def state_of(folder: Path) -> tuple[str, ...]:
    """What a run is, as whoever resumes it finds it."""
    run = RunDir.open(folder)
    finish_restart(run)
    newest = load_latest(run.checkpoints, pytest.fail)
    texts = {(folder / name).read_text() for name in ("recipe.json", "environment.json")}
    texts.add((folder / "recipe.toml").read_text())
    assert len(texts) == 1, "records of both"
    steps = [e.step for e in run.events() if e.event == "saved"]
    best = (run.checkpoints / "best").is_symlink()
    left = {path.name for path in folder.iterdir()} - {
        "recipe.json", "environment.json", "recipe.toml", "metrics.jsonl", "checkpoints",
    }  # fmt: skip
    assert not left
    return *texts, newest.path.name, str(newest.model["weight"].tolist()), str(steps), str(best)


def test_a_new_start_is_whole_or_not_there(tmp_path: Path) -> None:
    """The process is gone before each of its calls that change the disk."""
    old = ('"old"', "step-8", "[0.0, 0.0]", "[0, 4, 8]", "True")
    new = ('"new"', "step-0", "[1.0, 1.0]", "[0]", "False")
    found = []
    origin = make_run(tmp_path / "origin")
    origin.close()
    for place in range(1000):
        run, left = RunDir(tmp_path / str(place)), place
        shutil.copytree(origin.path, run.path, symlinks=True)
        assert state_of(run.path) == old

        def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                if left <= 0:  # nothing reaches the disk from here on, nor tidies up
                    raise Killed
                left -= 1
                return real(*args, **options)

            return call

        gone = False
        with pytest.MonkeyPatch.context() as patch:
            # Patched because a kill between two calls to the disk can be made in no other way.
            for name in ("fsync", "rename", "replace", "unlink", "rmdir", "symlink", "mkdir"):
                patch.setattr(os, name, guarded(getattr(os, name)))
            try:
                start_again(run)
            except Killed:
                gone = True
        run.close()
        found.append(state_of(run.path))
        if not gone:
            break
    assert set(found) == {old, new}
    assert found == sorted(found, key=lambda one: one == new), "first the one, then the other"
    assert found[-1] == new
    assert 20 < len(found) < 1000


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def full(folder: Path) -> None:
        folder.mkdir()
        raise CheckpointError("no space")

    with pytest.raises(CheckpointError, match="no space"):
        restart_run(run, {}, {"event": "resume", "step": 0}, full)
    assert load_checkpoint(run.checkpoints / "last").step == 8
    finish_restart(run)
    assert not (run.path / "checkpoints-again").exists()


@pytest.mark.parametrize("plan", ["no json", "{}", '{"records": {"../x": "y"}, "line": {}}'])
def test_a_damaged_plan_is_refused(plan: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "starting-again.json").write_text(plan)
    with pytest.raises(CheckpointError, match="is damaged"):
        alexnet.train(run=run.path, resume=True)
    assert not (tmp_path / "x").exists()
