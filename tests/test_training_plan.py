"""A training is planned by one process; the others open the same for themselves, or all end."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet.errors import AlexNetError, DataError, UsageError
from alexnet.training import join
from conftest import read_events, without_report, write_tree
from teams import run_team

FIELDS: dict[str, Any] = {
    "model": "alexnet-28", "size": 32, "crop": 28, "channels": 3, "steps": 3, "batch_size": 8,
    "eval_every": 1.0, "precision": "fp32", "workers": 0, "doctor": "off",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


def own(words: Any) -> Any:
    """What this process is given, where each has something else."""
    return words[int(os.environ["RANK"])] if isinstance(words, list) else words


def train_each(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each call returns, or what it raises; `data` and `init` may be a list, one a process."""
    found: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        for call in calls:
            options = {name: own(value) for name, value in call.items()}
            try:
                result = alexnet.train("digits", **{**FIELDS, **options})
                found.append({"step": result.step, "top1": result.top1})
            except AlexNetError as error:
                found.append(
                    {"kind": type(error).__name__, "says": str(error), "status": error.exit_status}
                )
    return found


def weights(run: Path) -> bytes:
    return (run / "checkpoints/last/model.safetensors").read_bytes()


def test_each_process_opens_its_own_copy(tmp_path: Path) -> None:
    """Data and weights may lie elsewhere on each host, if they are the same; what is not the same
    is refused by one process, and nothing is left of the run."""
    tree = write_tree(tmp_path / "here", each=20)
    same = Path(shutil.copytree(tree, tmp_path / "there"))
    other = Path(shutil.copytree(tree, tmp_path / "other"))
    next((other / "class-1").iterdir()).unlink()
    tiny = {"model": "alexnet-28", "steps": 1, "seed": 3}
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        for name, seed in (("one", 3), ("two", 4)):
            alexnet.train(
                "digits", data=tree, run=tmp_path / name, **FIELDS | tiny | {"seed": seed}
            )
    first, second = (
        str(Path(shutil.copy(
            tmp_path / name / "checkpoints/last/model.safetensors", tmp_path / f"{name}.safetensors"
        )))
        for name in ("one", "two")
    )  # fmt: skip
    copied = str(shutil.copy(first, tmp_path / "copy.safetensors"))
    calls: list[dict[str, Any]] = [
        {"data": [str(tree), str(tree)], "init": first, "run": str(tmp_path / "plain")},
        {"data": [str(tree), str(same)], "init": [first, copied], "run": str(tmp_path / "apart")},
        {"data": [str(tree), str(other)], "run": str(tmp_path / "data")},
        {"data": [str(tree), str(tmp_path / "no")], "run": str(tmp_path / "gone")},
        {"data": str(tree), "init": [first, second], "run": str(tmp_path / "init")},
    ]
    by_rank = run_team(tmp_path / "ranks", 2, train_each, calls, within=120)
    assert by_rank[0][:2] == by_rank[1][:2]
    assert all(result["step"] == 3 for result in by_rank[0][:2])
    assert weights(tmp_path / "apart") == weights(tmp_path / "plain")
    reasons = [
        ("DataError", f"the data in {other} is not what the first process reads"),
        ("DataError", str(tmp_path / "no")),
        ("CheckpointError", f"init={second!r} is not what the first process reads"),
    ]
    for mine, theirs, (kind, words) in zip(by_rank[0][2:], by_rank[1][2:], reasons, strict=True):
        assert mine == {"kind": "Elsewhere", "says": "", "status": 2}
        assert (theirs["kind"], theirs["status"]) == (kind, 2)
        assert words in theirs["says"]
    assert not [name for name in ("data", "gone", "init") if (tmp_path / name).exists()]


def test_what_the_first_process_leaves_out_all_leave_out(tmp_path: Path) -> None:
    """Of images that are read as they are used: damaged ones in a validation part of its own, and
    among those whose statistics are taken."""
    for part, each in (("train", 30), ("val", 8), ("test", 6)):
        write_tree(tmp_path / "photos" / part, each=each, side=40, seed=each)
    for file in ("train/class-1/001.png", "val/class-2/005.png"):
        (tmp_path / "photos" / file).write_bytes(b"no image")
    call = {
        "data": str(tmp_path / "photos"), "run": str(tmp_path / "run"), "memory_gib": 0.0,
        "bad_images": "skip", "bad_share": 0.1, "normalize": "image", "shift": 0, "rotate": 0.0,
        "scale": 0.0, "log_every": 1,
    }  # fmt: skip
    alone = {**call, "run": str(tmp_path / "alone")}
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train("digits", **{**FIELDS, **alone})
    by_rank = run_team(tmp_path / "ranks", 2, train_each, [call], within=120)
    first, second = (ranks[0] for ranks in by_rank)
    assert first == second
    assert first["step"] == 3
    # Both have the statistics that the first took: the first step's loss is that of one process.
    losses = [
        next(e["loss"] for e in read_events(tmp_path / name) if e["event"] == "train")
        for name in ("run", "alone")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    described = [
        (tmp_path / name / "recipe.json").read_text().partition('"call"')[0]
        for name in ("run", "alone")
    ]
    assert described[0] == described[1]
    assert described[0].count("not an image") == 2


def fail(failing: list[int]) -> list[dict[str, Any]]:
    """What comes of blocks of which these ranks raise something in the second."""
    found: list[dict[str, Any]] = []
    with join() as team:
        for ranks in ([], failing):
            try:
                with team.all_or_none():
                    if team.rank in ranks:
                        raise DataError(f"of {team.rank}") if team.rank else UsageError("of 0")
                found.append({"sent": team.broadcast({"rank": team.rank, "odd": "\udcff"})})
            except AlexNetError as error:
                found.append({"raised": type(error).__name__, "says": str(error)})
        found.append({"shared": team.share([team.rank])})
    return found


@pytest.mark.parametrize("failing", [[0], [2], [1, 2], [0, 1, 2]])
def test_all_or_none(failing: list[int], tmp_path: Path) -> None:
    """The first of those that fail says why, the others only end; then they go on together."""
    for rank, (sent, raised, shared) in enumerate(run_team(tmp_path, 3, fail, failing, within=120)):
        assert sent == {"sent": {"rank": 0, "odd": "\udcff"}}
        kind = "DataError" if failing[0] else "UsageError"
        said = {"raised": kind, "says": f"of {failing[0]}"}
        assert raised == (said if rank == failing[0] else {"raised": "Elsewhere", "says": ""})
        assert shared == {"shared": [[0], [1], [2]]}
