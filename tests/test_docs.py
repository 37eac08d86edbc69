"""The documentation: it builds, its links lead somewhere, and what is made from code is as made."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import docs, results
from tests.test_structure import ROOT

import alexnet
from alexnet.recipe import RECIPES, find_recipe

PAGES = sorted((ROOT / "docs").rglob("*.md"))


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("needs sphinx: pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.run([*command, str(source), str(out)], capture_output=True, text=True)


def test_the_site_builds(tmp_path: Path) -> None:
    done = build(ROOT / "docs", tmp_path / "site")
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES:
        made = (tmp_path / "site" / page.relative_to(ROOT / "docs")).with_suffix(".html")
        assert made.stat().st_size > 2000, page
    api = (tmp_path / "site" / "api.html").read_text()
    for name in alexnet.__all__:
        assert f'id="alexnet.{name}"' in api or f"alexnet.predictor.{name}" in api, name
    assert (tmp_path / "site" / "_images" / "flow.svg").is_file()
    assert "https://" not in "".join(
        line for line in (tmp_path / "site" / "index.html").read_text().splitlines()
        if "<script" in line or "<link" in line
    ), "a page loads something from elsewhere"  # fmt: skip


def test_a_broken_link_fails(tmp_path: Path) -> None:
    """To a page of the site, and to a file beside it: each is named, at its line."""
    (tmp_path / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (tmp_path / "claims.html").write_text("")
    links = ("missing.md", "../nothing/at-all.json")
    (tmp_path / "index.md").write_text("# A page\n\n[a](missing.md)\n\n[b](" + links[1] + ")\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for link in links:
        assert link.split("/")[-1].removesuffix(".md") in done.stderr


def test_links_of_the_readme_lead_somewhere() -> None:
    links = docs.re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    inside = [link for link in links if "://" not in link]
    assert len(inside) > 10
    assert not [link for link in inside if not (ROOT / link).exists()]


def test_the_doctor_has_looked_at_the_network_each_recipe_has() -> None:
    looks = (ROOT / "results" / "doctor-reported.jsonl").read_text().splitlines()
    looked = {(r["data"], r["model"]) for r in map(json.loads, looks) if r["when"] == "recipe"}
    assert looked == {(name, find_recipe(name).model) for name in RECIPES}


def test_a_row_of_results_says_where_its_recipe_was_another() -> None:
    now = find_recipe("digits").to_dict()
    assert results.differences(now | {"seed": 3, "precision": "bf16"}) == []
    older = now | {"lr": 0.5, "steps": 7}
    del older["flip"]  # a field that was not there then
    assert results.differences(older) == [
        "steps 7 (none in the recipe)",
        "lr 0.5 (0.003 in the recipe)",
    ]


def test_what_is_made_from_the_code_is_as_made() -> None:
    stale = [p.name for p, text in docs.pages().items() if p.read_text() != text]
    assert not stale, "python -m scripts.docs"


def test_the_drawing_is_checked_against_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (("raw", "run", {"train": ("unpickle",)}), *docs.ARROWS)
    monkeypatch.setattr(docs, "ARROWS", broken)
    with pytest.raises(SystemExit, match="train does not use unpickle"):
        docs.arrows()
    monkeypatch.setattr(docs, "ARROWS", ())
    with pytest.raises(SystemExit, match="no arrow for"):
        docs.arrows()
    monkeypatch.setattr(docs, "SECTIONS", docs.SECTIONS[:3])
    with pytest.raises(SystemExit, match="sections that SECTIONS does not have"):
        docs.paper_table()
    with pytest.raises(SystemExit, match="does not exist"):
        docs.find_object("alexnet.models.norm.nonsense")


def test_the_notebook_of_2018(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell, with two steps and one seed, shown as a notebook would."""
    book = json.loads((ROOT / "docs" / "bias-one.ipynb").read_text())
    names: dict[str, Any] = {}
    cells = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
    assert cells[0].startswith("STEPS, SEEDS = ")
    for cell in ["STEPS, SEEDS = 2, 1", *cells[1:]]:
        exec(compile(cell, "bias-one.ipynb", "exec"), names)
    said = capsys.readouterr().out
    assert said.count("0 of 1 dead") == 4, "two steps kill nothing"
    assert "activation-on-logits" in said
    assert len(names["figure"].axes) == 2
    assert all(not c["outputs"] for c in book["cells"] if c["cell_type"] == "code")


def test_pages_name_each_other() -> None:
    """No page is left out of the site, and each decision is a heading."""
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        name = os.fspath(page.relative_to(ROOT / "docs").with_suffix(""))
        assert name == "index" or f"\n{name}\n" in index, name
