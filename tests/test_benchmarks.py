"""The scripts of benchmarks/ as their user meets them: refusals, a signal, and going on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def bench(script: str, *words: str | Path) -> list[str]:
    return [sys.executable, str(BENCHMARKS / script), *map(str, words)]


# One after the other in one process: most of the time of each would be the import of torch.
TOGETHER = """
import contextlib, io, json, runpy, sys
from pathlib import Path
folder, calls = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.path.insert(0, str(folder))
for script, words in calls.items():
    sys.argv = [str(folder / script), *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = None
        except SystemExit as end:
            status = end.code
    print(json.dumps([script, status, out.getvalue(), err.getvalue()]), flush=True)
"""
MISTAKES = {
    "accuracy.py": ["digits", "--epochs", "1", "--set", "lr"],
    "company.py": ["--before", "missing"],
    "curves.py": ["missing", "--out", "picture.png"],
    "looking.py": ["missing"],
    "near_copies.py": ["--photos", "missing"],
    "pack.py": ["missing"],
    "scaling.py": ["check", "missing"],
    "serving.py": ["missing", "missing"],
    "small_folders.py": ["--data", "missing"],
    "views.py": ["missing"],
}


def test_a_users_mistake_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TOGETHER, str(BENCHMARKS), json.dumps(MISTAKES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [script for script, *_ in found] == list(MISTAKES), done.stderr
    for script, status, out, err in found:
        assert (status, out) == (2, ""), script
        assert err.startswith(f"{script}: ")
        assert err.count("\n") == 1, err
        assert ("missing" if "missing" in MISTAKES[script] else "--set 'lr'") in err
    assert not list(tmp_path.iterdir())


def test_accuracy_goes_on_after_a_signal_and_is_drawn(tmp_path: Path) -> None:
    """Ended while it trains, the same command finishes the training it had begun; its record is a
    row a length, and the picture is of that."""
    out, work = tmp_path / "made/digits.json", tmp_path / "work"
    words = [
        "digits",
        "--epochs",
        "1",
        "--seeds",
        "0",
        "--set",
        "log_every=1",
        "size=14",
        "crop=14",
        "batch_size=50",
        "--work",
        work,
        "--out",
        out,
    ]
    cut = subprocess.Popen(bench("accuracy.py", *words), stderr=subprocess.PIPE, text=True)
    assert cut.stderr is not None
    for line in cut.stderr:
        if line.startswith("step"):
            break
    cut.send_signal(signal.SIGTERM)
    said = cut.communicate()[1]
    assert cut.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "accuracy.py: interrupted; the same command goes on"
    assert not out.exists()
    (run,) = work.iterdir()
    began = run.stat().st_ino

    again = subprocess.run(bench("accuracy.py", *words), capture_output=True, text=True, check=True)
    assert "continuing" in again.stderr
    assert [p.stat().st_ino for p in work.iterdir()] == [began]
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["epochs"], row["seeds"], row["n"], row["split"]) == (1, 1, 400, "val")
    assert again.stderr.strip().endswith(f"{100 * row['top1']:.2f} %")

    picture = tmp_path / "curve.png"
    subprocess.run(bench("curves.py", out, "--out", picture), check=True)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_company_compares_two_trees(tmp_path: Path) -> None:
    """Here the same tree twice; each of our ways in each company, before and after."""
    out = tmp_path / "made/company.json"
    words = ["--before", BENCHMARKS.parent, "--only", "train", "--small"]
    words += ["--rounds", "1", "--seconds", "0", "--out", out]
    subprocess.run(bench("company.py", *words), check=True, capture_output=True)
    record = json.loads(out.read_text())
    companies = ["quiet", "nice 10", "lowest", "equal", "apart"]
    names = list(dict.fromkeys(row["name"] for row in record["rows"]))
    assert names[0] == "train cuda-convnet-11, 4, ours, fp32"
    assert [(row["name"], row["company"]) for row in record["rows"]] == [
        (name, company) for name in names for company in companies
    ]
    for row in record["rows"]:
        for tree in ("before", "after"):
            assert row[f"{tree}_range"][0] <= row[tree] <= row[f"{tree}_range"][1]
        rival = "train cuda-convnet-11, 4, plain PyTorch"
        assert row["plain"] == record["rates"][rival][f"program, {row['company']}, after"][0]
        assert "plain PyTorch" in row["at_least"]
        if row["company"] == "equal":
            assert "42 % of quiet" in row["at_least"]
            if row["after_keeps"] != 0.42:  # rounded
                assert ("42 % of quiet" in row["met"]) == (row["after_keeps"] < 0.42)
    missed = sum(row.get("met", "yes") != "yes" for row in record["rows"])
    assert len(record["bars_missed"]) == missed
    assert record["trees"].keys() == {"before, program", "after, program"}


@pytest.mark.parametrize("rows", [[], [{"epochs": 1, "top1": 0.9}]], ids=["no-rows", "no-range"])
def test_a_picture_of_another_record_is_refused(rows: list[object], tmp_path: Path) -> None:
    other, picture = tmp_path / "other.json", tmp_path / "picture.png"
    other.write_text(json.dumps({"recipe": "digits", "rows": rows}))
    found = subprocess.run(
        bench("curves.py", other, "--out", picture), capture_output=True, text=True
    )
    assert found.returncode == 2
    assert found.stderr == (
        f"curves.py: {other} is no record of benchmarks/accuracy.py; name one that is\n"
    )
    assert not picture.exists()
