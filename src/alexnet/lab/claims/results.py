"""Claims of the paper's results: ten views, five networks together, and pre-training."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.errors import DataError
from alexnet.lab.claims.architecture import IMAGES, SMALL
from alexnet.lab.claims.claim import Claim, Outcome
from alexnet.lab.claims.comparison import CHOOSING
from alexnet.lab.claims.one_training import (
    Material,
    Trained,
    cell_of,
    chosen,
    gather,
    resolved,
    train,
)
from alexnet.lab.claims.paired import compare_scores, learnt_nothing, search_rate
from alexnet.lab.claims.study import Row, Study
from alexnet.recipe import Recipe
from alexnet.support.options import option

SCORE = "test error (%)"
CROPPED = SMALL.replace(crop=28, epochs=10)
MEMBERS = 5
FEW = 100  # images of a class to fine-tune on
RATES = (1e-3, 3e-3, 1e-2)
BRIEF = SMALL.replace(epochs=30, eval_every=30, log_every=10)


def ten_views(study: Study, recipe: Recipe = CROPPED) -> Outcome:
    """The same networks on the same images, by one view and by ten."""
    recipe = resolved(recipe)
    material = gather(recipe, study, IMAGES)

    def how(cell: Row) -> Row:
        trained = train(recipe.replace(seed=cell["seed"]), material)
        return {
            "curve": trained.curve,
            "held": trained.figures(material.held),
            **{f"views_{n}": trained.figures(material.test, n)["error"] for n in (1, 10)},
        }

    cells = [cell_of(recipe.replace(seed=s), material) for s in range(study.seeds)]
    rows = study.measure(cells, how)
    scores = {
        "ten views": [100 * r["views_10"] for r in rows],
        "one view": [100 * r["views_1"] for r in rows],
    }
    curves = {"one view": [r["curve"] for r in rows]}
    differ = {"one view": ["views of each test image: 10 and 1, of the same networks"]}
    outcome = compare_scores(
        SCORE, scores, study.printed, curves=curves, differ=differ, **material.described
    )
    return with_doubts(outcome, {"the networks": rows}, material)


def ensemble(study: Study, recipe: Recipe = SMALL, members: int = MEMBERS) -> Outcome:
    """The mean of five networks' softmax outputs beside the mean of their errors."""
    recipe = resolved(recipe)
    material = gather(recipe, study, IMAGES)

    def how(cell: Row) -> Row:
        first = cell["seed"] * members
        errors, held, total = [], [], np.zeros((len(material.test), material.classes))
        for seed in range(first, first + members):
            trained = train(recipe.replace(seed=seed), material)
            outputs, error = _outputs(trained)
            total += outputs
            errors.append(error)
            held.append(trained.figures(material.held)["error"])
        wrong = total.argmax(1) != material.test.labels
        return {"errors": errors, "held": {"error": max(held)}, "together": float(wrong.mean())}

    cells = [
        cell_of(recipe.replace(seed=s), material) | {"of": members} for s in range(study.seeds)
    ]
    rows = study.measure(cells, how)
    scores = {
        "five together": [100 * r["together"] for r in rows],
        "one": [100 * statistics.fmean(r["errors"]) for r in rows],
    }
    differ = {"one": [f"networks whose outputs are averaged: {members} and 1, of the same ones"]}
    outcome = compare_scores(SCORE, scores, study.printed, differ=differ, **material.described)
    return with_doubts(outcome, {"the fives, by the worst of each": rows}, material)


def _outputs(trained: Trained) -> tuple[np.ndarray, float]:
    """Softmax outputs on test, (N, K), and the error."""
    blocks: dict[int, Tensor] = {}

    def keep(first: int, block: Tensor) -> None:
        blocks[first] = block

    error = trained.figures(trained.material.test, each=keep)["error"]
    return torch.cat([blocks[i] for i in sorted(blocks)]).double().numpy(), error


def pretraining(study: Study, recipe: Recipe = SMALL, brief: Recipe = BRIEF) -> Outcome:
    """All classes first, then few images of half of them; or these few from the beginning."""
    recipe = resolved(recipe)
    material = gather(recipe, study, IMAGES)
    if material.classes < 4:
        raise DataError(
            f"pre-training on more classes needs 4 or more, and {material.name} has "
            f"{material.classes}: name other images with {option('data')}"
        )
    few = _fewer(material)
    brief = resolved(brief).replace(batch_size=min(brief.batch_size, len(few.train)))
    before: dict[int, dict[str, Tensor]] = {}

    def weights(seed: int) -> dict[str, Tensor]:
        if seed not in before:
            before.clear()
            before[seed] = train(recipe.replace(seed=seed), material).net.state_dict()
        return before[seed]

    def how(cell: Row) -> Row:
        seed, start = cell["seed"], cell["start"]
        first_weights = weights(seed) if start == "pre-trained" else None
        trained = train(brief.replace(seed=seed, lr=cell["lr"]), few, weights=first_weights)
        row = {"curve": trained.curve, "held": trained.figures(few.held)}
        return row | ({"test": trained.figures(few.test)} if cell["tested"] else {})

    def cell(start: str, seed: int, lr: float, tested: bool) -> Row:
        cell_key = cell_of(brief.replace(seed=seed, lr=lr), few)
        cell_key |= {"start": start, "tested": tested}
        if start == "pre-trained":
            first = cell_of(recipe.replace(seed=seed), material)
            cell_key |= {f"first_{key}": first[key] for key in ("network", "recipe", "data")}
        return cell_key

    starts, rates = ("pre-trained", "from scratch"), {}
    for start in starts:

        def losses(tried: Sequence[float], start: str = start) -> list[float]:
            rows = study.measure([cell(start, CHOOSING, lr, False) for lr in tried], how)
            return [row["held"]["loss"] for row in rows]

        rates[start] = search_rate(RATES, losses)
    rows = study.measure(
        [
            cell(start, seed, rates[start][0], True)
            for seed in range(study.seeds)
            for start in starts
        ],
        how,
    )
    by_start = {start: rows[i::2] for i, start in enumerate(starts)}
    scores = {start: [100 * r["test"]["error"] for r in of] for start, of in by_start.items()}
    curves = {start: [r["curve"] for r in of] for start, of in by_start.items()}
    differ = {"from scratch": ["first weights: of a training on all classes, and drawn"]}
    outcome = compare_scores(
        SCORE,
        scores,
        study.printed,
        rates=rates,
        curves=curves,
        differ=differ,
        **few.described,
    )
    return with_doubts(outcome, by_start, few)


def with_doubts(outcome: Outcome, by_arm: dict[str, list[Row]], material: Material) -> Outcome:
    """The outcome, with what takes meaning from it: networks that learnt nothing."""
    return replace(outcome, finding=outcome.finding + learnt_nothing(by_arm, material.classes))


def _fewer(material: Material) -> Material:
    """The first half of the classes, with few training images of each; all of them were seen."""
    kept = material.classes // 2

    def half(part: Any, each: int | None = None) -> Any:
        ids = [np.flatnonzero(part.labels == k)[:each] for k in range(kept)]
        return chosen(part, np.sort(np.concatenate(ids)))

    return replace(
        material,
        classes=kept,
        train=half(material.train, FEW),
        held=half(material.held),
        test=half(material.test),
    )


def claim(name: str, paper: str, source: str, unit: str, printed: float, minutes: float,
          measure: Callable[[Study], Outcome], seeds: int) -> Claim:  # fmt: skip
    return Claim(name=name, paper=paper, source=source, unit=unit, printed=printed,
                 data="cifar10", minutes=minutes, seeds=seeds, measure=measure)  # fmt: skip


CLAIMS = (
    claim(
        "ten-views-error",
        "ten views have 1.5 points less top-1 error than one: 37.5 and 39.0 %",
        "section 6, under table 1",
        "points of test error more with one view",
        39.0 - 37.5,
        5,
        ten_views,
        5,
    ),
    claim(
        "ensemble-of-five",
        "five networks have 2.6 points less top-1 error than one: 38.1 and 40.7 %",
        "table 2",
        "points of test error more with one",
        40.7 - 38.1,
        17,
        ensemble,
        3,
    ),
    claim(
        "pretraining",
        "pre-trained on more classes and fine-tuned it has 1.7 points less: 39.0 and 40.7 %",
        "table 2",
        "points of test error more from scratch",
        40.7 - 39.0,
        7,
        pretraining,
        5,
    ),
)
