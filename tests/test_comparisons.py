"""Comparisons of the claims: fair, paired, resumable, and verdicts that follow from intervals."""

import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch

import alexnet
from alexnet.data import open_dataset
from alexnet.errors import UsageError
from alexnet.figures import draw_arms
from alexnet.lab.claims import (
    CLAIMS,
    Arm,
    Comparison,
    Outcome,
    OutOfTime,
    Study,
    compare_scores,
    gather,
    measure_table,
    search_rate,
)
from alexnet.models import Net
from alexnet.pages import ClaimPart, claim_row, claims_page
from alexnet.recipe import Recipe
from official import write_official

DESIGNS = {n: c.measure for n, c in CLAIMS.items() if isinstance(c.measure, Comparison)}
CHOOSING = 1000  # the seed that rates are tried with
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
    score=lambda row: 100 * float(row["test"]["error"]),
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
        replace(DECAY, arms=(DECAY.arms[0], other))(Study(tmp_path / "x", idx_folder, 1))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="the same"):
        replace(DECAY, arms=(DECAY.arms[0], Arm("twin", TINY))).differences()
    pools = DESIGNS["overlapping-pools"]
    without_norm = DESIGNS["response-norm-cifar"].arms[1].change
    hidden = replace(pools.arms[1], change=without_norm)
    with pytest.raises(UsageError, match="stage 1"):
        replace(pools, arms=(pools.arms[0], hidden)).differences()


def test_changes_of_networks() -> None:
    """What the arms of the claims say that they change is what their networks lack or have."""

    def labels(claim: str, arm: int) -> list[str]:
        return [part.label for part in DESIGNS[claim].arms[arm].preset().spec(10)]

    whole, less = (labels("response-norm-cifar", arm) for arm in (0, 1))
    assert len(less) == len(whole) - 2
    assert not [label for label in less if "norm" in label]
    tanh = DESIGNS["relu-speed"].arms[1].preset()
    assert "relu" not in labels("relu-speed", 1)
    net = Net(tanh.spec(10), (3, tanh.size, tanh.size))
    assert isinstance(net.part("tanh1"), torch.nn.Tanh)
    assert "conv4" not in labels("depth", 2)
    assert labels("depth", 2).count("relu") == labels("depth", 0).count("relu") - 1 == 6
    spec = DESIGNS["bias-early"].arms[1].preset().spec(10)
    assert {part.bias for part in spec if hasattr(part, "bias")} == {0.0}


Measured = tuple[Path, Outcome]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, idx_folder: Path) -> Measured:
    """Where three seeds of the comparison were trained, and what came of it."""
    folder = tmp_path_factory.mktemp("claims")
    return folder, DECAY(Study(folder / "decay", idx_folder, 3))


def test_a_comparison_from_end_to_end(measured: Measured, tmp_path: Path, idx_folder: Path) -> None:
    """Rates for both arms by the held-out slice, pairs of seeds, a record; again from the store."""
    folder, found = measured
    arms = found.figures["arms"]
    for arm in arms.values():
        assert {"0.001", "0.003", "0.009"} <= arm["rates"].keys()
        best = min(arm["rates"], key=lambda rate: arm["rates"][rate])
        assert arm["rate"] == float(best)
    rows = json.loads((folder / "trials.json").read_text())["cells"]
    assert len(rows) == sum(len(arm["rates"]) for arm in arms.values()) + 3 * 2
    for row in rows:
        assert ("test" in row) == row["tested"] == (row["seed"] != CHOOSING)
    ones, others = (arm["scores"] for arm in arms.values())
    assert found.measured == pytest.approx(statistics.fmean(others) - statistics.fmean(ones))
    assert found.figures["differ"] == {"none": ["weight_decay: 0.0005 and 0.0"]}
    assert found.draw is not None
    found.draw(tmp_path)
    assert (tmp_path / "arms.png").stat().st_size > 1000

    # Another claim, the same store, and no time to train anything.
    other = Study(folder / "other", idx_folder, 3, deadline=-math.inf)
    assert DECAY(other).figures == found.figures
    with pytest.raises(OutOfTime):  # another number of images is another cell
        DECAY(replace(other, images=90))


def test_trainings_are_functions_of_their_cells(
    measured: Measured, tmp_path: Path, idx_folder: Path
) -> None:
    """The same seed gives the same figures, another one others; `until` cuts them."""
    _, found = measured
    arms = [
        replace(arm, recipe=arm.recipe.replace(lr=found.figures["arms"][arm.name]["rate"]))
        for arm in DECAY.arms
    ]
    again = replace(DECAY, arms=tuple(arms), rates=(1.0,))
    curves = again(Study(tmp_path / "again", idx_folder, 1)).figures["curves"]
    for name, of_seeds in found.figures["curves"].items():
        assert curves[name] == of_seeds[:1]
        assert of_seeds[0] != of_seeds[1]
    cut = replace(again, until=lambda point: point[0] >= 4)
    stopped = cut(Study(tmp_path / "cut", idx_folder, 1)).figures["curves"]
    assert stopped == {name: [of[0][:2]] for name, of in curves.items()}
    cells = json.loads((tmp_path / "trials.json").read_text())["cells"]
    keys = ("network", "recipe", "data", "seed", "until", "tested")
    assert len({tuple(cell[key] for key in keys) for cell in cells}) == len(cells) == 8


def test_a_loss_that_runs_away_is_a_score(tmp_path: Path, idx_folder: Path) -> None:
    fast = [replace(a, recipe=a.recipe.replace(opt="sgd", lr=1e30)) for a in DECAY.arms]
    design = replace(DECAY, arms=tuple(fast), rates=(1.0,))
    found = design(Study(tmp_path / "lost", idx_folder, 1))
    for name, (curve,) in found.figures["curves"].items():
        assert not math.isfinite(curve[-1][2])
        assert found.figures["arms"][name]["scores"] == [100.0]
        assert found.figures["arms"][name]["rates"] == {"1e+30": None}
    scores = {0.1: math.nan, 0.3: 2.0, 0.9: 3.0}
    tried = {"0.1": None, "0.3": 2.0, "0.9": 3.0}
    assert search_rate([0.1, 0.3], lambda rates: [scores[r] for r in rates]) == (0.3, tried)


def test_rates_are_searched_past_an_end() -> None:
    """Further out while the best is at an end, so far and no further; one rate is no choice."""
    asked: list[float] = []

    def towards(best: float) -> Callable[[Sequence[float]], list[float]]:
        def scores(rates: Sequence[float]) -> list[float]:
            asked.extend(rates)
            return [abs(math.log(rate / best)) for rate in rates]

        return scores

    assert search_rate([0.1, 0.3, 0.9], towards(0.3)) == (0.3, ANY)
    assert asked == [0.1, 0.3, 0.9]
    best, tried = search_rate([0.1, 0.3, 0.9], towards(0.03))
    assert (best, list(tried)) == (0.0333, ["0.0111", "0.0333", "0.1", "0.3", "0.9"])
    best, tried = search_rate([0.1, 0.3, 0.9], towards(100.0))
    assert (best, list(tried)) == (8.1, ["0.1", "0.3", "0.9", "2.7", "8.1"])
    assert search_rate([0.1], towards(100.0)) == (0.1, ANY)


def compared(differences: Sequence[float], printed: float | None = None) -> Outcome:
    return compare_scores("error", {"a": [0.0] * len(differences), "b": differences}, printed)


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_intervals_are_students(df: int, t: float) -> None:
    """Against the printed tables."""
    differences = [float(i % 3) for i in range(df + 1)]
    found = compared(differences)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(df + 1)
    assert found.measured == pytest.approx(mean)
    assert found.ci95 == pytest.approx((mean - t * error, mean + t * error), abs=5e-4 * error)


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
    """Of pairs whose differences have this interval."""
    mean, half = (low + high) / 2, (high - low) / 2
    # Two differences d apart from the mean have a deviation of d times the root of 2.
    d = half / 12.706 if n == 2 else half * math.sqrt(3) / 4.3027
    found = compared([mean - d, mean, mean + d] if n == 3 else [mean - d, mean + d], printed)
    assert found.ci95 == pytest.approx((low, high), abs=1e-4)
    assert found.verdict == verdict


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
    row: dict[str, Any] = {
        "curve": [[10, 0.9, 2.0], [20, 0.3, 1.0], [30, 0.2, 0.5]],
        "held_curve": [[10, 0.5, 1.0], [20, 0.31, 1.0], [30, 0.3, 1.0]],
    }
    speed, short = DESIGNS["relu-speed"], {"curve": row["curve"][:2]}
    assert speed.score(row) == 30  # steps to a quarter
    assert speed.score(short) == 20  # all there were
    assert speed.choose(short) > 20  # and more the further away it still is
    assert DESIGNS["dropout-iterations"].score(row) == 20  # steps to converge


def test_other_light_changes_colours_alone(tree: Path) -> None:
    recipe = DESIGNS["colour-noise"].arms[0].recipe.replace(val_fraction=0.2)
    relit = DESIGNS["colour-noise"].alter_test
    plain = gather(recipe, Study(Path(), tree), 20)
    lit = gather(recipe, Study(Path(), tree), 20, relit)
    assert plain.digest != lit.digest
    before, after = (np.asarray(m.test.pixels, float) for m in (plain, lit))
    inside = (before > 40) & (after < 255)
    for one, other, within in zip(before, after, inside, strict=True):
        for channel in range(3):
            gains = (other / one.clip(1))[..., channel][within[..., channel]]
            assert np.ptp(gains) < 0.05
            assert 0.7 < gains.mean() < 1.3
    assert np.array_equal(plain.train.pixels, lit.train.pixels)


CROPPED = TINY.replace(crop=12)
PARTS: dict[str, dict[str, Any]] = {
    "ten-views-error": {"recipe": CROPPED},
    "ensemble-of-five": {"recipe": TINY, "members": 2},
    "pretraining": {"recipe": TINY, "brief": TINY},
}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_added_up(name: str, tmp_path: Path, idx_folder: Path) -> None:
    """End to end on little; the ensemble and the views are of the networks beside them."""
    claim: Any = CLAIMS[name]
    study = Study(tmp_path / name, idx_folder, 2, claim.printed, 120)
    found = claim.measure(study, **PARTS[name])
    assert found.verdict == "not enough seeds"
    assert {len(arm["scores"]) for arm in found.figures["arms"].values()} == {2}
    again = claim.measure(replace(study, deadline=-math.inf), **PARTS[name])
    assert again.figures == found.figures
    cells = json.loads((tmp_path / name / "cells.json").read_text())["cells"]
    if name == "pretraining":
        assert found.figures["images"]["train"] < 80
        arm = found.figures["arms"]["pre-trained"]
        assert sum("first_recipe" in cell for cell in cells) == len(arm["rates"]) + 2


def test_pictures_of_the_paper(tmp_path: Path, tree: Path) -> None:
    small = DESIGNS["depth"].arms[0].recipe
    recipe = small.replace(steps=2, batch_size=8, eval_every=1, val_fraction=0.2)
    towers, alike = (
        CLAIMS[name].measure(Study(tmp_path / name, tree, 1), recipe)  # type: ignore[call-arg]
        for name in ("towers-specialise", "fc7-neighbours")
    )
    assert all(0 <= colour <= 1 for colour in towers.figures["towers"][0])
    assert "random halves" in towers.finding
    for arm in alike.figures["arms"].values():
        assert 0 <= arm["scores"][0] <= 100


def test_a_deadline_stops_between_cells(tmp_path: Path) -> None:
    study = Study(tmp_path / "x", deadline=-math.inf)
    with pytest.raises(OutOfTime):
        study.measure([{"i": 1}], lambda cell: {})
    assert Study(tmp_path / "x").measure([{"i": 1}], lambda cell: {"j": 2})[0]["j"] == 2
    assert study.measure([{"i": 1}], lambda cell: {})[0]["j"] == 2  # what is there costs nothing


def test_statistics_are_of_the_images_that_train(idx_folder: Path) -> None:
    material = gather(TINY, Study(Path(), idx_folder), 120)
    own = material.train.read(np.arange(120)).astype(float)
    assert len(material.train) == 120
    assert material.statistics.mean == pytest.approx((own.mean(),) * len(material.statistics.mean))
    whole = open_dataset(TINY, idx_folder).statistics
    assert material.statistics.mean != whole.mean


@pytest.mark.parametrize("kind", ["ILSVRC2010", "ILSVRC2012"])
def test_a_table_from_archives_to_its_record(kind: str, tmp_path: Path) -> None:
    """Archives of the official shapes, packed, trained, ten views, two networks and their mean; and
    a second call that trains nothing."""
    packed = tmp_path / "packed"
    archives = write_official(tmp_path / "archives", kind)
    alexnet.data_pack(archives, out=packed, size=16, expect={"train": 18, "val": 5, "test": 3})
    small = TINY.replace(name="paper", channels=3, size=16, crop=14, steps=3, batch_size=4)
    recipe = small.replace(normalize="image", colour=0.1)
    study = Study(tmp_path / "out", packed, 2, printed=40.0)

    def measure() -> Outcome:
        return measure_table(lambda: recipe, kind.replace("C", "C-"), study)

    found = measure()
    assert [row["n"] for row in found.figures["networks"]] == [3 if "2010" in kind else 5] * 2
    assert found.figures["estimate"]["hours"] > 0
    assert found.verdict in ("confirmed", "not confirmed at this scale")
    assert 0 <= found.measured <= 100
    assert list(found.figures["errors"]) == ["one", "together"]
    run = tmp_path / "out" / "seed-1"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    alone = alexnet.test(run, views=10, split="test" if "2010" in kind else "val", with_seen=True)
    assert alone.top1 == found.figures["networks"][1]["top1"]
    assert measure().measured == found.measured
    after = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in after[len(lines) :]] == ["test"]


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
    # Columns of words begin at the left, sentences that begin with a number too; numbers do not.
    heads = re.findall(r'<th scope="col"(.*?)>(.*?)<', page)[:6]
    assert [name for kind, name in heads if "words" in kind] == [
        "claim", "printed", "verdict", "command",
    ]  # fmt: skip
    assert [name for kind, name in heads if not kind] == ["measured", "seeds"]
    assert page.count('<td class="words">') == 3 * len(CLAIMS)
    measured = {part.row.name: claim_row(part)[2] for part in rows}
    assert measured["neurons"] == "659,272 neurons"
    assert measured["depth"] == ""
    for name in ("table-1", "table-2"):
        for system, (top1, _) in CLAIMS[name].published.items():
            assert system in page
            assert f"{top1:.1f}" in page


@pytest.mark.parametrize(
    ("name", "system"),
    [("table-1", "CNN (paper, table 1)"), ("table-2", "1 CNN (paper, table 2)")],
)
def test_a_table_is_held_against_what_is_printed_in_it(name: str, system: str) -> None:
    assert CLAIMS[name].printed == CLAIMS[name].published[system][0]
