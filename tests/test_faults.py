"""A few of each fault; `make faults` runs the full counts, and docs/faults.md has what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.library import FAULTS

ROOT = Path(__file__).resolve().parents[1]
PLACES = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PLACES)}


def ran(*words: str) -> tuple[int, list[dict[str, object]], str]:
    """In a process of its own: it forks, and pytest has threads."""
    told = [sys.executable, "-m", "faults", *words]
    found = subprocess.run(told, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith('{"fault"')]
    return found.returncode, rows, found.stderr


FILES = ("save-killed", "save-refused", "cut-files", "bit-flips", "headers", "malicious")
IMAGES = ("images", "archives", "archives-mutated")
TRAINING = ("training-killed", "resume-matrix")


@pytest.mark.parametrize("names", [FILES + IMAGES, TRAINING], ids=" ".join)
def test_nothing_is_lost(names: tuple[str, ...]) -> None:
    status, rows, said = ran("--few", *names)
    assert [row["fault"] for row in rows] == list(names), said
    for row in rows:
        assert row["losses"] == [], row
        assert row["tried"], row
    assert status == 0


@pytest.mark.slow
def test_causes_are_named() -> None:
    status, rows, said = ran("--count", "8", "causes")
    assert (status, rows[0]["losses"]) == (0, []), said


def test_a_loss_is_counted(tmp_path: Path) -> None:
    """With what verifies a checkpoint taken away, damaged ones load, and that is seen."""
    # Patched because nothing that a user can do takes away what verifies a checkpoint.
    blind = (
        "import alexnet.runs.checkpoint as checkpoint\n"
        "checkpoint._read_sealed = lambda path, expected: path.read_bytes()\n"
        "from pathlib import Path\n"
        "from faults.library import FAULTS\n"
        "import sys\n"
        "tally = FAULTS['bit-flips'].run(40, 1, Path(sys.argv[1]))\n"
        "sys.exit(len(tally.losses))"
    )
    found = subprocess.run([sys.executable, "-c", blind, str(tmp_path)], env=ENVIRONMENT)
    assert 10 <= found.returncode <= 40


def test_every_fault_is_in_the_page() -> None:
    from faults.__main__ import table

    text = (ROOT / "docs" / "faults.md").read_text()
    assert all(fault.what in text for fault in FAULTS.values())
    assert table(FAULTS) in text
