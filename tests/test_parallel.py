"""Several processes compute what one does, up to the order in which floats are added."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.data import Share, Split, Statistics, augment, mix, read_batch
from alexnet.errors import DataError, UsageError
from alexnet.recipe import Recipe
from alexnet.training import (
    ALONE,
    Team,
    build_net,
    build_optimizer,
    distribute,
    evaluate,
    join,
    preprocessing,
    train_step,
)
from conftest import patterns
from teams import run_team

CLASSES = 10
RANDOM = {"shift": 2, "rotate": 10.0, "flip": True, "precision": "fp32", "workers": 0}
CASES: dict[str, dict[str, Any]] = {
    "batch norm, dropout": {"model": "alexnet-28", "batch_size": 22},
    "dropout of maps": {"model": "mnist-alexnet", "batch_size": 22},
    "mixed": {
        "model": "alexnet-28",
        "batch_size": 22,
        "mixup": 1.0,
        "crop_chunk": 4,
        "class_weights": "balanced",
    },
    "accumulated": {"model": "mnist-alexnet", "batch_size": 22, "accumulate": 3, "cutmix": 1.0},
}
NEAR = 1e-3  # of a gradient's norm; rounding moves a max pool's choice now and then


def material(n: int = 130) -> Split:
    images, labels = patterns(n, CLASSES)
    return Split("train", labels.astype(np.int64), images[..., None], 28, 1)


def statistics_of(split: Split) -> Statistics:
    pixels = split.read(np.arange(len(split))).astype(np.float64)
    mean, std = (tuple(f(pixels, axis=(0, 1, 2)).tolist()) for f in (np.mean, np.std))
    return Statistics(mean, std, ())


def recipe_of(fields: dict[str, Any]) -> Recipe:
    return Recipe(channels=1, size=28, crop=28, lr=0.02, **{**RANDOM, **fields})


def learn(team: Team, fields: dict[str, Any], steps: int) -> dict[str, Any]:
    """Gradients of the first step, and weights, statistics and figures after `steps`."""
    recipe, split = recipe_of(fields), material()
    net = build_net(recipe, CLASSES)
    model = distribute(net, team)
    optimizer = build_optimizer(net, recipe)
    preprocess = preprocessing(recipe, statistics_of(split))
    sums, losses = torch.zeros(4, dtype=torch.float64), []
    weight = torch.linspace(0.5, 2, CLASSES) if recipe.class_weights != "none" else None
    share = Share(team.rank, team.ranks, recipe.accumulate)
    found: dict[str, Any] = {}
    for step in range(steps):
        batch = read_batch(split, recipe, step, share)
        args = (batch, recipe.lr, recipe, preprocess, sums, weight, team)
        losses.append(team.sum(train_step(model, optimizer, *args)).item())
        if step == 0:
            found["gradients"] = {n: p.grad.clone() for n, p in net.named_parameters()}
            found["running"] = {n: b.clone() for n, b in net.named_buffers() if "running" in n}
    return found | {"losses": losses, "sums": team.sum(sums).tolist(), "state": net.state_dict()}


def validate(team: Team) -> list[dict[str, Any]]:
    """103 images in 11 batches, in one as large, and in one that is larger."""
    recipe, split = recipe_of({"model": "alexnet-28"}), material(103)
    net = build_net(recipe, CLASSES)
    preprocess = preprocessing(recipe, statistics_of(split))
    found = []
    for batch in (10, 103, 500):
        tally = evaluate(net, split, preprocess, CLASSES, batch=batch, workers=0, team=team)
        found.append({**tally.figures(), "confusion": tally.confusion})
    return found


def learn_and_validate() -> dict[str, Any]:
    with join() as team:
        found = {name: learn(team, fields, 1) for name, fields in CASES.items()}
        again = [learn(team, CASES["batch norm, dropout"], 3) for _ in range(2)]
        return {**found, "once": again[0], "twice": again[1], "validations": validate(team)}


def furthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """How far tensors are apart, beside their size: norms, the worst of them.

    A bias before a batch norm has no gradient: what is there is rounding, and is left out.
    """
    assert found.keys() == expected.keys()
    least = 1e-5 * max((float(value.norm()) for value in expected.values()), default=0)
    return max(
        (
            float((found[name] - value).norm() / value.norm())
            for name, value in expected.items()
            if value.norm() > least
        ),
        default=0.0,
    )


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_and_validations_are_those_of_one_process(size: int, tmp_path: Path) -> None:
    """Of batches that no number of ranks here divides; and ranks hold the same bits, always. Each
    image is validated once, and the figures are the same bits as one process finds."""
    ranks = run_team(tmp_path, size, learn_and_validate)
    for name, fields in CASES.items():
        alone = learn(ALONE, fields, 1)
        for found in (rank[name] for rank in ranks):
            far = furthest(found["gradients"], alone["gradients"])
            print(f"{name}, {size} ranks: {far:.1e}")
            assert far < NEAR
            assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
            assert found["sums"] == pytest.approx(alone["sums"], rel=1e-5)
            assert furthest(found["running"], alone["running"]) < NEAR
    first = ranks[0]["once"]
    for other in [rank[turn] for rank in ranks for turn in ("once", "twice")]:
        assert other["losses"] == first["losses"]
        for name, value in first["state"].items():
            assert torch.equal(other["state"][name], value), name
    expected = validate(ALONE)
    assert [one["n"] for one in expected] == [103] * 3
    for found in [one for rank in ranks for one in zip(rank["validations"], expected, strict=True)]:
        mine, theirs = map(dict, found)
        assert torch.equal(mine.pop("confusion"), theirs.pop("confusion"))
        assert mine == theirs


def test_shares_are_the_batch() -> None:
    for size in (7, 64, 65):
        for ranks in (1, 2, 3, 5):
            for accumulate in (1, 2):
                if size < ranks * accumulate:
                    continue
                shares = [Share(r, ranks, accumulate).places(size) for r in range(ranks)]
                lengths = [len(places) for share in shares for places in share]
                assert max(lengths) - min(lengths) <= 1
                assert sorted(i for s in shares for p in s for i in p) == list(range(size))
    with pytest.raises(DataError, match="a batch of 3 images has none for some of 4 processes"):
        Share(0, 4).places(3)


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {"crop_chunk": 8}, {}])
def test_a_share_sees_what_the_batch_sees(fields: dict[str, Any]) -> None:
    """The same pixels and labels, to the bit, whoever's image is mixed in."""
    recipe, split = recipe_of({"batch_size": 19, "cutout": 5, **fields}), material()
    preprocess = preprocessing(recipe, statistics_of(split))

    def views(share: Share) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        batch, seen, others, places = read_batch(split, recipe, 3, share), [], [], []
        for piece in batch.pieces:
            rows = piece.rows
            assert batch.leaders is not None
            given = (batch.images[rows], batch.ids[rows], batch.epoch, recipe, preprocess)
            x, other, _ = mix(augment(*given, batch.leaders[rows]), batch.labels[rows], 3, recipe)
            seen.append(x[piece.before :])
            others.append(other[piece.before :])
            places += piece.places
        return torch.cat(seen), torch.cat(others), places

    whole, labels, _ = views(Share())
    plain = read_batch(split, recipe, 3)
    assert torch.equal(
        whole,
        mix(augment(plain.images, plain.ids, 0, recipe, preprocess), plain.labels, 3, recipe)[0],
    )
    for ranks, accumulate in ((2, 1), (3, 2), (1, 4)):
        for rank in range(ranks):
            seen, others, places = views(Share(rank, ranks, accumulate))
            assert torch.equal(seen, whole[places])
            assert torch.equal(others, labels[places])


def test_towers_need_their_processes() -> None:
    with pytest.raises(UsageError, match="torchrun --nproc-per-node 2"), join(2):
        pass
