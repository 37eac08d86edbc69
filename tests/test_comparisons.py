"""Comparisons of the claims: fair, paired, resumable, and verdicts that follow from intervals."""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch

import alexnet
from alexnet.claims import averaging, comparison, learning, seeing, tables, trial
from alexnet.claims.architecture import AS_PAPER, SMALL
from alexnet.claims.catalogue import CLAIMS
from alexnet.claims.changes import with_biases, with_tanh, without_layer, without_norm
from alexnet.claims.comparison import Arm, Comparison
from alexnet.claims.lab import Effect, Lab, OutOfTime, effect, t_quantile
from alexnet.claims.paired import compare_scores, search
from alexnet.claims.trial import gather, resolved, train
from alexnet.commands import claiming
from alexnet.data.statistics import measure_statistics
from alexnet.errors import UsageError
from alexnet.figures import draw_arms
from alexnet.models.zoo import model_spec
from alexnet.pages import ClaimPart, claim_row, claims_page
from alexnet.recipe import Recipe
from official import write_official

DESIGNS = {n: c.measure for n, c in CLAIMS.items() if isinstance(c.measure, Comparison)}
TINY = Recipe(
    name="claim",
    model="alexnet-28",
    channels=1,
    size=14,
    crop=14,
    steps=6,
    batch_size=16,
    opt="adamw",
    lr=3e-3,
    eval_every=0.5,
    log_every=2,
    precision="fp32",
    workers=0,
)
DECAY = Comparison(
    arms=(Arm("decay", TINY), Arm("none", TINY.replace(weight_decay=0.0))),
    varies=("weight_decay",),
    score=comparison.test_error,
    score_name="test error (%)",
    images=120,
)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_comparison_is_fair(name: str) -> None:
    """Its arms differ in all that it declares, and in nothing else."""
    design = DESIGNS[name]
    found = design.differences()
    assert found.keys() == {arm.name for arm in design.arms[1:]}
    lines = [line for of in found.values() for line in of]
    assert all(lines)
    for pattern in design.varies:
        narrowed = replace(design, varies=tuple(p for p in design.varies if p != pattern))
        with pytest.raises(UsageError, match="not a fair comparison"):
            narrowed.differences()
    for field, value in (("seed", 5), ("batch_size", 64), ("lr", 0.5), ("epochs", 3.0)):
        other = design.arms[1]
        moved = replace(other, recipe=other.recipe.replace(**{field: value}))
        with pytest.raises(UsageError, match=f"in {field}"):
            replace(design, arms=(design.arms[0], moved)).differences()


def test_what_differs_besides_is_refused(tmp_path: Path, idx_folder: Path) -> None:
    other = Arm("none", TINY.replace(weight_decay=0.0, flip=True))
    with pytest.raises(UsageError, match=r"flip \(False and True\) too, and only weight_decay may"):
        replace(DECAY, arms=(DECAY.arms[0], other))(Lab(tmp_path / "x", idx_folder, 1))
    assert not (tmp_path / comparison.STORE).exists()
    with pytest.raises(UsageError, match="the same"):
        replace(DECAY, arms=(DECAY.arms[0], Arm("twin", TINY))).differences()
    hidden = Arm("none", SMALL, without_norm)
    with pytest.raises(UsageError, match="stage 1"):
        Comparison((AS_PAPER, hidden), ("pool* kernel",), *(comparison.gap, "", 1)).differences()


def test_changes_of_networks() -> None:
    spec = list(model_spec("alexnet-2012-32", 10))
    assert len(without_norm(spec)) == len(spec) - 2
    assert [p.label for p in with_tanh(spec)].count("tanh") == 7
    labels = [p.label for p in without_layer("conv4")(spec)]
    assert "conv4" not in labels
    assert labels.count("relu") == 6
    biases = [p.bias for p in with_biases(0.0)(spec) if hasattr(p, "bias")]
    assert set(biases) == {0.0}
    net = trial.build_net(SMALL, 10, with_tanh)
    assert isinstance(net.part("tanh1"), torch.nn.Tanh)


def test_a_comparison_from_end_to_end(
    tmp_path: Path, idx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates for both arms by the held-out slice, pairs of seeds, a record; again from the store."""
    lab = Lab(tmp_path / "decay", idx_folder, 3)
    found = DECAY(lab)
    arms = found.figures["arms"]
    for arm in arms.values():
        assert {"0.001", "0.003", "0.009"} <= arm["rates"].keys()
        best = min(arm["rates"], key=lambda rate: arm["rates"][rate])
        assert arm["rate"] == float(best)
    rows = json.loads((tmp_path / comparison.STORE).read_text())["cells"]
    assert len(rows) == sum(len(arm["rates"]) for arm in arms.values()) + 3 * 2
    for row in rows:
        assert ("test" in row) == row["tested"] == (row["seed"] != comparison.CHOOSING)
    ones, others = (arm["scores"] for arm in arms.values())
    assert found.measured == pytest.approx(statistics.fmean(others) - statistics.fmean(ones))
    assert found.figures["differ"] == {"none": ["weight_decay: 0.0005 and 0.0"]}
    assert found.draw is not None
    found.draw(tmp_path)
    assert (tmp_path / "arms.png").stat().st_size > 1000

    seen: list[Any] = []
    monkeypatch.setattr(comparison, "train", lambda *a, **k: seen.append(a))
    again = DECAY(Lab(tmp_path / "other", idx_folder, 3))  # another claim, the same store
    assert again.figures == found.figures
    assert not seen
    with pytest.raises(AttributeError):  # another number of images is another cell
        DECAY(Lab(tmp_path / "other", idx_folder, 3, images=90))


def test_trainings_are_functions_of_their_cells(idx_folder: Path) -> None:
    """The same seed gives the same figures, another one others; both arms see the same batches."""
    lab = Lab(Path(), idx_folder)
    material = gather(TINY, lab, 120)
    assert len(material.train) == 120
    runs = [train(TINY.replace(seed=seed), material) for seed in (0, 0, 1)]
    assert runs[0].curve == runs[1].curve != runs[2].curve
    assert [len(run.held) for run in runs] == [2, 2, 2]
    cells = [
        trial.cell_of(recipe, gather(TINY, lab, images), change)
        for recipe, images, change in (
            (TINY, 120, None),
            (TINY.replace(seed=1), 120, None),
            (TINY, 90, None),
            (TINY, 120, with_tanh),
        )
    ]
    assert len({json.dumps(cell) for cell in cells}) == 4
    stopped = train(TINY, material, until=lambda point: point[0] >= 4)
    assert stopped.curve == runs[0].curve[:2]


def test_a_loss_that_runs_away_is_a_score(idx_folder: Path) -> None:
    recipe = TINY.replace(opt="sgd", lr=1e30)
    lost = train(recipe, gather(recipe, Lab(Path(), idx_folder), 120))
    assert not math.isfinite(lost.curve[-1][2])
    assert lost.figures(lost.material.test)["error"] == 1.0
    scores = {0.1: math.nan, 0.3: 2.0, 0.9: 3.0}
    tried = {"0.1": None, "0.3": 2.0, "0.9": 3.0}
    assert search([0.1, 0.3], lambda rates: [scores[r] for r in rates]) == (0.3, tried)


def test_rates_are_searched_past_an_end() -> None:
    """Further out while the best is at an end, so far and no further; one rate is no choice."""
    asked: list[float] = []

    def towards(best: float) -> Callable[[Sequence[float]], list[float]]:
        def scores(rates: Sequence[float]) -> list[float]:
            asked.extend(rates)
            return [abs(math.log(rate / best)) for rate in rates]

        return scores

    assert search([0.1, 0.3, 0.9], towards(0.3)) == (0.3, ANY)
    assert asked == [0.1, 0.3, 0.9]
    best, tried = search([0.1, 0.3, 0.9], towards(0.03))
    assert (best, list(tried)) == (0.0333, ["0.0111", "0.0333", "0.1", "0.3", "0.9"])
    best, tried = search([0.1, 0.3, 0.9], towards(100.0))
    assert (best, list(tried)) == (8.1, ["0.1", "0.3", "0.9", "2.7", "8.1"])
    assert search([0.1], towards(100.0)) == (0.1, ANY)


def test_student_t() -> None:
    """Against the printed tables."""
    for df, value in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)):
        assert t_quantile(df) == pytest.approx(value, abs=5e-4)
    found = effect([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high - 2.0 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "n", "printed", "verdict"),
    [
        (0.1, 3.0, 3, 2.0, "confirmed"),
        (0.1, 0.3, 3, 2.0, "confirmed"),
        (-0.3, -0.1, 3, 2.0, "contradicted"),
        (-0.5, 0.5, 3, 2.0, "not confirmed at this scale"),
        (-0.5, 2.5, 3, 2.0, "not enough seeds"),
        (-0.5, 2.5, 3, None, "not confirmed at this scale"),
        (0.1, 0.2, 2, 2.0, "not enough seeds"),
    ],
)
def test_verdicts(low: float, high: float, n: int, printed: float | None, verdict: str) -> None:
    assert Effect((low + high) / 2, low, high, n).judge(printed) == verdict


def test_scores_of_several_arms() -> None:
    scores = {"full": [10.0, 11.0, 12.0], "less": [12.0, 13.0, 14.5], "least": [14.0, 15.0, 16.5]}
    found = compare_scores("error", scores, 2.0)
    assert found.measured == pytest.approx(3 + 1 / 6)
    assert found.verdict == "confirmed"
    assert "outside" in found.finding
    ratio = compare_scores("steps", {"a": [10.0, 10, 10], "b": [60.0, 50, 70]}, 6.0, ratio=True)
    assert ratio.measured == pytest.approx((60 * 50 * 70 / 1000) ** (1 / 3))
    assert ratio.verdict == "confirmed"
    assert ratio.ci95 is not None
    assert ratio.ci95[0] < 6.0 < ratio.ci95[1]
    assert compare_scores("error", {"a": [1.0], "b": [2.0]}, None).ci95 is None


def test_scores_are_read_off_curves() -> None:
    row = {
        "curve": [[10, 0.9, 2.0], [20, 0.3, 1.0], [30, 0.2, 0.5]],
        "held_curve": [[10, 0.5, 1.0], [20, 0.31, 1.0], [30, 0.3, 1.0]],
    }
    assert learning.steps_to_a_quarter(row) == 30
    assert learning.steps_to_a_quarter({"curve": row["curve"][:2]}) == 20
    assert learning.far_from_a_quarter({"curve": row["curve"][:2]}) > 20
    assert learning.steps_to_converge(row) == 20


def test_other_light_changes_colours_alone(tree: Path) -> None:
    recipe = SMALL.replace(val_fraction=0.2)
    plain = gather(recipe, Lab(Path(), tree), 20)
    lit = gather(recipe, Lab(Path(), tree), 20, learning.relit)
    assert plain.digest != lit.digest
    before, after = (np.asarray(m.test.pixels, float) for m in (plain, lit))
    inside = (before > 40) & (after < 255)
    for one, other, within in zip(before, after, inside, strict=True):
        for channel in range(3):
            gains = (other / one.clip(1))[..., channel][within[..., channel]]
            assert np.ptp(gains) < 0.05
            assert 0.7 < gains.mean() < 1.3
    assert np.array_equal(plain.train.pixels, lit.train.pixels)


@pytest.mark.parametrize("name", ["ten-views-error", "ensemble-of-five", "pretraining"])
def test_what_is_added_up(
    name: str, tmp_path: Path, idx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end on little; the ensemble and the views are of the networks beside them."""
    monkeypatch.setattr(averaging, "SMALL", TINY)
    monkeypatch.setattr(averaging, "BRIEF", TINY)
    monkeypatch.setattr(averaging, "CROPPED", TINY.replace(crop=12))
    monkeypatch.setattr(averaging, "MEMBERS", 2)
    found = alexnet.claim(name, data=idx_folder, seeds=2, images=120, out=tmp_path)
    assert found["verdict"] == "not enough seeds"
    assert found["seeds"] == 2
    assert {len(arm["scores"]) for arm in found["figures"]["arms"].values()} == {2}
    again = alexnet.claim(name, data=idx_folder, seeds=2, images=120, out=tmp_path)
    assert again["figures"] == found["figures"]
    (row,) = found["claims"]
    assert row["measured"] == found["measured"]
    cells = json.loads((tmp_path / name / "cells.json").read_text())["cells"]
    if name == "pretraining":
        assert found["figures"]["images"]["train"] < 80
        arm = found["figures"]["arms"]["pre-trained"]
        assert sum("first_recipe" in cell for cell in cells) == len(arm["rates"]) + 2


def test_pictures_of_the_paper(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SMALL.replace(steps=2, batch_size=8, eval_every=1, val_fraction=0.2)
    monkeypatch.setattr(seeing, "SMALL", recipe)
    towers = alexnet.claim("towers-specialise", data=tree, seeds=1, out=tmp_path)
    assert all(0 <= colour <= 1 for colour in towers["figures"]["towers"][0])
    assert "random halves" in towers["finding"]
    alike = alexnet.claim("fc7-neighbours", data=tree, seeds=1, out=tmp_path)
    assert {0 <= s[0] <= 100 for s in (a["scores"] for a in alike["figures"]["arms"].values())} == {
        True
    }


def test_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idx_folder: Path) -> None:
    """What fits is measured, cheapest first; the rest says why; a second call goes on."""
    names = ("neurons", "parameters", "weight-decay", "table-1", "bias-one")
    some = {name: CLAIMS[name] for name in names}
    some["weight-decay"] = dataclasses.replace(some["weight-decay"], measure=DECAY, minutes=8)
    monkeypatch.setattr(claiming, "CLAIMS", some)
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "cifar10").symlink_to(idx_folder)
    options: dict[str, Any] = {"all": True, "data": sets, "out": tmp_path / "out", "seeds": 2}
    found = alexnet.claim(budget="1m", **options)
    why = {entry["name"]: entry["why"] for entry in found["left"]}
    assert why.keys() == {"weight-decay", "table-1", "bias-one"}
    assert "more than is left" in why["weight-decay"]
    assert "not there" in why["bias-one"]
    verdicts = {row["name"]: row["verdict"] for row in found["claims"]}
    assert verdicts["neurons"] == "contradicted"
    assert verdicts["weight-decay"] == "not measured"
    assert found["claims"][0].keys() >= {"name", "paper", "measured", "ci95", "verdict", "needs"}

    after = json.loads((tmp_path / "out/neurons/claim.json").read_text())
    found = alexnet.claim(budget="9m", **options)
    assert [entry["name"] for entry in found["left"]] == ["bias-one", "table-1"]
    assert json.loads((tmp_path / "out/neurons/claim.json").read_text()) == after
    (tmp_path / "out/neurons/claim.json").unlink()
    listed = {row["name"]: row for row in alexnet.claim(out=tmp_path / "out")["claims"]}
    assert listed["neurons"]["verdict"] == "not measured"
    assert listed["neurons"]["measured"] is None


def test_a_deadline_stops_between_cells(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "x", deadline=-math.inf)
    with pytest.raises(OutOfTime):
        lab.measure([{"i": 1}], lambda cell: {})
    assert Lab(tmp_path / "x").measure([{"i": 1}], lambda cell: {"j": 2})[0]["j"] == 2
    assert lab.measure([{"i": 1}], lambda cell: {})[0]["j"] == 2  # what is there costs nothing


def test_statistics_are_of_the_images_that_train(idx_folder: Path) -> None:
    material = gather(resolved(TINY), Lab(Path(), idx_folder), 120)
    own = measure_statistics(material.train.read, np.arange(120), colours=False, mean_image=False)
    assert material.statistics.mean == own.mean


@pytest.mark.parametrize("kind", ["ILSVRC2010", "ILSVRC2012"])
def test_a_table_from_archives_to_its_record(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives of the official shapes, packed, trained, ten views, two networks and their mean; and
    a second call that trains nothing."""
    packed = tmp_path / "packed"
    archives = write_official(tmp_path / "archives", kind)
    alexnet.data_pack(archives, out=packed, size=16, expect={"train": 18, "val": 5, "test": 3})
    small = TINY.replace(name="paper", channels=3, size=16, crop=14, steps=3, batch_size=4)
    recipe = small.replace(normalize="image", colour=0.1)
    name = {"ILSVRC2010": "table-1", "ILSVRC2012": "table-2"}[kind]
    year = kind.replace("C", "C-")
    claim = replace(CLAIMS[name], measure=partial(tables.table, lambda: recipe, year))
    monkeypatch.setitem(CLAIMS, name, claim)
    found = alexnet.claim(name, data=packed, seeds=2, out=tmp_path / "out")
    assert [row["n"] for row in found["figures"]["networks"]] == [3 if "2010" in kind else 5] * 2
    assert found["figures"]["estimate"]["hours"] > 0
    assert found["verdict"] in ("confirmed", "not confirmed at this scale")
    assert 0 <= found["measured"] <= 100
    assert list(found["figures"]["errors"]) == ["one", "together"]
    run = tmp_path / "out" / name / "seed-1"
    before = (run / "metrics.jsonl").read_bytes()
    alone = alexnet.test(run, views=10, split="test" if "2010" in kind else "val", with_seen=True)
    assert alone["top1"] == found["figures"]["networks"][1]["top1"]
    lines = len(before.splitlines())
    again = alexnet.claim(name, data=packed, seeds=2, out=tmp_path / "out")
    assert again["measured"] == found["measured"]
    events = [json.loads(x)["event"] for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert events[lines:] == ["test"]


def test_the_page(tmp_path: Path) -> None:
    """Self-contained; what has no record says so; nothing in a record becomes markup."""
    record = replace(alexnet.claim("neurons", out=tmp_path), finding="<script>x</script>")
    draw_arms({"a": [1.0, 2.0]}, {}, tmp_path / "arms.png", "error")
    rows = [
        ClaimPart(row, record, [tmp_path / "arms.png"]) if row.name == "neurons" else ClaimPart(row)
        for row in alexnet.claim(out=tmp_path).claims
    ]
    page = claims_page(rows)
    assert page == claims_page(rows)
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:image/webp;base64,|data:,|#)", page)
    assert all(f'<h2 id="{name}">' in page for name in CLAIMS)
    assert page.replace("\N{NO-BREAK SPACE}", " ").count("not measured") == 2 * (len(CLAIMS) - 1)
    measured = {part.row.name: claim_row(part)[2] for part in rows}
    assert measured["neurons"] == "659,272 neurons"
    assert measured["depth"] == ""
    for name in ("table-1", "table-2"):
        for system, (top1, _) in CLAIMS[name].published.items():
            assert system in page
            assert f"{top1:.1f}" in page


def test_tables_need_their_data() -> None:
    assert tables.PUBLISHED.keys() == tables.OFFICIAL.keys()
    assert CLAIMS["table-1"].printed == tables.PUBLISHED["ILSVRC-2010"]["CNN (paper, table 1)"][0]
    assert CLAIMS["table-2"].printed == tables.PUBLISHED["ILSVRC-2012"]["1 CNN (paper, table 2)"][0]
