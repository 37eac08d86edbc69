"""When the guard beside a training stops it, when it must not, and what a stopped run leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import alexnet
from conftest import patterns, read_events, write_idx
from shell import Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures

PLAIN: dict[str, Any] = {
    "batch_size": 8,
    "workers": 0,
    "precision": "fp32",
    "dropout": 0,
    "label_smoothing": 0,
    "shift": 0,
    "rotate": 0,
    "scale": 0,
    "cutout": 0,
    "schedule": "constant",
    "opt": "sgd",
}


def flags(**fields: object) -> list[str]:
    """Recipe fields as words of a command line."""
    return [w for k, v in fields.items() for w in (f"--{k.replace('_', '-')}", str(v))]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of ten classes, which a network knows by heart after 40 steps."""
    folder = tmp_path_factory.mktemp("data") / "few"
    write_idx(folder, "train", *patterns(120, seed=1))
    write_idx(folder, "t10k", *patterns(30, seed=2))
    return folder


@pytest.mark.usefixtures("no_pictures")
def test_who_has_learnt_all_is_left_to_decay(few: Path, tmp_path: Path, cli: Cli) -> None:
    """A loss near zero leaves nothing to move the weights but their decay, and is no fault."""
    run = tmp_path / "run"
    fields = PLAIN | {"steps": 106, "lr": 0.02, "weight_decay": 5e-3, "eval_every": 4}
    fields["log_every"] = 20
    status, out, err = cli(
        "train", "digits", "--data", few, "--run", run, "--json", *flags(**fields)
    )
    assert status == 0, err[-1]
    assert one_object(out)["step"] == 106
    assert one_object(out)["top1"] == 1
    assert [e["name"] for e in read_events(run) if e["event"] == "doctor"] == []
    assert cli("doctor", run)[0] == 0


HOPELESS = {"steps": 12, "log_every": 2, "eval_every": 9, "momentum": 0}
HOPELESS |= {"lr": 1e-12, "weight_decay": 1e12}  # the first step makes every weight zero


def test_a_stopped_run_has_its_page(few: Path, tmp_path: Path, cli: Cli) -> None:
    """Stopped before its first validation: there is a page, and no network to be tested."""
    run = tmp_path / "run"
    words = ["train", "digits", "--data", few, "--run", run, *flags(**(PLAIN | HOPELESS))]
    status, out, err = cli(*words, "--json")
    assert status == 1
    assert "loss-is-ln-k" in err[-1]
    assert f"its page: {run / 'report.html'}" in err[-1]
    assert list(one_object(out)) == ["error"]
    page = (run / "report.html").read_text()
    assert "will not learn: loss-is-ln-k" in page
    assert (run / "figures/curves.png").is_file()
    (run / "report.html").unlink()
    assert cli("report", run)[0] == 0
    assert "will not learn: loss-is-ln-k" in (run / "report.html").read_text()
    for verb in (["test", run], ["classify", run, few]):
        status, out, err = cli(*verb)
        assert (status, out, len(err)) == (2, "", 1)
        assert "no validation was made" in err[0]
        assert "--checkpoint last" in err[0]
    assert cli("test", run, "--checkpoint", "last")[0] == 0
    status, _, err = cli("train", "--resume", "--run", run)
    assert status == 1
    assert "its page" in err[-1]


def test_weights_that_burst_are_named(few: Path, tmp_path: Path, cli: Cli) -> None:
    """The loss of a step is that of the weights before it: it is no reason to stop."""
    run = tmp_path / "run"
    fields = PLAIN | {"steps": 1, "opt": "adamw", "lr": 1e39}
    status, _, err = cli("train", "digits", "--data", few, "--run", run, *flags(**fields))
    assert status == 1
    assert "conv1.weight is not finite after step 1, whose loss was 2." in err[-1]
    assert "the loss is" not in err[-1]
    assert not [e for e in read_events(run) if e["event"] == "val"]
    page = (run / "report.html").read_text()
    assert "conv1.weight is not finite at step 1" in page
    status, out, _ = cli("doctor", run)
    assert status == 1
    assert "conv1.weight is not finite at step 1, where the loss was still 2." in out


def batches(classes: int = 2) -> list[tuple[Tensor, Tensor]]:
    images, labels = patterns(64, classes)
    return [(torch.from_numpy(images).float()[:, None] / 80, torch.from_numpy(labels).long())]


def test_a_network_of_one_output_is_not_called_healthy() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    found = alexnet.diagnose(net, batches())
    assert found.healthy is None
    assert "1 output" in found.unmeasured
    assert found.layers == ()


def test_one_image_is_too_few_to_tell() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    x, y = batches()[0]
    found = alexnet.diagnose(net, [(x[:1], y[:1])])
    assert found.healthy is None
    assert found.unmeasured


def test_a_trained_network_is_not_called_decaying() -> None:
    """Of images that it knows a step leaves nothing but weight decay."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 2))
    x, y = batches()[0]
    fast = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        fast.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        fast.step()
    slow = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    found = alexnet.diagnose(net, batches(), slow)
    assert found.figures.shrinking > 0.9
    assert "decay-alone" not in [v["name"] for v in found.verdicts]
    assert found.unmeasured == ""


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_figures_is_not_called_healthy(few: Path, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    fields = PLAIN | {"steps": 1, "lr": 1e-3}
    assert cli("train", "digits", "--data", few, "--run", run, *flags(**fields))[0] == 0
    (run / "metrics.jsonl").write_text("")
    status, out, _ = cli("doctor", run, "--out", tmp_path / "page.html")
    assert status == 1
    assert "could not be told: it ended before its first line of figures" in out
    assert "could not be told" in (tmp_path / "page.html").read_text()
    assert one_object(cli("doctor", run, "--json")[1])["healthy"] is None
