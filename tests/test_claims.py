"""`alexnet claim`: what is measured is kept, and a verdict follows from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.claims import bias_one
from alexnet.claims.lab import Lab
from alexnet.cli import main
from alexnet.errors import UsageError
from alexnet.models.zoo import model_spec, narrowed


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """bias-one on little, one network of each kind of logits."""
    axes = {**bias_one.AXES, "optimizer": ("Adam",), "std": (0.01,), "fc_bias": (1.0,)}
    for name, value in (("AXES", axes), ("STEPS", 3), ("BATCH", 4), ("HELD", 8), ("IMAGES", 12)):
        monkeypatch.setattr(bias_one, name, value)


def test_bias_one_measures_once(
    quick: None, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record, the pictures, and a second call that takes what the first one measured."""
    found = alexnet.claim("bias-one", data=tree, seeds=1, out=tmp_path)
    record = json.loads((tmp_path / "bias-one" / "claim.json").read_text())
    assert record == {k: v for k, v in found.items() if k not in ("record", "claims")}
    assert record["verdict"] in ("confirmed", "not confirmed at this scale")
    assert len(record["figures"]["conditions"]) == 2
    assert {p.name for p in (tmp_path / "bias-one").glob("*.png")} == {"losses.png", "state.png"}
    cells = json.loads((tmp_path / "bias-one" / "cells.json").read_text())["cells"]
    assert [cell["relu_on_logits"] for cell in cells] == [False, True]
    for cell in cells:
        assert len(cell["losses"]) == 3
        assert set(cell["dead_units"]) >= {"0.relu6", "0.relu7"}
        pessimistic, fair, optimistic = (
            cell["val"][f"top1{rule}"] for rule in ("_pessimistic", "", "_optimistic")
        )
        assert pessimistic <= fair <= optimistic

    def again(*_: Any) -> Any:
        raise AssertionError("measured twice")

    monkeypatch.setattr(bias_one, "_trained", again)
    assert (
        alexnet.claim("bias-one", data=tree, seeds=1, out=tmp_path)["figures"] == found["figures"]
    )
    with pytest.raises(AssertionError, match="measured twice"):  # another seed is another cell
        alexnet.claim("bias-one", data=tree, seeds=2, out=tmp_path)


def test_networks_of_bias_one() -> None:
    """What a cell says is what its network has."""
    torch.manual_seed(0)
    cell = {"relu_on_logits": True, "fc_bias": 1.0, "std": 0.03}
    net = bias_one.network(cell, 10)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    assert float(parameters["0.fc6.bias"].mean()) == 1.0
    assert float(parameters["0.fc8.bias"].mean()) == 0.0
    assert parameters["0.conv4.weight"].std().item() == pytest.approx(0.06, rel=0.05)
    assert parameters["0.conv2.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert float(net(torch.randn(2, 3, 224, 224)).detach().min()) >= 0
    assert len(bias_one.network({**cell, "relu_on_logits": False}, 10)) == 1


def cell(cut: bool, bias: float, dead: bool) -> dict[str, Any]:
    known = {"optimizer": "Adam", "std": 0.01, "losses": [2.3] * 30}
    return {"relu_on_logits": cut, "fc_bias": bias, "dead": dead, **known}


@pytest.mark.parametrize(
    ("free", "verdict"),
    [
        ((True, False), "confirmed"),
        ((False, False), "not confirmed at this scale"),
        ((True, True), "not confirmed at this scale"),
    ],
)
def test_the_verdict_follows_from_the_cells(free: tuple[bool, bool], verdict: str) -> None:
    """`free`: whether networks with biases of 1 and of 0 die where no ReLU cuts their logits."""
    rows = [cell(False, 1.0, free[0]), cell(False, 0.0, free[1])] * 3
    rows += [cell(True, 1.0, True), cell(True, 0.0, False)] * 3
    outcome = bias_one.judge(rows, 10)
    assert outcome.verdict == verdict
    assert outcome.measured == 100 * free[0]
    assert f"{3 * free[0]} of 3 networks with FC biases of 1 died" in outcome.finding
    assert [c["dead"] for c in outcome.figures["conditions"]] == [3 * free[0], 3 * free[1], 3, 0]


def test_from_where_on_a_loss_is_stuck() -> None:
    ln_k = 2.302585
    assert bias_one._stuck_from([2.5, 2.3026, 2.4, 2.3026, 2.3026], ln_k) == 4
    assert bias_one._stuck_from([2.3026] * 3, ln_k) == 1
    assert bias_one._stuck_from([2.3026, 2.2], ln_k) is None


def test_narrowed_networks() -> None:
    """A fourth of the units everywhere but at the end, and signals of the same size."""
    spec = narrowed(model_spec("alexnet-2012", 10), 4)
    sizes = [(part.out, part.std) for part in spec if hasattr(part, "out")]  # type: ignore[attr-defined]
    assert sizes == [
        *((24, 0.01), (64, 0.02), (96, 0.02), (96, 0.02), (64, 0.02)),
        *((1024, 0.02), (1024, 0.02), (10, 0.02)),
    ]


def test_a_lab_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.claims.lab.at_once", lambda: 1)
    lab = Lab(tmp_path / "x", None, 1)
    asked: list[int] = []

    def how(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["i"] == 2 and len(asked) < 4:
            asked.append(-1)
            raise KeyboardInterrupt
        asked.append(cell["i"])
        return {"twice": 2 * cell["i"]}

    cells = [{"i": i} for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        lab.measure(cells, how)
    with pytest.raises(KeyboardInterrupt):
        lab.measure(cells, how)
    assert [row["twice"] for row in lab.measure(cells, how)] == [0, 2, 4, 6]
    assert asked == [0, 1, -1, -1, 2, 3]


def test_claim_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["claim", *out]) == 0
    assert "bias-one" in capsys.readouterr().out
    assert main(["claim", "neurons", *out]) == 0
    assert "659,272" in capsys.readouterr().out
    for argv, part in (
        (["claim", "bias-two"], "bias-one"),
        (["claim", "bias-one"], "--data"),
        (["claim", "bias-one", "--seeds", "0"], "seeds"),
        (["claim", "depth", "--images", "0"], "images"),
        (["claim", "depth", "--all"], "leave 'depth' out"),
        (["claim", "depth", "--budget", "3m"], "--all"),
        (["claim", "--all", "--budget", "3"], "30m"),
        (["claim", "table-1"], "--data"),
    ):
        assert main([*argv, *out]) == 2
        assert part in capsys.readouterr().err
    with pytest.raises(UsageError):
        alexnet.claim("none")
