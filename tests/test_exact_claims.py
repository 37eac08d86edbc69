"""The claims that are counted or held against an equation: figures, and that they can be wrong."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.claims import counts, rules
from alexnet.claims.catalogue import CLAIMS
from alexnet.claims.lab import Lab, as_printed
from alexnet.data import augment
from alexnet.models.layers import Conv, Dropout
from alexnet.models.zoo import model_spec

EXACT = {claim.name: claim for claim in (*counts.CLAIMS, *rules.CLAIMS)}

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


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str, tmp_path: Path) -> None:
    found = alexnet.claim(name, out=tmp_path)
    assert found["verdict"] == ("contradicted" if name in CONTRADICTED else "confirmed")
    assert found["ci95"] is None
    assert found["seeds"] is None
    assert found["measured"] == pytest.approx(KNOWN.get(name, found["measured"]))
    again = alexnet.claim(name, out=tmp_path)
    assert (again["measured"], again["figures"]) == (found["measured"], found["figures"])
    if name == "receptive-fields":
        sides = [11, 19, 51, 67, 99, 131, 163, 195]
        assert list(found["figures"]["fields"].values()) == sides
    if name == "conv-work":
        assert sum(found["figures"]["macs"].values()) == 724_406_816


def test_another_network_is_another_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MODEL", "alexnet-one-column")
    claim = EXACT["parameters"]
    assert claim.measure(Lab(Path(), printed=claim.printed)).measured == 62_378_344
    monkeypatch.setattr(counts, "MODEL", "alexnet-2014")
    claim = EXACT["neurons"]
    assert claim.measure(Lab(Path(), printed=claim.printed)).measured != KNOWN["neurons"]


def test_a_broken_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule with something wrong in the code that it is held against."""

    def verdict(name: str) -> str:
        return EXACT[name].measure(Lab(Path(), printed=EXACT[name].printed)).verdict

    with monkeypatch.context() as patch:
        patch.setattr(rules, "PaperSGD", torch.optim.SGD)
        assert verdict("update-rule") == "contradicted"
    with monkeypatch.context() as patch:
        patch.setattr(rules, "response_norm", lambda a: alexnet.response_norm(a, divide=True))
        assert verdict("norm-equation") == "contradicted"
    with monkeypatch.context() as patch:
        patch.setattr(rules, "predict_views", one_view)
        assert verdict("ten-views-rule") == "contradicted"
    with monkeypatch.context() as patch:
        patch.setattr(rules, "PAPER", rules.PAPER.replace(colour_rule="code"))
        assert verdict("colour-covariance") == "contradicted"
    with monkeypatch.context() as patch:
        patch.setattr(augment.draws, "FLIP", augment.draws.CROP_X)  # mirrors tied to places
        assert EXACT["crops-2048"].measure(Lab(Path(), printed=2048.0)).measured < 2178
    with monkeypatch.context() as patch:
        patch.setattr(rules, "Dropout", Unhalved)
        assert verdict("dropout-halves") == "contradicted"


class Unhalved(Dropout):
    """Dropout that leaves the outputs as they are at test."""

    def build(self, given: tuple[int, ...]) -> torch.nn.Module:
        return torch.nn.Dropout(self.rate)


def one_view(*given: object) -> object:
    model, images, preprocess, _, precision = given
    from alexnet.training.evaluate import predict_views

    return predict_views(model, images, preprocess, 1, precision)  # type: ignore[arg-type]


def test_padding_makes_the_224(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = list(model_spec("alexnet-2012", 1000))
    assert isinstance(spec[0], Conv)
    wide = [replace(spec[0], kernel=7), *spec[1:]]
    monkeypatch.setattr(counts, "model_spec", lambda name, classes: wide)
    claim = EXACT["input-224"]
    assert claim.measure(Lab(Path(), printed=claim.printed)).verdict == "confirmed"


def test_digits_that_are_printed() -> None:
    assert as_printed(60_965_224, 60e6, 1) == "confirmed"
    assert as_printed(65_100_000, 60e6, 1) == "contradicted"
    assert as_printed(659_272, 650e3, 2) == "contradicted"


def test_the_list_is_long_enough() -> None:
    """25 and more, 18 and more of which need neither ImageNet nor hours; each says its needs."""
    here = [c for c in CLAIMS.values() if not c.data.startswith("ilsvrc")]
    assert len(CLAIMS) >= 25
    assert len([c for c in here if c.minutes <= 10]) >= 18
    assert all(c.needs and c.paper and c.source and c.unit for c in CLAIMS.values())
