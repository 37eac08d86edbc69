"""The recipes that come with alexnet: functions that return a complete frozen recipe."""

from collections.abc import Callable

import numpy as np

from alexnet.data.images import image_size
from alexnet.data.raw import Source
from alexnet.errors import UsageError
from alexnet.recipe import Recipe, nearest


def digits() -> Recipe:
    """5,000 MNIST digits that need no download, under a minute on two cores."""
    return Recipe(
        name="digits",
        about=_first_line(digits),
        data="digits",
        model="alexnet-28",
        channels=1,
        size=28,
        crop=28,
        shift=2,
        rotate=15,
        scale=0.15,
        epochs=13,
        batch_size=64,
        precision="fp32",
        opt="adamw",
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.05,
        schedule="onecycle",
        eval_every=2,
    )


def mnist() -> Recipe:
    """MNIST, 60,000 digits."""
    return digits().replace(
        name="mnist",
        about=_first_line(mnist),
        data="mnist",
        epochs=10,
        batch_size=128,
        precision="auto",
        log_every=50,
        eval_every=1,
    )


def fashion_mnist() -> Recipe:
    """Fashion-MNIST, 60,000 pieces of clothing."""
    return mnist().replace(
        name="fashion-mnist",
        about=_first_line(fashion_mnist),
        data="fashion-mnist",
        flip=True,
        model="fashion-alexnet",
        rotate=0,
        scale=0,
        dropout=0.3,
        label_smoothing=0.1,
        epochs=10,
    )


def cifar10() -> Recipe:
    """CIFAR-10 with shifts, mirrors and dropout against overfitting."""
    return Recipe(
        name="cifar10",
        about=_first_line(cifar10),
        data="cifar10",
        model="alexnet-32",
        shift=4,
        flip=True,
        dropout=0.2,
        epochs=7,
        opt="adamw",
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        schedule="onecycle",
        log_every=50,
    )


def photos() -> Recipe:
    """A folder of your own photos, a sub-folder a class, seen at 64 pixels."""
    return cifar10().replace(
        name="photos",
        about=_first_line(photos),
        data="",
        size=72,
        crop=64,
        shift=0,
        cutout=16,
        epochs=30,
        batch_size=32,
        eval_batch=100,
        log_every=10,
    )


def seed_003() -> Recipe:
    """`seeds/003`: its net on CIFAR-10, SGD 0.01, 50 epochs, no augmentation. It overfits."""
    return Recipe(
        name="seed-003",
        about=_first_line(seed_003),
        data="cifar10",
        model="cifar-alexnet",
        val_fraction=0.2,
        epochs=50,
        batch_size=128,
        lr=0.01,
        momentum=0.9,
        weight_decay=0.0,
        schedule="constant",
        log_every=50,
    )


def seed_004() -> Recipe:
    """`seeds/004`: its net on MNIST, Adam 0.001, 300,000 images, from He's weights: it learns."""
    return Recipe(
        name="seed-004",
        about=_first_line(seed_004),
        data="mnist",
        model="mnist-alexnet",
        channels=1,
        size=28,
        crop=28,
        val_fraction=5 / 60,
        steps=4687,
        batch_size=64,
        opt="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="constant",
        log_every=100,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "photos": photos,
    "seed-003": seed_003,
    "seed-004": seed_004,
}


def find_recipe(name: str) -> Recipe:
    """A recipe by name; a misspelt one gets the nearest."""
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()


def choose_recipe(source: Source) -> tuple[Recipe, str]:
    """A recipe for data that came without one, and a line that says why."""
    what = source.path or source.kind
    if source.kind == "digits":
        return digits(), f"{what}: 5,000 digits, so the recipe is digits"
    if source.kind == "idx":
        clothes = "Sneaker" in source.classes
        name = "fashion-mnist" if clothes else "mnist"
        return find_recipe(name), f"{what}: IDX files of 28-pixel grey images, so it is {name}"
    if source.kind == "cifar10":
        return cifar10(), f"{what}: CIFAR-10's own format, so the recipe is cifar10"
    images = source.load(source.parts[0]).images
    first = images[0]
    side = min(first.shape[:2] if isinstance(first, np.ndarray) else image_size(first))
    if side <= 40:
        return cifar10(), f"{what}: a folder of {side}-pixel images, so the recipe is cifar10"
    recipe = photos()
    few = len(images) // 4  # a batch must fit in what the splits leave of a small set
    if few < recipe.batch_size:
        recipe = recipe.replace(batch_size=max(few, 2))
    return recipe, f"{what}: a folder of photos of {side} pixels and more, so the recipe is photos"


def _first_line(recipe: Callable[[], Recipe]) -> str:
    return (recipe.__doc__ or "").splitlines()[0]
