"""Training from weights in a file: its shapes, what is refused, and nothing in it is executed."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import alexnet
from alexnet.cli import main
from alexnet.errors import CheckpointError
from alexnet.recipe import Recipe
from alexnet.runs import read_weights
from alexnet.training import build_net, take_weights
from conftest import read_events
from short_runs import (
    QUICK,
    Cut,
    assert_same_end,
    at_each_line,
    cut_at,
    model_file,
    same_bits,
    saved,
    small_net,
)
from short_runs import no_pictures as no_pictures  # around every test here


def given_weights() -> dict[str, Tensor]:
    """Weights as `digits` wants them for ten classes, of another seed."""
    recipe = Recipe(model="alexnet-28", channels=1, size=28, crop=28, seed=77)
    return {k: v.clone().contiguous() for k, v in build_net(recipe, 10).state_dict().items()}


def test_weights_from_a_safetensors_file(idx_folder: Path, tmp_path: Path) -> None:
    weights, run = given_weights(), tmp_path / "run"
    save_file(weights, tmp_path / "w.safetensors")
    fields = QUICK | {"init": tmp_path / "w.safetensors"}
    alexnet.train("digits", data=idx_folder, run=run, **fields)
    assert same_bits(load_file(model_file(run, "step-0")), weights)
    content = (tmp_path / "w.safetensors").read_bytes()
    expected = {"path": str(fields["init"]), "sha256": hashlib.sha256(content).hexdigest()}
    assert saved(run)["init"] == expected


def test_weights_from_a_torch_file_in_its_usual_shapes(tmp_path: Path) -> None:
    weights = given_weights()
    parallel = {f"module.{k}": v for k, v in weights.items()}
    shapes: list[Any] = [
        weights,
        parallel,
        {"state_dict": weights, "epoch": 90, "arch": "alexnet"},
        {"state_dict": parallel, "best_acc1": 0.5},
        {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    ]
    for i, shape in enumerate(shapes):
        for legacy in (False, True):
            path = tmp_path / f"{i}.pth"
            torch.save(shape, path, _use_new_zipfile_serialization=not legacy)
            assert same_bits(read_weights(path), weights), (i, legacy)


def test_weights_with_torchvisions_names_expect_its_normalisation(
    tree: Path, tmp_path: Path
) -> None:
    """Where the recipe is chosen and nobody says otherwise."""
    path, run = tmp_path / "w.pth", tmp_path / "run"
    weights = {"features.3.weight": torch.zeros(192, 64, 5, 5), "fc8.weight": torch.zeros(3, 256)}
    torch.save(weights, path)
    fields = {"steps": 1, "batch_size": 2, "size": 64, "crop": 64, "doctor": "off", "workers": 0}

    def normalize(**more: Any) -> str:
        found: list[str] = []

        def look(line: str) -> None:
            if line.startswith("weights: "):  # what it is to be is written, and no step is report
                found.append(saved(run)["recipe"]["normalize"])
                raise Cut

        with at_each_line(look), pytest.raises(Cut):
            alexnet.train(data=tree, init=path, run=run, precision="fp32", **{**fields, **more})
        return found[0]

    assert normalize(model="alexnet-2014") == "torchvision"
    assert normalize(model="alexnet-28", size=28, crop=28) == "std"
    assert normalize(model="alexnet-28", size=28, crop=28, normalize="mean") == "mean"


def test_a_run_from_a_torch_file_starts_there(idx_folder: Path, tmp_path: Path) -> None:
    weights, run = given_weights(), tmp_path / "run"
    wrapped = {"state_dict": {f"module.{k}": v for k, v in weights.items()}}
    torch.save(wrapped, tmp_path / "w.pth")
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run), "--steps", "1"]
    assert main([*argv, "--init", str(tmp_path / "w.pth"), "--batch-size", "8"]) == 0
    assert same_bits(load_file(model_file(run, "step-0")), weights)


@pytest.mark.parametrize("freeze", [(), ("conv1..conv2",)])
def test_a_run_from_given_weights_goes_on_without_them(
    freeze: tuple[str, ...], idx_folder: Path, tmp_path: Path
) -> None:
    """With validations on both sides of the cut."""
    path = tmp_path / "w.safetensors"
    save_file(given_weights(), path)
    fields = QUICK | {"steps": 5, "save_every": 1, "init": path, "data": idx_folder}
    fields |= {"freeze": freeze, "part_lr": ("fc8=10",), "bias_lr": 2.0, "eval_every": 2 / 67}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    alexnet.train("digits", run=whole, **fields)
    cut_at(4, "digits", run=cut, **fields)
    path.unlink()
    alexnet.train(resume=True, run=cut)
    assert [e["step"] for e in read_events(cut) if e["event"] == "resume"] == [3]
    assert_same_end(cut, whole)


class Program:
    """What unpickles by running a command; here it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("how", ["pickle", "torch", "legacy"])
def test_a_pickle_that_is_a_program_is_not_run(
    how: str, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, marker = tmp_path / "w.pt", tmp_path / "executed"
    content = {"conv1.weight": torch.zeros(32, 1, 3, 3), "more": Program(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Program(marker), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    run = tmp_path / "run"
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run)]
    assert main([*argv, "--steps", "1", "--init", str(path)]) == 2
    said = capsys.readouterr().err
    assert not marker.exists()
    assert "is no file of weights" in said
    assert said.count("\n") == 1
    assert not run.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists(), "it would have run"


def damaged(kind: str, folder: Path) -> Path:
    """A weight file of each bad kind."""
    weights = given_weights()
    path = folder / ("w.safetensors" if kind == "cut safetensors" else "w.pth")
    if kind == "cut safetensors":
        save_file(weights, path)
    elif kind == "no number":
        weights["fc7.weight"][3, 5] = float("nan")
        torch.save(weights, path)
    elif kind == "infinite":
        weights["bn2.running_var"][0] = float("inf")
        torch.save(weights, path)
    elif kind == "another net":
        torch.save({f"features.{k}": v for k, v in weights.items()}, path)
    elif kind == "biases alone":
        torch.save({k: v for k, v in weights.items() if v.dim() == 1}, path)
    elif kind == "no tensors":
        torch.save({"epoch": 3, "state_dict": {"lr": 0.1}}, path)
    elif kind == "a list":
        torch.save(list(weights.values()), path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"<html>404: not found</html>\n" * 40)
    elif kind != "missing":
        torch.save(weights, path)
    if kind.startswith("cut"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "is missing"),
        ("cut safetensors", "is damaged"),
        ("cut torch", "is no file of weights"),
        ("empty", "is no file of weights"),
        ("text", "is no file of weights"),
        ("no tensors", "holds no state dict"),
        ("a list", "holds no state dict"),
        ("another net", "no weight fits"),
        ("biases alone", "no weight fits"),
        ("no number", "fc7.weight holds numbers that are not finite"),
        ("infinite", "bn2.running_var holds numbers that are not finite"),
    ],
)
def test_files_that_are_no_weights_are_refused_in_one_line(
    kind: str, words: str, tmp_path: Path
) -> None:
    """Read and put into the network, which is all that `train` does with them."""
    path = damaged(kind, tmp_path)
    model = build_net(Recipe(model="alexnet-28", channels=1, size=28, crop=28), 10)

    def start() -> None:
        take_weights(model, read_weights(path), str(path))

    with pytest.raises(CheckpointError) as caught:
        start()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("kind", ["missing", "another net", "no number"])
def test_the_command_line_refuses_bad_weights_and_leaves_no_run(
    kind: str, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = damaged(kind, tmp_path), tmp_path / "run"
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run), "--steps", "1"]
    assert main([*argv, "--init", str(path), "--batch-size", "8"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("alexnet: ")] == said[-1:]
    assert not run.exists()


def test_a_refused_network_is_left_as_it_was() -> None:
    model = small_net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bad = {k: torch.full_like(v, 2) for k, v in before.items()}
    bad["fc5.bias"][0] = float("nan")
    with pytest.raises(CheckpointError):
        take_weights(model, bad, "bad")
    assert same_bits(model.state_dict(), before)


def test_what_became_of_each_tensor_is_said() -> None:
    model = small_net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    given = {k: torch.full_like(v, 3) for k, v in before.items() if not k.startswith("fc4")}
    given |= {"fc5.weight": torch.zeros(9, 7), "fc6.weight": torch.zeros(2, 2)}
    report = take_weights(model, given, "there")
    assert report.initialised == [
        "fc4.weight",
        "fc4.bias",
        "fc5.weight ((3, 7), (9, 7) in the file)",
    ]
    assert report.left == ["fc6.weight"]
    assert sorted(report.copied) == sorted(before.keys() - {"fc4.weight", "fc4.bias", "fc5.weight"})
    for name, value in model.state_dict().items():
        assert torch.equal(value, given[name] if name in report.copied else before[name]), name
    said = str(report)
    assert said.startswith(f"{len(report.copied)} tensors taken; made anew: fc4.weight, fc4.bias")
    assert said.endswith("; left in the file: fc6.weight")
