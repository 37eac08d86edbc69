"""The process of benchmarks/company.py that computes: with the code of whatever tree is in
PYTHONPATH, and only with what trees from before benches in company had too.

    PYTHONPATH=TREE/src python benchmarks/company_worker.py TASK program|library full|small [PACKED]

It prints a line of JSON that says what it is and which ways of the task it knows. Then it answers
each line of standard input, a way and seconds, with the images/s of as many calls as took so long
(one at least), after one that is not timed. It ends with its standard input.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

READERS = 2  # threads


@dataclass(frozen=True)
class Sizes:
    norm_shape: tuple[int, ...]
    trained: str
    train_batch: int
    asked: str
    ask_batch: int
    read_batch: int


SIZES = {
    # The norm's are conv1's maps for 32 images.
    "full": Sizes((32, 96, 55, 55), "alexnet-2012", 32, "alexnet-2014", 128, 128),
    "small": Sizes((4, 16, 15, 15), "cuda-convnet-11", 4, "cuda-convnet-11", 4, 16),
}

Way = Callable[[], int]
"""Does something with some images, and returns how many."""


def main() -> None:
    task, setting, size, *packed = sys.argv[1:]
    if setting == "program":  # as a command begins, before torch is loaded
        from alexnet.support.memory import keep_pages

        keep_pages()
        if importlib.util.find_spec("alexnet.support.processors"):  # a tree from before has none
            importlib.import_module("alexnet.support.processors").set_up_threads()
    import alexnet
    from alexnet.runtime import environment

    ways = {"norm": norm, "train": train, "infer": infer, "input": read}[task](SIZES[size], *packed)
    variables = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    told = {
        "ways": list(ways),
        "package": str(Path(alexnet.__file__).parent),
        "environment": environment(),
        "variables": {name: os.environ[name] for name in variables if name in os.environ},
    }
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        way, seconds = json.loads(line)
        print(json.dumps(images_per_s(ways[way], seconds)), flush=True)


def images_per_s(way: Way, seconds: float) -> float:
    way()
    images, began = 0, time.perf_counter()
    while True:
        images += way()
        if (spent := time.perf_counter() - began) >= seconds:
            return images / spent


def norm(sizes: Sizes) -> dict[str, Way]:
    """Forward and backward, each by itself; torch's own in bf16 through autocast, since it has no
    bf16 kernel on a processor."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from alexnet import response_norm

    def torchs(a: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == torch.bfloat16):
            return F.local_response_norm(a, 5, 5e-4, 0.75, 2.0)

    def forward(by: Callable[[Tensor], Tensor], x: Tensor) -> Way:
        @torch.no_grad()
        def run() -> int:
            return len(by(x))

        return run

    def backward(by: Callable[[Tensor], Tensor], x: Tensor) -> Way:
        a = x.detach().requires_grad_()
        b = by(a)
        gradient = torch.randn_like(b)

        def run() -> int:
            torch.autograd.grad(b, a, gradient, retain_graph=True)
            return len(a)

        return run

    ways = {}
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(sizes.norm_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        for direction, way in (("forward", forward), ("backward", backward)):
            ways[f"torch's norm, {direction}, {kind}"] = way(torchs, x)
            ways[f"our norm, {direction}, {kind}"] = way(response_norm, x)
    return ways


def train(sizes: Sizes) -> dict[str, Way]:
    """Steps on images of noise, as `alexnet bench train` takes them."""
    import torch
    import torch.nn.functional as F

    from alexnet.lab.benches.reference import plain_net
    from alexnet.models.zoo import find_model
    from alexnet.recipe import Recipe
    from alexnet.runtime import autocast
    from alexnet.training.network import build_net
    from alexnet.training.optim import build_optimizer

    device, classes, batch = torch.device("cpu"), 1000, sizes.train_batch
    side = find_model(sizes.trained).size
    recipe = Recipe(model=sizes.trained, batch_size=batch, size=side, crop=side, channels=3)
    x = torch.randn(batch, 3, side, side)
    y = torch.randint(0, classes, (batch,))

    def plain() -> Way:
        net = plain_net(recipe, classes)
        optimizer = torch.optim.SGD(
            net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, foreach=False, fused=False
        )

        def step() -> int:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            return len(x)

        return step

    def ours(precision: str) -> Way:
        own = recipe.replace(precision=precision, channels_last=True)
        net = build_net(own, classes)
        optimizer = build_optimizer(net, own)
        images = x.contiguous(memory_format=torch.channels_last)

        def step() -> int:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                logits = net(images)
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            return len(x)

        return step

    name = f"train {sizes.trained}, {batch}"
    return {
        f"{name}, plain PyTorch": plain(),
        **{f"{name}, ours, {kind}": ours(kind) for kind in kinds()},
    }


def infer(sizes: Sizes) -> dict[str, Way]:
    """Answers by many and one by one, as `alexnet bench infer` takes them."""
    import torch
    from torch import nn

    from alexnet.lab.benches.reference import plain_net
    from alexnet.models.zoo import find_model
    from alexnet.recipe import Recipe
    from alexnet.training.inference import Inference
    from alexnet.training.network import build_net

    side = find_model(sizes.asked).size
    recipe = Recipe(model=sizes.asked, size=side, crop=side, channels=3, channels_last=True)
    net = build_net(recipe, 1000).eval()
    nets: dict[str, nn.Module] = {"plain PyTorch": plain_net(recipe, 1000).eval()}
    nets |= {f"ours, {kind}": Inference(net, kind) for kind in kinds()}

    def way(answering: nn.Module, batch: int, layout: torch.memory_format) -> Way:
        x = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)

        @torch.inference_mode()
        def run() -> int:
            return len(answering(x))

        return run

    ways = {}
    for batch in (sizes.ask_batch, 1):
        for name, answering in nets.items():
            plain = name.startswith("plain")
            layout = torch.contiguous_format if plain else torch.channels_last
            ways[f"answer {sizes.asked}, {batch}, {name}"] = way(answering, batch, layout)
    return ways


def read(sizes: Sizes, packed: str) -> dict[str, Way]:
    """From packed JPEGs to normalised floats, eight batches a call."""
    import torch

    from alexnet.data.augment import augment
    from alexnet.data.dataset import open_dataset
    from alexnet.data.loader import training_batches
    from alexnet.recipe import Recipe
    from alexnet.training.network import preprocessing

    recipe = Recipe(
        model="alexnet-2014", size=256, crop=224, flip=True, normalize="torchvision",
        batch_size=sizes.read_batch,
    )  # fmt: skip
    dataset = open_dataset(recipe, packed)
    preprocess, train_split = preprocessing(recipe, dataset.statistics), dataset.split("train")

    def run() -> int:
        cpu = torch.device("cpu")
        images = 0
        for batch in training_batches(train_split, recipe, range(8), READERS, cpu):
            floats = augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)
            images += len(floats)
        return images

    return {"read packed JPEGs to floats, ours": run}


def kinds() -> tuple[str, ...]:
    """Precisions worth timing on this processor."""
    import torch

    from alexnet.runtime import precisions

    return precisions(torch.device("cpu"))


if __name__ == "__main__":
    main()
