"""What the doctor says of a run: by its figures afterwards, and by the sentinel as it trains."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchmarks.doctor.faults import Case
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import alexnet
from alexnet import diagnose
from alexnet.cli import main
from alexnet.diagnosis import Sentinel, first_not_finite
from conftest import read_events
from patients import case as case
from patients import said, small_net

# the figures of a run

Doctor = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def doctor(trained: Path, tmp_path: Path) -> Doctor:
    """doctor(events, classes=10): its verdicts on a run with these figures and nothing else."""
    saved = json.loads((trained / "recipe.json").read_text())
    saved["data"]["path"] = str(tmp_path / "gone")  # so that all classes count as equally frequent

    def judge(events: list[dict[str, Any]], classes: int = 10) -> list[dict[str, Any]]:
        saved["data"]["classes"] = [str(i) for i in range(classes)]
        (tmp_path / "recipe.json").write_text(json.dumps(saved))
        lines = "".join(json.dumps(event) + "\n" for event in events)
        (tmp_path / "metrics.jsonl").write_text(lines)
        return list(alexnet.doctor(tmp_path).verdicts)

    return judge


def lines(losses: list[float], every: int = 100, **more: Any) -> list[dict[str, Any]]:
    return [
        {"event": "train", "step": every * (i + 1), "loss": v, "loss_mean": v}
        | {"epoch": 1 + every * (i + 1) / 1000, "top1": 0.1, "lr": 0.01}
        | more
        for i, v in enumerate(losses)
    ]


def val_lines(losses: list[float], every: int = 100, **more: Any) -> list[dict[str, Any]]:
    return [
        {"event": "val", "step": every * (i + 1), "loss": v, "top1": 0.1, "n": 1000}
        | {"epoch": 1 + every * (i + 1) / 1000}
        | more
        for i, v in enumerate(losses)
    ]


LN10 = math.log(10)
EVEN = [0.1] * 10
GOOD = [2.2, 1.9, 1.5, 1.2, 1.0, 0.8]
RESUMED = [*lines(GOOD)[:3], {"event": "resume", "step": 300}, *lines(GOOD, lr=0.1)[3:]]
ANEW = [
    *({**e, "epoch": e["step"] / 200} for e in lines(GOOD)[:3]),
    {"event": "resume", "step": 300},
    *({**e, "epoch": 1 + e["step"] / 1000} for e in lines(GOOD)[3:]),
]
TIED = {"top5_optimistic": 1.0, "top5_pessimistic": 0.0}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (lines(GOOD, top1=0.7) + val_lines([1.8, 1.4, 1.2, 1.1], top1=0.6), None),
        ([], None),
        (lines([2.31, 2.30, 2.30]), None),  # a plateau at the beginning is how some begin
        (lines([LN10] * 8), "loss-is-ln-k"),
        (lines([2.31, 2.29, 2.28, 2.27, 2.25, 2.24, 2.23, 2.21]), None),  # falls, if slowly
        (lines([2.31, 2.30, 2.301, 2.304, 2.302, 2.303, 2.299, 2.303]), "loss-is-prior"),
        ([*lines(GOOD), {"event": "diverged", "step": 700, "loss": "nan"}], "not-finite-loss"),
        (lines(GOOD, top1=0.7) + val_lines(GOOD, top1=0.7), "validation-is-training"),
        (RESUMED, "rate-jumped"),
        (ANEW, "order-jumped"),
        (lines(GOOD, top1=0.7) + val_lines([2.0, 1.8], **TIED), "ties"),
        (lines(GOOD, top1=0.7) + val_lines([1.9, 1.2, 1.3, 1.5, 1.6, 1.8]), "overfitting"),
        (lines(GOOD, top1=0.7, data_wait=0.5), "starved-loader"),
    ],
    ids=lambda value: str(value) if isinstance(value, str | None) else "",
)
def test_what_the_figures_of_a_run_say(
    events: list[Any], expected: str | None, doctor: Doctor
) -> None:
    found = [v.name for v in doctor(events)]
    assert found[:1] == ([expected] if expected else [])


def test_a_rate_that_rises_is_no_jump(doctor: Doctor) -> None:
    *rising, last = ({**e, "lr": e["step"] / 1000} for e in lines([1.0] * 4, every=20))
    assert not doctor([*rising, {"event": "resume", "step": 60}, last])
    assert not Sentinel(small_net(), EVEN).note({"event": "resume", "step": 25})
    events = [*rising, {"event": "resume", "step": 60}, {**last, "lr": 0.6}]
    assert [v.name for v in doctor(events)] == ["rate-jumped"]


# the sentinel


def test_the_sentinel_sees_units_die(case: Case) -> None:
    net = copy.deepcopy(case.model)
    guard = Sentinel(net, EVEN, every=5)
    for step in range(16):
        if step == 7:
            nn.init.constant_(net.get_submodule("fc4").bias, -1e4)  # type: ignore[arg-type]
        with guard.look(step):
            net(case.x[:16])
        named = [(v.name, v.where) for v in guard.verdicts if v.name == "dead-units"]
        # At two looks in a row: of one batch many may be off by chance.
        assert named == ([("dead-units", "relu4")] if step == 15 else [])
    with guard.look(20):
        net(case.x[:16])
    assert guard.verdicts == []  # said once
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("rate", "name"), [(100.0, "rate-too-high"), (1e-12, "vanishing-gradient")]
)
def test_the_sentinel_sees_updates(rate: float, name: str, case: Case) -> None:
    net = copy.deepcopy(case.model)
    optimizer = torch.optim.SGD(net.parameters(), rate)
    guard = Sentinel(net, EVEN)
    with guard.look(0):
        F.cross_entropy(net(case.x[:16]), case.y[:16]).backward()
        optimizer.step()
    assert [v.name for v in guard.verdicts] == [name]


def test_functional_activations_die_too(case: Case) -> None:
    """The layer nearest to the output whose units get no gradient is where it began."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.fc2 = nn.Conv2d(1, 8, 3), nn.Linear(8 * 26 * 26, 32)
            self.fc3 = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc3(F.relu(self.fc2(F.relu(self.conv1(x)).flatten(1))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Functional()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for bias, expected in ((0.0, []), (-1e4, [("dead-units", "fc2")])):
        nn.init.constant_(net.fc2.bias, bias)
        guard = Sentinel(net, EVEN, every=1)
        for step in range(2):
            with guard.look(step):
                optimizer.zero_grad()
                F.cross_entropy(net(case.x[:32]), case.y[:32]).backward()
                optimizer.step()
        assert [(v.name, v.where) for v in guard.verdicts if v.name == "dead-units"] == expected


def test_weights_that_only_shrink(case: Case) -> None:
    """By the guard and before training, whether the decay is the optimiser's or in the loss."""
    net = nn.Sequential(copy.deepcopy(case.model), nn.Threshold(1e9, 0.0))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=5e-3)
    guard = Sentinel(net, EVEN)
    with guard.look(0):
        F.cross_entropy(net(case.x[:32]), case.y[:32]).backward()
        optimizer.step()
    assert "decay-alone" in [v.name for v in guard.verdicts]

    def with_penalty(logits: Tensor, labels: Tensor) -> Tensor:
        weights = sum(p.square().sum() for p in case.model.parameters())
        return 0.0 * F.cross_entropy(logits, labels) + 1e-3 * weights

    plain = torch.optim.SGD(case.model.parameters(), 0.1)
    found = diagnose(case.model, case.batches(), plain, loss=with_penalty)
    assert "decay-alone" in said(found)


def figures_of(top1: float, loss: float, upto: int, n: int = 64) -> list[dict[str, Any]]:
    """A line of training every twenty steps, an epoch each."""
    line = {"event": "train", "loss": loss, "loss_mean": loss, "top1": top1, "lr": 0.1, "n": n}
    return [{**line, "step": s, "epoch": s / 20} for s in range(20, upto + 1, 20)]


@pytest.mark.parametrize(
    ("top1", "loss", "severities"),
    [
        (0.1, LN10, ["note", "will not learn"]),  # said at once, stopped at the second look
        (1.0, 1e-4, ["note"]),
        (0.1, 0.5, ["note"]),
        (0.6, LN10, ["note"]),
    ],
)
def test_decay_alone_is_held_against_the_figures(
    top1: float, loss: float, severities: list[str], case: Case
) -> None:
    """Before the first figures it is said; it stops only where they show that nothing is learnt."""
    net = nn.Sequential(copy.deepcopy(case.model), nn.Threshold(1e9, 0.0))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=5e-3)
    guard, told = Sentinel(net, EVEN), []
    for step in (0, 100, 200):
        for line in figures_of(top1, loss, step)[-5:]:
            guard.note(line)
        with guard.look(step):
            optimizer.zero_grad()
            F.cross_entropy(net(case.x[:32]), case.y[:32]).backward()
            optimizer.step()
        told += [v.severity for v in guard.verdicts if v.name == "decay-alone"]
    assert told == severities


def test_steps_that_mostly_shrink_do_not_stop(case: Case) -> None:
    """Strong decay beside gradients that do come from the images may still learn."""
    net = copy.deepcopy(case.model)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, weight_decay=50.0)
    guard, told = Sentinel(net, EVEN), []
    for step in (0, 100, 200):
        for line in figures_of(0.1, LN10 + 0.1, step)[-5:]:
            guard.note(line)
        with guard.look(step):
            optimizer.zero_grad()
            F.cross_entropy(net(case.x[:32]), case.y[:32]).backward()
            optimizer.step()
        told += [(v.name, v.severity) for v in guard.verdicts]
    assert {severity for _, severity in told} <= {"learns badly", "note"}
    assert told


@pytest.mark.parametrize(
    ("share", "top1", "severity"),
    [(1.0, 0.1, "will not learn"), (0.97, 0.1, "learns badly"), (1.0, 0.9, "note")],
)
def test_units_that_are_off_stop_who_learns_nothing(
    share: float, top1: float, severity: str, case: Case
) -> None:
    """A layer that is off to its last unit, and figures at chance: one of both may be healthy."""
    net = copy.deepcopy(case.model)
    bias = net.get_submodule("fc4").bias
    assert isinstance(bias, Tensor)
    off = math.ceil(share * len(bias))
    guard = Sentinel(net, EVEN)
    with torch.no_grad():
        bias[:off] = -1e4
        bias[off:] = 1e2
    for step in (0, 100):
        for line in figures_of(top1, 2.4, step):
            guard.note(line)
        with guard.look(step):
            net(case.x[:16])
    assert [(v.where, v.severity) for v in guard.verdicts] == [("relu4", severity)]


def test_a_plateau_is_said_and_may_end(doctor: Doctor) -> None:
    guard = Sentinel(small_net(), EVEN)
    told = [v for line in figures_of(0.1, 2.303, 800) for v in guard.note(line)]
    assert [(v.name, v.severity) for v in told] == [("loss-is-prior", "learns badly")]
    (found,) = doctor(figures_of(0.1, 2.303, 800))  # of a run that has ended
    assert (found.name, found.severity) == ("loss-is-prior", "will not learn")


def test_a_loss_at_the_entropy_of_the_labels_may_have_learnt(doctor: Doctor) -> None:
    """Mixed images and smoothed labels hold the loss up; validation of six proves nothing."""
    lines = figures_of(0.95, 0.69, 800)
    assert not doctor([*lines, *val_lines([0.7], top1=0.5, n=6)], 2)
    lines = figures_of(0.5, 0.69, 800, n=4)
    right = val_lines([0.1], every=800, top1=1.0, n=6, top1_ci95=[0.61, 1.0])
    assert not doctor([*lines, *right], 2)


def test_a_rate_that_rises_has_not_had_its_steps(doctor: Doctor) -> None:
    lines = [{**e, "lr": e["step"] / 1e4} for e in figures_of(0.1, 2.303, 800)]
    assert not doctor(lines)


def test_the_means_of_an_epoch_are_taken_apart() -> None:
    """What was learnt early in an epoch does not hide that it is lost."""
    good = {"event": "train", "step": 100, "epoch": 0.1, "n": 3200, "top1": 0.9, "loss_mean": 0.3}
    bad = {"event": "train", "step": 200, "epoch": 0.2, "n": 6400, "top1": 0.5, "loss_mean": 1.31}
    guard = Sentinel(small_net(), EVEN, every=100)
    assert guard.learning() == "unknown"
    guard.note({**good, "loss": 0.3})
    assert guard.learning() == "learnt"
    guard.note({**bad, "loss": 2.3})
    assert guard.learning() == "nothing"
    guard = Sentinel(small_net(), EVEN)
    for line in lines(GOOD):
        guard.note(line)
    assert guard.learning() == "unknown"  # of how many images, nobody says


def test_a_look_is_a_line_of_the_figures(trained: Path) -> None:
    looks = [e for e in read_events(trained) if e["event"] == "look"]
    assert [e["step"] for e in looks] == [1]
    assert set(looks[0]["dead"]) >= {"relu1", "relu7"}
    assert all(0 <= share <= 1 for share in looks[0]["dead"].values())
    assert 0 < looks[0]["update"] < 1


def test_what_was_said_before_a_restart_is_not_said_again() -> None:
    events = lines([LN10] * 8)
    guard = Sentinel(small_net(), EVEN)
    told = [v for event in events for v in guard.note(event)]
    assert [v.name for v in told] == ["loss-is-ln-k"]
    again = Sentinel(small_net(), EVEN)
    said_before = {"event": "doctor", "step": 300, **told[0].to_json()}
    assert not [v for event in [*events[:3], said_before] for v in again.note(event)][1:]
    assert not again.note(events[3])


def test_where_a_number_stops_being_one(case: Case) -> None:
    x = case.x[:4].clone()
    net = copy.deepcopy(case.model).eval()
    assert first_not_finite(net, x) == "the loss"
    with torch.no_grad():
        net.get_submodule("conv2").weight.mul_(1e38)  # type: ignore[operator]
    assert first_not_finite(net, x) in ("conv2", "norm2", "conv3")
    nn.init.constant_(net.get_submodule("fc4").bias, math.nan)  # type: ignore[arg-type]
    assert first_not_finite(net, None) == "fc4.bias (a weight)"
    x[0, 0, 0, 0] = math.nan
    assert first_not_finite(copy.deepcopy(case.model), x) == "the images"


def test_a_run_that_cannot_learn_is_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], idx_folder: Path, trained: Path
) -> None:
    """A loss of exactly ln 10 three times: weights that are all zero."""
    weights = load_file(trained / "checkpoints/last/model.safetensors")
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    save_file(zeros, tmp_path / "zero.safetensors")
    run = tmp_path / "run"
    words = ["train", "digits", "--data", str(idx_folder), "--run", str(run), "--batch-size", "16"]
    words += ["--log-every", "2", "--steps", "12", "--precision", "fp32", "--lr", "1e-30"]
    words += ["--init", str(tmp_path / "zero.safetensors"), "--label-smoothing", "0"]
    assert main(words) == 1
    err = capfd.readouterr().err
    assert "stopped at step 6: loss-is-ln-k" in err
    assert "--doctor say" in err
    found = [e for e in read_events(run) if e["event"] == "doctor"]
    assert [e["name"] for e in found][-1] == "loss-is-ln-k"
    assert main(["train", "--resume", "--run", str(run)]) == 1  # a queue that tries again
    assert read_events(run)[-1] == {"event": "resume", "step": 6}
    assert main(["train", "--resume", "--run", str(run), "--doctor", "say"]) == 0
    assert read_events(run)[-1]["step"] == 12
    assert main(["doctor", str(run)]) == 1
    assert "loss-is-ln-k" in capfd.readouterr().out


def test_the_doctor_changes_no_bit(tmp_path: Path, idx_folder: Path) -> None:
    weights = []
    for mode in ("stop", "off"):
        run = tmp_path / mode
        fields = {"batch_size": 16, "steps": 3, "precision": "fp32"}
        alexnet.train("digits", data=idx_folder, run=run, doctor=mode, **fields)  # type: ignore[arg-type]
        weights.append((run / "checkpoints/last/model.safetensors").read_bytes())
    assert weights[0] == weights[1]
