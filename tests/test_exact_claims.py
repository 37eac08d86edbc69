"""The claims that are counted or held against an equation: figures, and that they can be wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.data import augment
from alexnet.lab.claims import CLAIMS, Claim, Outcome, Study
from alexnet.models import Conv, Dropout, model_spec
from alexnet.recipe import Recipe
from alexnet.training import predict_views

EXACT = {name: claim for name, claim in CLAIMS.items() if not claim.data}

# Worked out from the paper's own sizes, not by the code.
KNOWN = {
    "parameters": 60_965_224,
    "neurons": 55 * 55 * 96 + 27 * 27 * 256 + 13 * 13 * (384 + 384 + 256) + 4096 + 4096 + 1000,
    "neurons-conv1": 290_400,
    "conv-parameters": 100 * (3 * 3 * 256 * 384 + 384) / 60_965_224,
    "input-224": (224 - 11) // 4 + 1,
    "overlapping-shapes": 0,
    "receptive-fields": 4,
    "ilsvrc-counts": 1_261_406,
    "crops-2048": 33 * 33 * 2,
    "ten-bits": math.log2(1000),
}
CONTRADICTED = {"neurons", "neurons-conv1", "conv-parameters", "input-224", "crops-2048"}


def measure(name: str, printed: float | None = None, **parts: Any) -> Outcome:
    """A claim's study, with other parts in the place of those that it is about."""
    claim: Any = EXACT[name]
    return claim.measure(Study(Path(), printed=printed or claim.printed), **parts)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str, tmp_path: Path) -> None:
    found = alexnet.claim(name, out=tmp_path)
    assert found.verdict == ("contradicted" if name in CONTRADICTED else "confirmed")
    assert found.ci95 is None
    assert found.seeds is None
    assert found.measured == pytest.approx(KNOWN.get(name, found.measured))
    again = measure(name)
    assert (again.measured, again.figures) == (found.measured, found.figures)
    if name == "receptive-fields":
        sides = [11, 19, 51, 67, 99, 131, 163, 195]
        assert list(found.figures["fields"].values()) == sides
    if name == "conv-work":
        assert sum(found.figures["macs"].values()) == 724_406_816


def test_another_network_is_another_count() -> None:
    assert measure("parameters", model="alexnet-one-column").measured == 62_378_344
    assert measure("neurons", model="alexnet-2014").measured != KNOWN["neurons"]


def one_view(model: Any, images: Any, preprocess: Any, views: int, precision: str) -> Any:
    return predict_views(model, images, preprocess, 1, precision)


def tied_mirrors(images: Any, ids: Any, epoch: int, recipe: Recipe, preprocess: Any) -> Any:
    """Crops that are mirrored where they lie at an odd column, whatever chance says."""
    views = augment(images, ids, epoch, recipe.replace(flip=False), preprocess)
    odd = views[:, 1, 0, 0] % 2 == 1
    views[odd] = views[odd].flip(3)
    return views


class Unhalved(Dropout):
    """Dropout that leaves the outputs as they are at test."""

    def build(self, given: tuple[int, ...]) -> torch.nn.Module:
        return torch.nn.Dropout(self.rate)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("update-rule", {"optimizer": torch.optim.SGD}),
        ("norm-equation", {"norm": lambda a: alexnet.response_norm(a, divide=True)}),
        ("ten-views-rule", {"predict": one_view}),
        ("colour-covariance", {"recipe": Recipe(size=256, colour=0.1, colour_rule="code")}),
        ("dropout-halves", {"dropout": Unhalved}),
    ],
)
def test_a_broken_rule_is_seen(name: str, broken: dict[str, Any]) -> None:
    """Each rule with something wrong in the code that it is held against."""
    assert measure(name, **broken).verdict == "contradicted"


def test_fewer_views_are_counted_as_fewer() -> None:
    assert measure("crops-2048", augment=tied_mirrors).measured == 33 * 33


def test_padding_makes_the_224() -> None:
    spec = list(model_spec("alexnet-2012", 1000))
    assert isinstance(spec[0], Conv)
    wide = [replace(spec[0], kernel=7), *spec[1:]]
    assert measure("input-224", spec=wide).verdict == "confirmed"


@pytest.mark.parametrize(
    ("name", "printed", "verdict"),
    [
        ("parameters", 60e6, "confirmed"),  # 60,965,224, of which one digit is printed
        ("parameters", 65.1e6, "contradicted"),
        ("neurons", 650e3, "contradicted"),  # 659,272, of which two are
        ("neurons", 660e3, "confirmed"),
    ],
)
def test_digits_that_are_printed(name: str, printed: float, verdict: str) -> None:
    assert measure(name, printed).verdict == verdict


def test_the_list_is_long_enough() -> None:
    """25 and more, 18 and more of which need neither ImageNet nor hours; each says its needs."""
    here = [c for c in CLAIMS.values() if not c.data.startswith("ilsvrc")]
    assert len(CLAIMS) >= 25
    assert len([c for c in here if c.minutes <= 10]) >= 18
    assert all(c.needs and c.paper and c.source and c.unit for c in CLAIMS.values())


def test_the_budget(tmp_path: Path, tree: Path) -> None:
    """What fits is measured, cheapest first; the rest says why; a second call goes on. A claim of
    one's own is measured and listed like the others."""
    fields: dict[str, Any] = {"paper": "it is so", "source": "me", "unit": "times"}
    fields |= {"data": "photos", "minutes": 30, "seeds": 5}
    own = Claim(name="own", measure=lambda lab: Outcome("confirmed", 1.0, None, "yes"), **fields)
    sets, out = tmp_path / "sets", tmp_path / "out"
    sets.mkdir()
    (sets / "photos").symlink_to(tree)
    options: dict[str, Any] = {"all": True, "data": sets, "out": out, "seeds": 2}
    CLAIMS["own"] = own
    try:
        found = alexnet.claim(budget="20m", **options)
        why = {entry.name: entry.why for entry in found.left}
        assert why.keys() == CLAIMS.keys() - EXACT.keys()
        assert "more than is left" in why["own"]
        assert "more than is left" in why["bias-one"]
        assert "not there" in why["depth"]
        verdicts = {row.name: row.verdict for row in found.claims}
        assert verdicts["neurons"] == "contradicted"
        assert verdicts["own"] == "not measured"
        wanted = {"name", "paper", "measured", "ci95", "verdict", "needs"}
        assert found.claims[0].keys() >= wanted

        record = (out / "neurons/claim.json").read_bytes()
        found = alexnet.claim(budget="40m", **options)
        assert [entry.name for entry in found.left][-3:] == ["bias-one", "table-1", "table-2"]
        assert "own" not in {entry.name for entry in found.left}
        assert (out / "neurons/claim.json").read_bytes() == record
        (out / "neurons/claim.json").unlink()
        listed = {row.name: row for row in alexnet.claim(out=out).claims}
    finally:
        del CLAIMS["own"]
    assert (listed["own"].verdict, listed["own"].measured) == ("confirmed", 1.0)
    assert json.loads((out / "own/claim.json").read_text())["seeds"] == 2
    assert listed["neurons"].verdict == "not measured"
    assert listed["neurons"].measured is None
