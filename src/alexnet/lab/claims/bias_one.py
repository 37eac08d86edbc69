"""The question of 2018: does a bias of 1 in the fully connected layers kill the network?"""

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import figures
from alexnet.data import Preprocess, Split, open_dataset
from alexnet.diagnosis import measure_signals
from alexnet.errors import UsageError
from alexnet.lab.claims.claim import Claim, Outcome
from alexnet.lab.claims.one_training import some
from alexnet.lab.claims.study import Row, Study
from alexnet.metrics import Tally, wilson
from alexnet.models import Conv, Linear, Net, Part, model_spec, narrowed
from alexnet.recipe import Recipe
from alexnet.runtime import pick_device
from alexnet.support.options import option
from alexnet.training import PaperSGD, plain_step

SIZE, CROP, NARROW = 256, 224, 4
IMAGES, HELD = 2000, 500
STEPS, BATCH = 200, 32
RATES = {"momentum": 0.01, "Adam": 1e-3}
LEARNT = 0.95  # of ln K
FC_UNITS = ("relu6", "relu7")

AXES: dict[str, tuple[Any, ...]] = {
    "relu_on_logits": (False, True),
    "fc_bias": (0.0, 1.0),
    "optimizer": ("momentum", "Adam"),
    "std": (0.01, 0.03),
}


def measure(study: Study) -> Outcome:
    """Every combination, with each seed: 200 steps of 32 photos on a quarter of `alexnet-2012`."""
    if study.data is None:
        raise UsageError(
            f"bias-one trains on photos: name a folder of classes with {option('data')}"
        )
    recipe = Recipe(name="bias-one", model="alexnet-2012", size=SIZE, crop=CROP, channels=3)
    dataset = open_dataset(recipe, study.data)
    whole = dataset.split("train")
    train, held = some(whole, IMAGES), some(dataset.split("val"), HELD)
    measured = dataset.measure(whole, HELD)
    preprocess = Preprocess(SIZE, CROP, 3, measured, "mean")  # 0 to 255 less the mean, as in 2012
    fixed = {"data": dataset.digest, "images": len(train), "held": len(held), "crop": CROP}
    fixed |= {"steps": STEPS, "batch": BATCH, "narrow": NARROW}
    cells = [
        cell | {"rate": RATES[cell["optimizer"]], "seed": seed} | fixed
        for seed in range(study.seeds)
        for cell in (dict(zip(AXES, v, strict=True)) for v in itertools.product(*AXES.values()))
    ]
    classes = len(dataset.classes)
    rows = study.measure(cells, lambda cell: _trained(cell, train, held, preprocess, classes))
    return judge(rows, classes)


def network(cell: Row, classes: int) -> nn.Sequential:
    """The paper's network with a quarter of the units; where it differs, the cell says."""
    parts: list[Part] = []
    for part in narrowed(model_spec("alexnet-2012", classes), NARROW):
        if isinstance(part, Conv) and part.label in ("conv3", "conv4", "conv5"):
            part = replace(part, std=float(part.std) * cell["std"] / 0.01)
        if isinstance(part, Linear) and part.label != "fc8":
            part = replace(part, bias=cell["fc_bias"])
        parts.append(part)
    net = Net(parts, (3, CROP, CROP))
    return nn.Sequential(net, nn.ReLU()) if cell["relu_on_logits"] else nn.Sequential(net)


def judge(rows: list[Row], classes: int) -> Outcome:
    """Confirmed where a bias of 1 kills most networks whose logits are left alone, and 0 does not.

    Dead is a network to whose weights no gradient comes any more.
    """
    died = {
        (cut, bias): [r["dead"] for r in rows if (r["relu_on_logits"], r["fc_bias"]) == (cut, bias)]
        for cut in (False, True)
        for bias in (0.0, 1.0)
    }
    counts = {key: f"{sum(dead)} of {len(dead)}" for key, dead in died.items()}
    free = died[False, 1.0]
    low, high = wilson(sum(free), len(free))
    kills = sum(free) > max(len(free) / 2, sum(died[False, 0.0]))
    finding = (
        f"logits left alone: {counts[False, 1.0]} networks with FC biases of 1 died, and "
        f"{counts[False, 0.0]} with 0; through a ReLU: {counts[True, 1.0]} with 1, and "
        f"{counts[True, 0.0]} with 0"
    )
    ln_k = math.log(classes)
    return Outcome(
        "confirmed" if kills else "not confirmed at this scale",
        100 * sum(free) / len(free),
        (100 * low, 100 * high),
        finding,
        {
            "conditions": [_summary(name, of, ln_k) for name, of in _conditions(rows).items()],
            "ln_k": ln_k,
        },
        lambda folder: _draw(rows, ln_k, folder),
    )


def _conditions(rows: list[Row]) -> dict[str, list[Row]]:
    by_condition: dict[str, list[Row]] = {}
    for row in rows:
        cut = "ReLU on logits" if row["relu_on_logits"] else "logits free"
        name = f"{cut}, {row['optimizer']}, std {row['std']:g}, bias {row['fc_bias']:g}"
        by_condition.setdefault(name, []).append(row)
    return by_condition


def _summary(name: str, rows: list[Row], ln_k: float) -> Row:
    learnt = [_late(row) < LEARNT * ln_k for row in rows]
    return {"condition": name, "n": len(rows), "dead": sum(r["dead"] for r in rows)} | {
        "learns": sum(learnt),
        "ln_k_from": [_stuck_from(row["losses"], ln_k) for row in rows],
        "loss": [_late(row) for row in rows],
    }


def _stuck_from(losses: list[float], ln_k: float) -> int | None:
    """The step from which on the loss is ln K to the digits that are kept, if there is one."""
    free = [i for i, loss in enumerate(losses, 1) if abs(loss - ln_k) > 1e-4]
    last = free[-1] if free else 0
    return last + 1 if last < len(losses) else None


def _late(row: Row) -> float:
    return statistics.fmean(row["losses"][-20:])


def _draw(rows: list[Row], ln_k: float, folder: Path) -> None:
    panels: dict[str, list[tuple[str, list[float]]]] = {}
    for name, of in _conditions(rows).items():
        panel, _, bias = name.rpartition(", ")
        smooth = [[statistics.fmean(r["losses"][max(i - 9, 0) : i + 1])
                   for i in range(len(r["losses"]))] for r in of]  # fmt: skip
        panels.setdefault(panel, []).extend((f"FC {bias}", losses) for losses in smooth)
    figures.draw_panels(
        panels, folder / "losses.png", "Loss over steps (mean of ten)", ("ln K", ln_k)
    )
    top = "top5" if all("top5_optimistic" in row["val"] for row in rows) else "top1"
    values: dict[str, Callable[[Row], list[float]]] = {
        "deviation of the logits": lambda r: [max(r["logits_std"], 1e-9)],
        "dead units of relu6 and relu7 (%)": lambda r: [
            100 * share for name, share in r["dead_units"].items() if name[-5:] in FC_UNITS
        ],
        f"{top} (%): ties missed, shared, hit": lambda r: [
            100 * r["val"][f"{top}{rule}"] for rule in ("_pessimistic", "", "_optimistic")
        ],
    }
    columns = {
        title: {name: [value(r) for r in of] for name, of in _conditions(rows).items()}
        for title, value in values.items()
    }
    figures.draw_dots(columns, folder / "state.png", "The networks after training", {0})


def _trained(
    cell: Row, train: Split, held: Split, preprocess: Preprocess, classes: int
) -> dict[str, Any]:
    """The losses of a training, and what became of the network."""
    device = pick_device()
    torch.manual_seed(cell["seed"])
    model = network(cell, classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = cell["rate"]
    if cell["optimizer"] == "Adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), rate)
    else:
        optimizer = PaperSGD(model.parameters(), rate, 0.9, 5e-4)
    chance = torch.Generator().manual_seed(cell["seed"])
    losses: list[float] = []
    for _ in range(cell["steps"]):
        ids = torch.randint(len(train), (cell["batch"],), generator=chance)
        x, y = _batch(train, ids, preprocess)
        losses.append(float(plain_step(model, optimizer, x.to(device), y.to(device))))
        if not math.isfinite(losses[-1]):
            break
    return {"losses": [round(x, 4) for x in losses], **_state(model, held, preprocess, classes)}


def _batch(part: Split, ids: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(part.read(ids.numpy()))
    return preprocess.views(images, 1)[0], torch.from_numpy(part.labels[ids.numpy()])


def _state(
    model: nn.Sequential, held: Split, preprocess: Preprocess, classes: int
) -> dict[str, Any]:
    """What held-out images show; dead is a network through which no gradient comes any more."""
    device = next(model.parameters()).device
    x, y = (t.to(device) for t in _batch(held, torch.arange(min(64, len(held))), preprocess))
    signals = measure_signals(model, x, y, F.cross_entropy)
    tally, logits = Tally(classes), []
    model.eval()
    with torch.no_grad():
        for ids in torch.split(torch.arange(len(held)), 64):
            images, labels = (t.to(device) for t in _batch(held, ids, preprocess))
            logits.append(model(images).float())
            tally.add(logits[-1], labels, F.cross_entropy(logits[-1], labels, reduction="none"))
    evaluated = tally.figures().to_json()
    z = torch.cat(logits)
    return {
        "dead": all(not p.gradient for p in signals.parameters if len(p.shape) > 1),
        "val": {k: v for k, v in evaluated.items() if k.startswith(("n", "loss", "top"))},
        "logits_std": float(z.std()),
        "logits_zero": float((z == 0).float().mean()),
        "dead_units": {a.name: a.dead for a in signals.layers if a.kind == "ReLU"},
        "signal": {a.name: a.arrives for a in signals.layers if a.has_weights},
    }


CLAIM = Claim(
    name="bias-one",
    paper="a bias of 1 in the fully connected layers makes their ReLUs die",
    source="seeds/000 and its question of 2018; the paper, section 5, has the bias",
    unit="% of networks with these biases died, logits left alone",
    data="photos",
    minutes=45,
    seeds=3,
    measure=measure,
)
