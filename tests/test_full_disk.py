"""A full disk: one line, no half a run, and what was saved before can be gone on from."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import alexnet
from shell import QUICK, Cli
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures

WEIGHTS = 4 * sum(p.numel() for p in alexnet.build_model("alexnet-28", 10).parameters())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for the weights at step 0, a checkpoint with Adam's state, and not for another."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs Linux and root")
    size = f"size={WEIGHTS * 5 + 2**20}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)])
    if done.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("no_pictures")
def test_full_disk(cli: Cli, idx_folder: Path, small_disk: Path) -> None:
    """One line, exit 2, and the checkpoints from before can be gone on from, once there is room."""
    run, more = small_disk / "r", ["--save-every", 1, "--keep", 9, "--steps", 6]
    argv = ["train", "digits", "--data", idx_folder, "--run", run, *QUICK, *more]
    status, _, said = cli(*argv)
    assert status == 2
    assert [line for line in said if line.startswith("alexnet: ")] == said[-1:]
    assert "free some space" in said[-1]
    saved = os.readlink(run / "checkpoints/last")
    status, _, said = cli("train", "--resume", "--run", run)
    assert status == 2
    assert f"from step {saved.removeprefix('step-')}" in said[0]
    elsewhere = Path(shutil.copytree(run, "r", symlinks=True))
    assert cli("train", "--resume", "--run", elsewhere)[0] == 0


@pytest.mark.usefixtures("no_pictures")
def test_full_disk_before_the_first_checkpoint(
    cli: Cli, idx_folder: Path, small_disk: Path
) -> None:
    """No run is left that can be neither started nor continued."""
    (small_disk / "filler").write_bytes(bytes(WEIGHTS * 9 // 2 + 2**20))
    argv = ["train", "digits", "--data", idx_folder, "--run", small_disk / "r", *QUICK]
    status, _, said = cli(*argv)
    assert status == 2
    assert "free some space" in said[-1]
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    assert cli(*argv, "--keep", 1)[0] == 0
