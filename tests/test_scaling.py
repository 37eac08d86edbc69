"""The arithmetic of docs/scaling.md: its table is the model's, and the model is measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, str(ROOT / "benchmarks/scaling.py")]


def test_the_table_of_the_page_is_the_models() -> None:
    """And its hours are 90 x 1,281,167 images by the images a second."""
    said = subprocess.run([*BENCH, "predict"], capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 10
    assert said in (ROOT / "docs/scaling.md").read_text()
    for line in said.splitlines()[2:]:
        speed, took = (cell.strip().replace(",", "") for cell in line.split("|")[4:6])
        number, unit = took.split()
        hours = float(number) / {"h": 1, "min": 60}[unit]
        rounding = 0.06 / float(number) + 0.6 / float(speed)
        assert 3600 * hours * float(speed) == pytest.approx(90 * 1_281_167, rel=rounding)


@pytest.mark.slow
def test_the_model_is_held_against_two_processes(tmp_path: Path) -> None:
    """That it runs to its verdict; which one is for a quiet machine to say."""
    out = tmp_path / "made/record.json"
    words = ["--rounds", "1", "--batch", "4", "--steps", "2", "--model", "alexnet-2012-32"]
    subprocess.run([*BENCH, "measure", "--out", str(out), *words], check=True)
    record = json.loads(out.read_text())
    assert [len(record[name]) for name in ("half", "two", "exchange")] == [1, 1, 1]
    found = subprocess.run([*BENCH, "check", str(out)], capture_output=True, text=True)
    assert "overhead of two against one with half the batch" in found.stdout
    assert found.returncode == ("does not" in found.stdout)
