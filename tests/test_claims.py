"""`alexnet claim`: what is measured is kept, and a verdict follows from it."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import alexnet
from alexnet.cli import main
from alexnet.errors import UsageError
from alexnet.lab.claims import CLAIMS, Outcome, OutOfTime, Study
from alexnet.models import model_spec, narrowed

Row = dict[str, Any]
BIAS_ONE = CLAIMS["bias-one"]


class Brief(Study):
    """bias-one on little, one network of each kind of logits."""

    def measure(self, cells: Any, how: Any, file: Path | None = None) -> list[Row]:
        kept = {"optimizer": "Adam", "std": 0.01, "fc_bias": 1.0}
        some = [cell | {"steps": 3, "batch": 4} for cell in cells if kept.items() <= cell.items()]
        return super().measure(some, how, file)


def test_bias_one_measures_once(tree: Path, tmp_path: Path) -> None:
    """The figures, the pictures, and a second call that takes what the first one measured."""
    study = Brief(tmp_path, tree, 1)
    found = BIAS_ONE.measure(study)
    assert found.verdict in ("confirmed", "not confirmed at this scale")
    assert len(found.figures["conditions"]) == 2
    assert found.draw is not None
    found.draw(tmp_path)
    assert {p.name for p in tmp_path.glob("*.png")} == {"losses.png", "state.png"}
    cells = json.loads((tmp_path / "cells.json").read_text())["cells"]
    assert sorted(cell["relu_on_logits"] for cell in cells) == [False, True]
    for cell in cells:
        assert len(cell["losses"]) == 3
        assert set(cell["dead_units"]) >= {"0.relu6", "0.relu7"}
        pessimistic, fair, optimistic = (
            cell["val"][f"top1{rule}"] for rule in ("_pessimistic", "", "_optimistic")
        )
        assert pessimistic <= fair <= optimistic

    again = replace(study, deadline=-math.inf)  # no time to train anything
    assert BIAS_ONE.measure(again).figures == found.figures
    with pytest.raises(OutOfTime):  # another seed is another cell
        BIAS_ONE.measure(replace(again, seeds=2))


class Asking(Study):
    """Keeps the study's cells and what measures one, and has every row made up."""

    cells: list[Row]
    how: Callable[[Row], Row]
    made_up: Callable[[Row], Row]

    def measure(self, cells: Any, how: Any, file: Path | None = None) -> list[Row]:
        self.cells, self.how = list(cells), how
        return [cell | self.made_up(cell) for cell in cells]


def asked(tree: Path, made_up: Callable[[Row], Row], seeds: int = 1) -> tuple[Asking, Outcome]:
    study = Asking(Path(), tree, seeds)
    study.made_up = made_up
    return study, BIAS_ONE.measure(study)


@pytest.fixture
def networks() -> Iterator[list[nn.Module]]:
    """Every network that is called meanwhile."""
    seen: list[nn.Module] = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: seen.append(module) if hasattr(module, "0") else None
    )
    yield seen
    hook.remove()


def test_networks_of_bias_one(tree: Path, networks: list[nn.Module]) -> None:
    """What a cell says is what its network has."""
    study, _ = asked(tree, lambda cell: {"dead": False, "losses": [1.0]})
    fixed = {"fc_bias": 1.0, "std": 0.03, "optimizer": "Adam"}
    for cut in (True, False):
        (cell,) = (c for c in study.cells if (fixed | {"relu_on_logits": cut}).items() <= c.items())
        networks.clear()
        row = study.how(cell | {"steps": 0})
        net = networks[-1]
        parameters = {name: p.detach() for name, p in net.named_parameters()}
        assert float(parameters["0.fc6.bias"].mean()) == 1.0
        assert float(parameters["0.fc8.bias"].mean()) == 0.0
        assert parameters["0.conv4.weight"].std().item() == pytest.approx(0.06, rel=0.05)
        assert parameters["0.conv2.weight"].std().item() == pytest.approx(0.02, rel=0.05)
        assert [type(module) for module in net.children()][1:] == [nn.ReLU] * cut
        assert (row["logits_zero"] > 0) is cut


@pytest.mark.parametrize(
    ("free", "verdict"),
    [
        ((True, False), "confirmed"),
        ((False, False), "not confirmed at this scale"),
        ((True, True), "not confirmed at this scale"),
    ],
)
def test_the_verdict_follows_from_the_cells(
    free: tuple[bool, bool], verdict: str, tree: Path
) -> None:
    """`free`: whether networks with biases of 1 and of 0 die where no ReLU cuts their logits."""

    def made_up(cell: Row) -> Row:
        one = cell["fc_bias"] == 1.0
        dead = one if cell["relu_on_logits"] else free[0 if one else 1]
        return {"dead": dead, "losses": [2.3] * 30}

    _, outcome = asked(tree, made_up, seeds=3)
    assert outcome.verdict == verdict
    assert outcome.measured == 100 * free[0]
    assert f"{12 * free[0]} of 12 networks with FC biases of 1 died" in outcome.finding
    dead = {row["condition"]: (row["dead"], row["n"]) for row in outcome.figures["conditions"]}
    assert len(dead) == 16
    for name, counts in dead.items():
        one, cut = name.endswith("bias 1"), name.startswith("ReLU")
        assert counts == (3 * (one if cut else free[0 if one else 1]), 3)


def test_from_where_on_a_loss_is_stuck(tree: Path) -> None:
    """At ln K, which is 1.0986 of three classes, to the digits that are kept."""
    stuck = 1.0986
    for losses, since in (
        ([1.5, stuck, 1.2, stuck, stuck], 4),
        ([stuck] * 3, 1),
        ([stuck, 1.0], None),
    ):
        _, outcome = asked(tree, lambda cell, x=losses: {"dead": False, "losses": x})
        assert {row["ln_k_from"][0] for row in outcome.figures["conditions"]} == {since}


def test_narrowed_networks() -> None:
    """A fourth of the units everywhere but at the end, and signals of the same size."""
    spec = narrowed(model_spec("alexnet-2012", 10), 4)
    sizes = [(part.out, part.std) for part in spec if hasattr(part, "out")]  # type: ignore[attr-defined]
    assert sizes == [
        *((24, 0.01), (64, 0.02), (96, 0.02), (96, 0.02), (64, 0.02)),
        *((1024, 0.02), (1024, 0.02), (10, 0.02)),
    ]


def test_a_lab_keeps_what_it_has(tmp_path: Path) -> None:
    study = Study(tmp_path / "x", None, 1, at_once=1)
    asked: list[int] = []

    def how(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["i"] == 2 and len(asked) < 4:
            asked.append(-1)
            raise KeyboardInterrupt
        asked.append(cell["i"])
        return {"twice": 2 * cell["i"]}

    cells = [{"i": i} for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        study.measure(cells, how)
    with pytest.raises(KeyboardInterrupt):
        study.measure(cells, how)
    assert [row["twice"] for row in study.measure(cells, how)] == [0, 2, 4, 6]
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
