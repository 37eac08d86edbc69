"""An image that cannot be read in the middle of a training, or of a test, costs that image."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.cli import main
from alexnet.data import draws
from alexnet.errors import AlexNetError
from conftest import without_pictures, without_report, write_tree
from shell import Cli, copy_place, forget_after, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures
from teams import run_team

STEPS, CUT = 12, 6  # 5 an epoch: the cut is in the second
FIELDS = (
    "--steps", STEPS, "--batch-size", 8, "--channels", 3, "--eval-every", 0.6, "--log-every", 1,
    "--save-every", 3, "--keep", 99, "--precision", "fp32", "--workers", 1, "--no-doctor",
    "--memory-gib", 0, "--mixup", 0.5,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_pictures", "one_thread")


def damage(file: Path) -> None:
    """Its bytes are zero, as after a crash of the machine that wrote it."""
    file.write_bytes(bytes(file.stat().st_size))


def weights(run: Path) -> bytes:
    return (run / "checkpoints/last/model.safetensors").read_bytes()


def events(run: Path, kind: str = "unreadable") -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def last(run: Path) -> int:
    return int(os.readlink(run / "checkpoints/last").removeprefix("step-"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, 60 photos, run/, which nothing disturbed, and the files of its splits. Read only."""
    place = tmp_path_factory.mktemp("whole")
    write_tree(place / "data", each=20)
    words = ["train", "digits", "--data", place / "data", "--run", place / "run", *FIELDS]
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        torch.set_num_threads(1)
        assert main([str(word) for word in words]) == 0
        torch.set_num_threads(before)
    splits = {}
    for split in ("train", "val", "test"):
        alexnet.inspect(place / "run", "features", split=split, out=place / "features.npy")
        lines = (place / "features.csv").read_text().splitlines()
        at = lines[0].split(",").index("image")
        splits[split] = [line.split(",")[at] for line in lines[1:]]
    (place / "splits.json").write_text(json.dumps(splits))
    return place


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """The same as a kill after step 6 leaves it, with photos of its own."""
    place = copy_place(whole, tmp_path / "place")
    shutil.copy(whole / "splits.json", place)
    forget_after(place / "run", CUT)
    return place


def split_of(place: Path, name: str) -> list[str]:
    """Files of a split inside the set, in its order."""
    names: list[str] = json.loads((place / "splits.json").read_text())[name]
    return names


def used_at(place: Path, step: int) -> str:
    """A photo that the batch of a step has, inside the set."""
    names = split_of(place, "train")
    epoch, at = divmod(step, len(names) // 8)
    return names[draws.permutation(0, epoch, len(names))[8 * at + 3]]


@pytest.fixture
def stopped(cut: Path, cli: Cli) -> tuple[Path, Path]:
    """The place, and a photo for which the run stopped two steps later."""
    photo = cut / "data" / used_at(cut, CUT + 2)
    damage(photo)
    resume = ("train", "--resume", "--run", cut / "run")
    status, _, said = cli(*resume)
    assert status == 2
    assert said[-1].startswith(f"alexnet: {photo}: not an image")
    for words in ("repair, replace or remove it", "--resume --run", "--bad-images skip"):
        assert words in said[-1]
    assert last(cut / "run") == CUT + 2, "saved at that very step"
    (event,) = events(cut / "run")
    assert (event["path"], event["split"], event["step"], event["fate"]) == (
        used_at(cut, CUT + 2), "train", CUT + 2, "reported",
    )  # fmt: skip
    status, _, again = cli(*resume)
    assert (status, again[-1]) == (2, said[-1]), "left as it is it stops again, with the same line"
    assert len(events(cut / "run")) == 1
    return cut, photo


def test_repaired_it_goes_on_to_the_same_bits(
    stopped: tuple[Path, Path], whole: Path, cli: Cli
) -> None:
    place, photo = stopped
    shutil.copy(whole / "data" / photo.relative_to(place / "data"), photo)
    assert cli("train", "--resume", "--run", place / "run")[0] == 0
    assert weights(place / "run") == weights(whole / "run")
    assert [e["fate"] for e in events(place / "run")] == ["reported", "repaired"]


@pytest.mark.parametrize("fate", ["replaced", "removed"])
def test_replaced_or_removed_it_goes_on(
    stopped: tuple[Path, Path], whole: Path, fate: str, cli: Cli
) -> None:
    place, photo = stopped
    if fate == "removed":
        photo.unlink()
    else:
        write_tree(place / "other", each=1, side=40)
        shutil.copy(place / "other/class-0/000.png", photo)
    kept = shutil.copytree(place / "run", place / "kept", symlinks=True)
    assert cli("train", "--resume", "--run", place / "run")[0] == 0
    assert last(place / "run") == STEPS
    event = events(place / "run")[-1]
    assert event["fate"] == fate
    assert "no longer those of a run that nothing disturbed" in event["bits"]
    assert weights(place / "run") != weights(whole / "run")
    # Cut once more on its way, it is the same.
    assert cli("train", "--resume", "--run", kept)[0] == 0
    assert weights(kept) == weights(place / "run")
    status, out, _ = cli("test", place / "run", "--json")
    assert status == 0
    assert one_object(out)["n"] == len(split_of(place, "test")), "the cut has not moved"


@pytest.mark.parametrize("change", ["removed", "added", "another damaged"])
def test_only_what_was_reported_may_differ(
    stopped: tuple[Path, Path], change: str, cli: Cli
) -> None:
    place, photo = stopped
    photo.unlink()
    other = place / "data" / used_at(place, CUT + 4)
    if change == "removed":
        other.unlink()
    elif change == "added":
        shutil.copy(other, other.with_stem("new"))
    else:
        other.write_bytes(other.read_bytes()[:100])
    status, _, said = cli("train", "--resume", "--run", place / "run")
    assert status == 2
    expected = f"{other}: cannot be decoded" if change == "another damaged" else "changed since"
    assert expected in said[-1]


def test_skipped_it_is_left_out_by_name_and_resumed_to_the_bit(cut: Path, cli: Cli) -> None:
    """Found by several threads or by none, and cut after it was found: the same bits."""
    for step in (CUT + 1, CUT + 3):
        damage(cut / "data" / used_at(cut, step))
    made = []
    for workers in (0, 3):
        run = shutil.copytree(cut / "run", cut / f"run-{workers}", symlinks=True)
        words = ("train", "--resume", "--run", run, "--bad-images", "skip", "--bad-share", 0.1)
        status, out, said = cli(*words, "--workers", workers, "--json")
        assert status == 0
        left_out = one_object(out)["left_out"]
        assert {e["path"] for e in left_out} == {used_at(cut, CUT + 1), used_at(cut, CUT + 3)}
        assert sum("left out of train from here on" in line for line in said) == 2
        assert [e["step"] for e in events(run)] == [CUT + 1, CUT + 3]
        made.append(weights(run))
    assert made[0] == made[1]
    run = cut / "run-3"
    forget_after(run, 9)
    # What was left out stays so, though it can be read again, and whatever the recipe says now.
    shutil.copy(cut / "data/class-0/003.png", cut / "data" / used_at(cut, CUT + 1))
    status, _, said = cli("train", "--resume", "--run", run)
    assert status == 0, said
    assert weights(run) == made[0]


def test_more_than_the_share_stops(cut: Path, cli: Cli) -> None:
    for step in (CUT, CUT + 1):
        damage(cut / "data" / used_at(cut, step))
    resume = ("train", "--resume", "--run", cut / "run", "--bad-images", "skip")
    status, _, said = cli(*resume)
    assert status == 2
    assert "--bad-share 0.01 leaves out 1 at most" in said[-1]
    assert last(cut / "run") == CUT + 1
    assert cli(*resume, "--bad-share", 0.05)[0] == 0


def test_a_validation_that_stopped_is_made_up_for(cut: Path, whole: Path, cli: Cli) -> None:
    photo = cut / "data" / split_of(cut, "val")[2]
    damage(photo)
    status, _, said = cli("train", "--resume", "--run", cut / "run")
    assert (status, said[-1].startswith(f"alexnet: {photo}: ")) == (2, True)
    stopped = last(cut / "run")
    assert stopped not in {e["step"] for e in events(cut / "run", "val")[-1:]}
    shutil.copy(whole / "data" / photo.relative_to(cut / "data"), photo)
    assert cli("train", "--resume", "--run", cut / "run")[0] == 0
    assert weights(cut / "run") == weights(whole / "run")
    mine, theirs = ({e["step"]: e["loss"] for e in events(r / "run", "val")} for r in (cut, whole))
    assert mine == theirs


@pytest.mark.parametrize("bad", ["stop", "skip"])
@pytest.mark.parametrize("memory", [0, 2])
def test_found_before_the_first_step(
    bad: str, memory: int, whole: Path, tmp_path: Path, cli: Cli
) -> None:
    shutil.copytree(whole / "data", tmp_path / "data")
    damage(photo := tmp_path / "data/class-1/001.png")
    run = tmp_path / "run"
    words = ("train", "digits", "--data", tmp_path / "data", "--run", run, *FIELDS)
    words = (*words, "--memory-gib", memory, "--bad-images", bad, "--steps", 1, "--json")
    status, out, said = cli(*words)
    if bad == "stop":
        assert status == 2
        assert f"{photo}: not an image" in said[-1]
        assert said[-1].endswith("or leave it out with --bad-images skip")
        assert not run.exists()
        return
    assert status == 0
    assert any(f"left out of train: {photo}" in line for line in said)
    described = json.loads((run / "recipe.json").read_text())["data"]
    assert [entry["path"] for entry in described["left_out"]] == ["class-1/001.png"]
    assert described["counts"]["train"] == 41
    assert [e["path"] for e in one_object(out)["left_out"]] == ["class-1/001.png"]
    if not memory:
        page = Path(alexnet.report(run, brief=True).out)
        assert "left out of train" in page.read_text()
    photo.unlink()
    assert cli("test", run)[0] == 0


def once_logged(run: Path, kind: str, count: int, act: Callable[[], object]) -> None:
    """Acts when the log of a run has so many events of a kind, or after a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (run / "metrics.jsonl").exists() and len(events(run, kind)) >= count:
            break
        time.sleep(0.002)
    act()


def test_a_folder_that_is_away_for_a_second_is_waited_for(cut: Path, whole: Path, cli: Cli) -> None:
    data, away = cut / "data", cut / "away"

    def leave() -> None:
        data.rename(away)
        data.mkdir()  # as where a drive was mounted
        time.sleep(1)
        data.rmdir()
        away.rename(data)

    thread = threading.Thread(target=once_logged, args=(cut / "run", "resume", 1, leave))
    thread.start()
    status, _, said = cli("train", "--resume", "--run", cut / "run")
    thread.join()
    assert status == 0
    assert sum("waiting up to 30 s" in line for line in said) == 1
    assert weights(cut / "run") == weights(whole / "run")


def test_a_folder_that_stays_away_stops_it_with_all_saved(cut: Path, whole: Path, cli: Cli) -> None:
    data, away = cut / "data", cut / "away"

    thread = threading.Thread(
        target=once_logged, args=(cut / "run", "resume", 1, lambda: data.rename(away))
    )
    thread.start()
    words = ("train", "--resume", "--run", cut / "run", "--wait-for-data", 0.3)
    status, _, said = cli(*words, "--bad-images", "skip")
    thread.join()
    assert status == 2
    assert "is away, and was waited for 0.3 s" in said[-1]
    assert "--resume" in said[-1]
    assert not events(cut / "run"), "it is no image's fault"
    away.rename(data)
    assert cli("train", "--resume", "--run", cut / "run")[0] == 0
    assert weights(cut / "run") == weights(whole / "run")


def test_a_damaged_test_photo_is_named_and_counted(cut: Path, cli: Cli) -> None:
    run, names = cut / "run", split_of(cut, "test")
    photo = cut / "data" / names[1]
    whole_photo = photo.read_bytes()
    whole_answer = one_object(cli("test", run, "--json")[1])
    assert whole_answer["unreadable"] == []
    damage(photo)
    for change in (lambda: None, photo.unlink):
        change()
        status, out, said = cli("test", run, "--json")
        assert status == 0
        result = one_object(out)
        assert result["n"] == len(names) - 1
        assert [entry["path"] for entry in result["unreadable"]] == [names[1]]
        assert any(str(photo) in line and line.startswith("warning") for line in said)
    for words in (("mistakes",), ("features", "--out", cut / "x.npy")):
        status, out, _ = cli("inspect", run, *words, "--split", "test", "--json")
        assert status == 0
        assert (one_object(out)["n"], one_object(out)["unreadable"][0]["path"]) == (
            len(names) - 1, names[1],
        )  # fmt: skip
    photo.write_bytes(whole_photo)
    repaired = one_object(cli("test", run, "--json")[1])
    assert (repaired["n"], repaired["loss"]) == (len(names), whole_answer["loss"])


def test_of_photos_in_memory_too(whole: Path, tmp_path: Path, cli: Cli) -> None:
    """They are read once, when a run begins and when it goes on."""
    source = tmp_path / "source"
    shutil.copytree(whole / "data", source / "data")
    words = ("train", "digits", "--data", source / "data", "--run", source / "run", *FIELDS)
    assert cli(*words, "--memory-gib", 1)[0] == 0
    for change in ("repaired", "removed", "skipped"):
        place = copy_place(source, tmp_path / change)
        run, photo = place / "run", place / "data/class-1/001.png"
        forget_after(run, CUT)
        content = photo.read_bytes()
        photo.write_bytes(content[:50])
        resume = ("train", "--resume", "--run", run)
        status, _, said = cli(*resume)
        assert status == 2
        assert said[-1].startswith(f"alexnet: {photo}: ")
        assert "--bad-images skip" in said[-1]
        if change == "repaired":
            photo.write_bytes(content)
        elif change == "removed":
            photo.unlink()
        status, _, said = cli(*resume, *(["--bad-images", "skip"] if change == "skipped" else []))
        assert status == 0, said
        assert (weights(run) == weights(source / "run")) is (change == "repaired")
        fate = "left out" if change == "skipped" else change
        assert [e["fate"] for e in events(run)] == ["reported", fate]


def test_a_run_from_before_has_the_rules_from_before(cut: Path, cli: Cli) -> None:
    """It has no record of its files: a damaged one is named, a removed one changes the cut."""
    (cut / "run/files.npz").unlink()
    names = split_of(cut, "test")
    damage(photo := cut / "data" / names[0])
    status, out, _ = cli("test", cut / "run", "--json")
    assert (status, one_object(out)["n"]) == (0, len(names) - 1)
    photo.unlink()
    status, _, said = cli("test", cut / "run")
    assert status == 2
    assert "changed since the run began" in said[-1]


def resume_here(run: str, bad: str) -> dict[str, Any]:
    """One of two processes that go on with a run; how it ended."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        try:
            fields = {"bad_images": bad, "bad_share": 0.1, "workers": 1}
            return {"step": alexnet.train(resume=True, run=run, **fields)["step"]}
        except AlexNetError as error:
            return {"status": error.exit_status, "line": str(error)}


def test_two_processes_leave_out_the_same(cut: Path, whole: Path, tmp_path: Path) -> None:
    """Whichever of them comes upon a photo: both stop and save, or leave it out, at one step; cut
    and continued they end with the same bits, though it can be read again."""
    run = cut / "run"
    for i in (1, 3):
        damage(photo := cut / "data" / used_at(cut, CUT + i))
    ends = run_team(tmp_path / "a", 2, resume_here, str(run), "stop")
    assert [end["status"] for end in ends] == [2, 2]
    assert sorted(bool(end["line"]) for end in ends) == [False, True], "one of them says it"
    assert last(run) == CUT + 1
    assert run_team(tmp_path / "b", 2, resume_here, str(run), "skip") == [{"step": STEPS}] * 2
    found = [(e["step"], e["fate"]) for e in events(run)]
    assert found == [(CUT + 1, "reported"), (CUT + 1, "left out"), (CUT + 3, "left out")]
    again = Path(shutil.copytree(run, cut / "again", symlinks=True))
    forget_after(again, 9)
    shutil.copy(whole / "data" / photo.relative_to(cut / "data"), photo)
    run_team(tmp_path / "c", 2, resume_here, str(again), "skip")
    assert weights(again) == weights(run)


def test_several_that_are_gone_at_once(tmp_path: Path, cli: Cli) -> None:
    """Of train, val and test, while it trains: the first stops it, and all may stay away."""
    data, run = write_tree(tmp_path / "data", each=20), tmp_path / "run"
    words = ["train", "digits", "--data", data, "--run", run, "--channels", 3, "--memory-gib", 0,
             "--epochs", 16, "--eval-every", 5, "--batch-size", 8, "--precision", "fp32",
             "--log-every", 1, "--early-stop", 0, "--no-doctor", "--wait-for-data", 0]  # fmt: skip

    def leave() -> None:
        for file in sorted((data / "class-1").iterdir())[:12]:
            file.unlink()

    thread = threading.Thread(target=once_logged, args=(run, "train", 10, leave))
    thread.start()
    status, _, said = cli(*words)
    thread.join()
    assert status == 2, said
    assert "no such file" in said[-1]
    status, _, said = cli("train", "--resume", "--run", run, "--no-doctor")
    assert status == 0, said
    assert sum("is gone, and left out from here on" in line for line in said) >= 6
    assert cli("test", run)[0] == 0
