"""train --tensorboard: read by TensorBoard's own reader, and without influence on the training."""

from pathlib import Path
from typing import Any

import pytest

from alexnet import commands
from conftest import read_events, without_report


def test_the_board_shows_all_and_changes_nothing(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    without_report(monkeypatch)
    fields = {**tiny, "steps": 16, "dropout": 0.5}
    for name, shown in (("shown", True), ("plain", False)):
        commands.train("digits", data=idx_folder, run=tmp_path / name, tensorboard=shown, **fields)
    assert read_events(tmp_path / "shown") == read_events(tmp_path / "plain")
    one, other = (
        (tmp_path / name / "checkpoints/last/model.safetensors").read_bytes()
        for name in ("shown", "plain")
    )
    assert one == other
    assert not (tmp_path / "plain/tensorboard").exists()

    found = accumulator.EventAccumulator(
        str(tmp_path / "shown/tensorboard"), size_guidance={"histograms": 0, "tensors": 0}
    )
    found.Reload()
    tags = found.Tags()
    assert tags["graph"]
    assert {"filters", "predictions"} == set(tags["images"])
    assert {"weights/conv1.weight", "activations/relu7"} <= set(tags["histograms"])
    assert {"train/loss", "val/acc1", "best/acc1"} <= set(tags["scalars"])
    steps = [e["step"] for e in read_events(tmp_path / "shown") if e["event"] == "val"]
    assert [e.step for e in found.Histograms("weights/conv1.weight")] == steps
    graph = found.Graph()
    assert any("conv1" in node.name for node in graph.node)
    assert "_hparams_/session_start_info" in found.summary_metadata
