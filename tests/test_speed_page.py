"""docs/speed.md is made from every record, and says what has not been measured."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from scripts import speed

ENVIRONMENT: dict[str, Any] = {
    "gpu": None, "cpu": "A processor", "threads": 2, "packages": {"torch": "9.9"},
    "commit": "c" * 40, "dirty": True,
    "command": ["__main__.py", "bench", "--data", "/home/me/photos"],
}  # fmt: skip
RECORD: dict[str, Any] = {
    "rows": [
        {"name": "plain", "images_per_s": 10.0, "range": [9.0, 11.0], "extra_bytes": 2**21},
        {"name": "ours", "images_per_s": 12345.6, "range": [9.0, 11.0], "share": 0.5},
    ],
    "missing": ["OpenVINO"],
    "environment": ENVIRONMENT,
}


def test_the_page_is_as_its_records() -> None:
    found = speed.read_records(speed.RECORDS)
    assert len(found) >= len(list((speed.RECORDS / "bench").glob("*.json"))) > 5
    text = speed.PAGE.read_text()
    assert speed.record_tables(found) in text
    for name, _ in found:
        assert f"### {name}\n" in text


def test_a_record_becomes_a_table_and_a_gap_is_said() -> None:
    text = speed.record_tables([("train-x", RECORD)])
    assert "A processor, 2 thread(s); torch 9.9; cccccccccc with changes." in text
    assert "| plain | 10 | 9 to 11 | 2 |  |" in text
    assert "| ours | 12,346 | 9 to 11 |  | 50.0 % |" in text
    assert "`alexnet bench --data photos`" in text
    assert "- Not measured: OpenVINO." in text
    assert text.count("not measured.") == len(speed.EXPECTED_RECORDS)
    on_gpu = copy.deepcopy(RECORD)
    on_gpu["environment"]["gpu"] = "A GPU"
    text = speed.record_tables([("train-y", on_gpu)])
    assert "training steps: train-y." in text
    assert text.count("not measured.") == len(speed.EXPECTED_RECORDS) - 1


def test_check_sees_a_page_that_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, records = tmp_path / "speed.md", tmp_path / "results"
    (records / "bench").mkdir(parents=True)
    page.write_text(f"before\n{speed.BEGIN}{speed.END}after\n")
    readme = tmp_path / "README.md"
    readme.write_text("".join(speed.README_MARKS))
    monkeypatch.setattr(speed, "PAGE", page)
    monkeypatch.setattr(speed, "README", readme)
    monkeypatch.setattr(speed, "RECORDS", records)

    def run(*flags: str) -> int:
        monkeypatch.setattr("sys.argv", ["speed.py", *flags])
        return speed.main()

    assert run("--check") == 1
    assert run() == 0
    assert run("--check") == 0
    (records / "bench" / "train-x.json").write_text(json.dumps(RECORD))
    assert run("--check") == 1
    assert run() == 0
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")


def test_the_readme_shows_records_and_what_has_none() -> None:
    found = dict(speed.read_records(speed.RECORDS))
    text = speed.readme_table(found)
    assert text in speed.README.read_text()
    assert "not measured" not in text
    gone = speed.README_ROWS[0][0]
    del found[gone]
    rows = sum(name == gone for name, *_ in speed.README_ROWS)
    assert speed.readme_table(found).count("not measured") == rows > 0
