"""Claims on rules that the code follows, checked against the equations of the paper: exact."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.data import Preprocess, Statistics, augment, colour_noise, measure_statistics
from alexnet.lab.claims.claim import Claim, ClaimVerdict, Outcome
from alexnet.lab.claims.counts import exact
from alexnet.lab.claims.study import Study
from alexnet.models import Dropout, Linear, Net, ReLU, model_spec, narrowed, response_norm
from alexnet.recipe import Recipe
from alexnet.training import PaperSGD, predict_views

STORED, CROP = 256, 224
ROUNDING = 1e-6  # relative; float32 has 6e-8
PAPER = Recipe(model="alexnet-2012", size=STORED, crop=CROP, flip=True, colour=0.1)


def crops(study: Study, augment: Callable[..., Tensor] = augment) -> Outcome:
    """Training views of an image whose pixels say where they are: how many different ones come.

    A crop may lie in as many places as the image is larger, so a small one has the same number. Of
    n equally likely ones 20 n draws leave one out with a chance of n / e^20.
    """
    crop, stored = 8, 8 + STORED - CROP
    line = torch.arange(stored, dtype=torch.uint8)
    place = torch.stack([line[:, None].expand(-1, stored), line.expand(stored, -1)], 2)
    image = torch.cat([place, torch.zeros_like(place[:, :, :1])], 2)[None]
    plain = Preprocess(stored, crop, 3, Statistics((0.0,) * 3, (1.0,) * 3, ()), "mean")
    recipe = PAPER.replace(size=stored, crop=crop, colour=0.0)
    seen: set[tuple[float, ...]] = set()
    epoch, ids = 0, np.arange(128)
    while len(ids) * epoch < 20 * max(len(seen), 1000):
        views = augment(image.expand(len(ids), -1, -1, -1), ids, epoch, recipe, plain)
        seen |= set(map(tuple, views[:, :2, 0, [0, -1]].flatten(1).tolist()))
        epoch += 1
    far = STORED - CROP
    finding = (
        f"{len(seen):,} different ones in {epoch * len(ids):,} draws; {far} x {far} places with "
        f"mirrors would be {2 * far * far:,}, {far + 1} x {far + 1} are {2 * (far + 1) ** 2:,}"
    )
    verdict: ClaimVerdict = "confirmed" if len(seen) == study.printed else "contradicted"
    return exact(len(seen), verdict, finding)


def update_rule(study: Study, optimizer: type[torch.optim.Optimizer] = PaperSGD) -> Outcome:
    """A hundred updates by the optimiser and by the paper's two lines, in float64, the rate divided
    by ten halfway; and torch's SGD beside."""
    torch.manual_seed(0)
    start, slope = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)

    def run(kind: type[torch.optim.Optimizer]) -> Tensor:
        w = nn.Parameter(start.clone())
        steps = kind([w], lr=0.01, momentum=0.9, weight_decay=0.0005)  # type: ignore[call-arg]
        for step in range(100):
            steps.param_groups[0]["lr"] = 0.01 if step < 50 else 0.001
            w.grad = slope * w.detach().sin()
            steps.step()
        return w.detach()

    w, v = start.clone(), torch.zeros_like(start)
    for step in range(100):
        lr = 0.01 if step < 50 else 0.001
        v = 0.9 * v - 0.0005 * lr * w - lr * slope * w.sin()
        w = w + v
    ours, torchs = (float((run(k) - w).abs().max()) for k in (optimizer, torch.optim.SGD))
    finding = (
        f"after 100 updates weights differ by {ours:.1e} at most; by torch's SGD, whose velocity "
        f"holds no rate, they are {torchs:.1e} away: the rate was changed on the way"
    )
    return exact(ours, "confirmed" if ours < 1e-12 else "contradicted", finding, torch=torchs)


def equation(study: Study, norm: Callable[[Tensor], Tensor] = response_norm) -> Outcome:
    """The norm's equation written as loops, beside the layer; and what torch makes of the same
    constants."""
    torch.manual_seed(0)
    a = 30 * torch.randn(2, 12, 3, 3, dtype=torch.float64)
    b = torch.empty_like(a)
    n, alpha, beta, k, maps = 5, 1e-4, 0.75, 2.0, a.shape[1]
    for i in range(maps):
        around = range(max(0, i - n // 2), min(maps - 1, i + n // 2) + 1)
        total = sum((a[:, j] ** 2 for j in around), torch.zeros_like(a[:, 0]))
        b[:, i] = a[:, i] / (k + alpha * total) ** beta
    ours = float(((norm(a) - b) / b).abs().max())
    theirs = float(((F.local_response_norm(a, n, alpha, beta, k) - b) / b).abs().max())
    finding = (
        f"relative difference at most {ours:.1e}; where alpha is divided by n, as in torch, Caffe "
        f"and the 2012 code, {theirs:.1e}"
    )
    return exact(ours, "confirmed" if ours < ROUNDING else "contradicted", finding, torch=theirs)


def ten_views_by_hand(study: Study, predict: Callable[..., Any] = predict_views) -> Outcome:
    """Ten crops cut by hand, each through the network, outputs averaged; beside the code's."""
    torch.manual_seed(0)
    net = Net(narrowed(model_spec("alexnet-2012", 10), 16), (3, CROP, CROP)).eval()
    images = torch.randint(0, 256, (2, STORED, STORED, 3), dtype=torch.uint8)
    mean = (104.0, 117.0, 123.0)
    preprocess = Preprocess(STORED, CROP, 3, Statistics(mean, (1.0,) * 3, ()), "mean")
    pixels = images.permute(0, 3, 1, 2).float() - torch.tensor(mean)[:, None, None]
    far = STORED - CROP
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    with torch.inference_mode():
        cut = [pixels[:, :, y : y + CROP, x : x + CROP] for y, x in corners]
        views = [*cut, *(crop.flip(3) for crop in cut)]
        by_hand = torch.stack([net(view).softmax(1) for view in views]).mean(0)
        _, log_outputs = predict(net, images, preprocess, 10, "fp32")
    off = float((log_outputs.exp() - by_hand).abs().max())
    finding = f"{len(views)} views; the mean softmax outputs differ by {off:.1e} at most"
    return exact(off, "confirmed" if off < ROUNDING else "contradicted", finding)


def colour_covariance(study: Study, recipe: Recipe = PAPER) -> Outcome:
    """The covariance of 100,000 draws beside the sum of p_i p_i' (0.1 lambda_i)^2, component by
    component, of correlated random pixels."""
    random = np.random.default_rng(0)
    shared = random.normal(0, 50, (4, 64, 64, 1))
    pixels = (120 + shared + random.normal(0, (10, 15, 25), (4, 64, 64, 3))).clip(0, 255)
    stored = pixels.astype(np.uint8)
    statistics = measure_statistics(
        lambda ids: stored[ids], np.arange(len(stored)), colours=True, mean_image=False
    )
    values, vectors = statistics.components()
    n = 100_000
    drawn = colour_noise(statistics, np.arange(n), 0, recipe).double().numpy()
    covariance = vectors.T @ np.cov(drawn.T) @ vectors
    stated = (0.1 * values / 255) ** 2
    ratios = covariance.diagonal() / stated
    noise = math.sqrt(2 / n)  # of a variance from n draws, relative
    off = float(np.abs(ratios - 1).max())
    mixed = np.abs(covariance - np.diag(covariance.diagonal())) / np.sqrt(np.outer(stated, stated))
    twice = colour_noise(statistics, np.arange(n), 0, recipe).double().numpy()
    anew = colour_noise(statistics, np.arange(n), 1, recipe).double().numpy()
    right = off < 4 * noise and mixed.max() < 4 * noise and (drawn == twice).all()
    right = right and not (drawn == anew).any(1).all()
    finding = (
        f"variances along the three components are {', '.join(f'{r:.4f}' for r in ratios)} times "
        f"what is stated (chance: {noise:.4f}), correlations at most {mixed.max():.4f}; an image "
        "draws once an epoch"
    )
    return exact(off, "confirmed" if right else "contradicted", finding)


def dropout_mean(study: Study, dropout: type[Dropout] = Dropout) -> Outcome:
    """Halved outputs beside the geometric mean of all networks that dropout of one hidden layer
    makes, normalised: equal where one hidden layer is all there is, not where there are two."""
    torch.manual_seed(0)
    units, x = 6, torch.randn(5, 6, dtype=torch.float64)
    off = []
    for hidden in (1, 2):
        block = (Linear("fc", units, std=1.0), ReLU(), dropout(rescale=False))
        spec = block * hidden
        layers = [part.build((units,)).double() for part in spec]
        head = Linear("fc9", 4, std=1.0).build((units,)).double()
        drops = [layer for p, layer in zip(spec, layers, strict=True) if isinstance(p, Dropout)]
        logs = []
        for kept in itertools.product((0.0, 1.0), repeat=units * hidden):
            masks = iter(torch.tensor(kept, dtype=torch.float64).view(hidden, units))
            z = x
            for layer in layers:
                z = z * next(masks) if layer in drops else layer(z)
            logs.append(head(z).log_softmax(1))
        mean = torch.stack(logs).mean(0).softmax(1)
        halved = head(nn.Sequential(*layers).eval()(x)).softmax(1)
        off.append(float((halved - mean).abs().max().detach()))
    finding = (
        f"of {2**units} networks with one hidden layer the mean is met to {off[0]:.1e}, of "
        f"{4**units:,} with two to {off[1]:.2g}"
    )
    return exact(off[0], "confirmed" if off[0] < 1e-12 else "contradicted", finding, two=off[1])


def label_bits(study: Study) -> Outcome:
    classes = model_spec("alexnet-2012", 1000)[-1]
    assert isinstance(classes, Linear)
    bits = math.log2(classes.out)
    verdict: ClaimVerdict = "confirmed" if round(bits) == study.printed else "contradicted"
    return exact(bits, verdict, f"the logarithm of {classes.out:,} classes to base 2")


CLAIMS = (
    Claim(
        name="crops-2048",
        paper="crops of 224 from 256 pixels and mirrors enlarge the training set 2048 times",
        source="section 4.1",
        unit="different views of an image",
        printed=2048,
        measure=crops,
    ),
    Claim(
        name="update-rule",
        paper="v <- 0.9 v - 0.0005 e w - e g; w <- w + v",
        source="section 5",
        unit="largest difference of a weight after 100 updates",
        printed=0,
        measure=update_rule,
    ),
    Claim(
        name="norm-equation",
        paper="response norm divides by (k + alpha sum of squares)^beta; k 2, n 5, 1e-4, 0.75",
        source="section 3.3",
        unit="largest relative difference from the equation",
        printed=0,
        measure=equation,
    ),
    Claim(
        name="ten-views-rule",
        paper="four corners, the centre and their mirrors; the softmax outputs are averaged",
        source="section 4.1",
        unit="largest difference of a probability",
        printed=0,
        measure=ten_views_by_hand,
    ),
    Claim(
        name="colour-covariance",
        paper="p_i times a_i lambda_i is added, a_i from N(0, 0.1), drawn once an image and use",
        source="section 4.1",
        unit="largest relative difference of a variance",
        printed=0,
        measure=colour_covariance,
    ),
    Claim(
        name="dropout-halves",
        paper="outputs times 0.5 approximate the geometric mean of the dropout networks",
        source="section 4.2",
        unit="largest difference of a probability, one hidden layer",
        printed=0,
        measure=dropout_mean,
    ),
    Claim(
        name="ten-bits",
        paper="1000 classes impose 10 bits of constraint on the mapping from image to label",
        source="section 4",
        unit="bits",
        printed=10,
        measure=label_bits,
    ),
)
