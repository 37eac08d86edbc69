"""The paper's two towers in two processes compute what the network computes in one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.data import Share, Split, read_batch
from alexnet.errors import UsageError
from alexnet.models import find_model, model_spec
from alexnet.recipe import Recipe
from alexnet.training import (
    ALONE,
    Team,
    build_net,
    build_optimizer,
    build_towers,
    distribute,
    join,
    optimizer_tensors,
    plan_towers,
    preprocessing,
    train_step,
)
from conftest import patterns
from teams import run_team
from test_parallel import furthest, statistics_of

STEPS = 6
NEAR = {
    "logits": 1e-6,
    "gradients": 1e-5,
    "weights": 1e-4,
    "moments": 1e-2,
}  # of norms; rounding moves a pool's choice
RECIPE = Recipe(
    model="alexnet-2012-32", normalize="mean", batch_size=21, precision="fp32", lr=0.001, workers=0
)


def material() -> Split:
    images, labels = patterns(70, side=32)
    return Split("train", labels.astype(np.int64), np.stack([images] * 3, 3), 32, 3)


def learn(team: Team) -> dict[str, Any]:
    """Whole tensors, put together from the towers where there are any."""
    split, classes = material(), 10
    net = build_net(RECIPE, classes)
    towers = build_towers(net, RECIPE, classes, team)

    def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = tensors if towers is None else towers.whole(tensors)
        return {name: value.detach().clone() for name, value in found.items()}

    model, optimizer = distribute(net, team), build_optimizer(net, RECIPE)
    preprocess = preprocessing(RECIPE, statistics_of(split))
    sums, losses = torch.zeros(4, dtype=torch.float64), []
    found: dict[str, Any] = {}
    with torch.no_grad():
        x = preprocess.views(torch.from_numpy(split.read(np.arange(5))), 1)[0]
        found["logits"] = {"logits": net.eval()(x).clone()}
        net.train()
    for step in range(STEPS):
        if towers is not None:
            towers.sent = 0
        batch = read_batch(split, RECIPE, step, Share(team.rank, team.ranks))
        args = (batch, RECIPE.lr, RECIPE, preprocess, sums, None, team)
        losses.append(team.sum(train_step(model, optimizer, *args)).item())
        if step == 0:
            grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
            found["gradients"] = whole(grads)
            found["sent"] = 0 if towers is None else towers.sent
            found["images"] = len(batch.labels)
    found["weights"] = whole(net.state_dict())
    found["moments"] = whole(optimizer_tensors(optimizer, net))
    if towers is not None:
        assert all(
            torch.equal(v, net.state_dict()[n]) for n, v in towers.cut(found["weights"]).items()
        )
    return {**found, "losses": losses}


def learn_in_towers() -> dict[str, Any]:
    with join(2) as team:
        return learn(team)


@pytest.mark.parametrize("size", [2, 4])
def test_towers_are_the_network(size: int, tmp_path: Path) -> None:
    """Forward, gradients, and weights and velocities after six steps; alone and two by two."""
    alone = learn(ALONE)
    ranks = run_team(tmp_path, size, learn_in_towers)
    first = ranks[0]
    for name, near in NEAR.items():
        far = furthest(first[name], alone[name])
        print(f"{size} processes, {name}: {far:.1e}")
        assert far < near
    begun = build_net(RECIPE, 10).state_dict()
    moved = furthest(begun, alone["weights"])
    assert moved > 1e-2, "steps that move nothing prove nothing"
    for rank in ranks:
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        # maps of 32 and 32 numbers: conv3 reads 7 x 7 of 64, fc6 3 x 3 of 64, fc7 512, then 10 out
        each = 32 * 7 * 7 + 32 * 3 * 3 + 256 + 10
        assert rank["sent"] == 2 * 4 * each * rank["images"]


def test_the_papers_bytes() -> None:
    """conv3 reads the other's 128 maps of 13 x 13, fc6 its 128 of 6 x 6, fc7 its 2048 units."""
    spec = model_spec("alexnet-2012", 1000)
    plan = plan_towers("alexnet-2012", spec, (3, 224, 224), {})
    assert plan.exchanged == {"conv3": 128 * 13 * 13, "fc6": 128 * 6 * 6, "fc7": 2048, "fc8": 1000}
    assert plan.bytes_per_image() == 2 * 4 * (21632 + 4608 + 2048 + 1000)


@pytest.mark.parametrize("name", ["alexnet-bn", "caffenet", "alexnet-28", "alexnet-one-column"])
def test_networks_that_are_not_two_towers(name: str) -> None:
    preset = find_model(name)
    given = (preset.channels, preset.size, preset.size)
    with pytest.raises(UsageError, match=r"towers 2: .* does not come in two halves"):
        plan_towers(name, preset.spec(10), given, preset.keys)
