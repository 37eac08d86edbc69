"""Claims of the paper's two pictures: kernels of two towers, and neighbours in fc7."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.analysis import class_agreement, nearest_neighbours, tower_scores, towers_of
from alexnet.data import Split
from alexnet.errors import UsageError
from alexnet.lab.claims.architecture import IMAGES, SMALL
from alexnet.lab.claims.claim import Claim, Outcome
from alexnet.lab.claims.one_training import Trained, cell_of, gather, resolved, train
from alexnet.lab.claims.paired import compare_scores
from alexnet.lab.claims.results import with_doubts
from alexnet.lab.claims.study import Row, Study
from alexnet.recipe import Recipe
from alexnet.runtime import autocast
from alexnet.support.options import option

HALVES = 500  # random ways to divide the kernels in two
QUERIES, NEIGHBOURS = 1000, 6  # the paper shows six


def towers_specialise(study: Study, recipe: Recipe = SMALL) -> Outcome:
    """How far apart the colour of the two towers is, beside random halves of the same kernels."""
    recipe = resolved(recipe)
    material = gather(recipe, study, IMAGES)
    if recipe.channels != 3:
        raise UsageError(
            f"grey images have no colour to look at: name others with {option('data')}"
        )

    def how(cell: Row) -> Row:
        trained = train(recipe.replace(seed=cell["seed"]), material)
        net = trained.net
        weight = net.get_parameter(f"{net.parts['conv1']}.weight").detach().float().cpu()
        towers = [tower.colour for tower in tower_scores(weight, towers_of(net))]
        random = torch.Generator().manual_seed(0)
        halves = []
        for _ in range(HALVES):
            one, other = tower_scores(weight[torch.randperm(len(weight), generator=random)], 2)
            halves.append(abs(one.colour - other.colour))
        held = trained.figures(material.held)
        return {"towers": towers, "halves": float(np.mean(halves)), "held": held}

    rows = study.measure(
        [cell_of(recipe.replace(seed=s), material) for s in range(study.seeds)], how
    )
    scores = {
        "random halves": [row["halves"] for row in rows],
        "the towers": [abs(row["towers"][0] - row["towers"][1]) for row in rows],
    }
    towers = [row["towers"] for row in rows]
    outcome = compare_scores(
        "difference of colour between two halves of conv1",
        scores,
        study.printed,
        towers=towers,
        differ={"the towers": ["which kernels are a half: any, and those of a tower"]},
        **material.described,
    )
    return with_doubts(outcome, {"the networks": rows}, material)


def neighbours(study: Study, recipe: Recipe = SMALL) -> Outcome:
    """How many of the six nearest training images show another class, by fc7 and by pixels."""
    recipe = resolved(recipe)
    material = gather(recipe, study, IMAGES)
    keys, queries_part = material.train, material.test
    count = min(QUERIES, len(queries_part))

    def others(queries: NDArray[Any], rows: NDArray[Any]) -> float:
        ids = nearest_neighbours(queries[:count], rows, NEIGHBOURS)[1]
        return 1 - class_agreement(ids, keys.labels, queries_part.labels[:count]).share

    def how(cell: Row) -> Row:
        trained = train(recipe.replace(seed=cell["seed"]), material)
        raw = [np.asarray(part.pixels, np.float32) for part in (queries_part, keys)]
        return {
            "curve": trained.curve,
            "held": trained.figures(material.held),
            "fc7": others(compute_fc7(trained, queries_part), compute_fc7(trained, keys)),
            "pixels": others(*raw),
        }

    cells = [cell_of(recipe.replace(seed=s), material) for s in range(study.seeds)]
    rows = study.measure(cells, how)
    scores = {name: [100 * row[name] for row in rows] for name in ("fc7", "pixels")}
    outcome = compare_scores(
        f"of {NEIGHBOURS} neighbours those of another class (%)",
        scores,
        study.printed,
        curves={"fc7": [row["curve"] for row in rows]},
        differ={"pixels": ["what distances are between: outputs of fc7, and pixels"]},
        **material.described,
    )
    return with_doubts(outcome, {"the networks": rows}, material)


@torch.inference_mode()
def compute_fc7(trained: Trained, part: Split) -> NDArray[np.float32]:
    """What the last hidden layer makes of every image. Shapes: (N, units of fc7)."""
    trained.net.eval()
    device, outputs = next(trained.net.parameters()).device, []
    for ids in np.array_split(np.arange(len(part)), -(-len(part) // 500)):
        images = torch.from_numpy(part.read(ids)).to(device)
        with autocast(device, trained.recipe.precision):
            crops = trained.preprocess.views(images, 1)[0]
            kept = trained.net.activations(crops, ["relu7"])[1]["relu7"]
        outputs.append(kept.float().cpu().numpy())
    return np.concatenate(outputs)


CLAIMS = (
    Claim(
        name="towers-specialise",
        paper="kernels of one tower are largely colour-agnostic, of the other colour-specific, in "
        "every run",
        source="section 6.1, figure 3",
        unit="more difference of colour (0 to 1) than between random halves",
        data="cifar10",
        minutes=3,
        seeds=5,
        picture="96 kernels of 11 x 11 pixels: the upper 48, of one GPU, are gratings and edges in "
        "grey; the lower 48, of the other, are blobs and edges in colour.",
        measure=towers_specialise,
    ),
    Claim(
        name="fc7-neighbours",
        paper="images whose fc7 outputs are near show the same things, and are not near in pixels",
        source="section 6.1, figure 4",
        unit="points more of six neighbours are of another class by pixels",
        data="cifar10",
        minutes=3,
        seeds=5,
        picture="Five test images, each with the six training images that are nearest in fc7: "
        "elephants, ships, pumpkins and dogs in other poses.",
        measure=neighbours,
    ),
)
