"""Recipes for small images, and for photos of one's own."""

from alexnet.recipe import Recipe, first_line


def digits() -> Recipe:
    """5,000 MNIST digits that need no download, under a minute on two cores."""
    return Recipe(
        name="digits",
        about=first_line(digits),
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


def cifar10() -> Recipe:
    """CIFAR-10 in twenty minutes on two cores: whitening first layer, mirrored views."""
    return Recipe(
        name="cifar10",
        about=first_line(cifar10),
        data="cifar10",
        model="fast-32",
        whiten=True,
        freeze=("conv1",),
        views=2,
        shift=2,
        flip=True,
        epochs=20,
        batch_size=256,
        opt="adamw",
        lr=1e-2,
        weight_decay=0.3,
        label_smoothing=0.2,
        schedule="onecycle",
        eval_every=2,
        log_every=50,
    )


def mnist() -> Recipe:
    """MNIST, 60,000 digits, in ten minutes on two cores."""
    return cifar10().replace(
        name="mnist",
        about=first_line(mnist),
        data="mnist",
        channels=1,
        size=28,
        crop=28,
        flip=False,
        views=1,
        rotate=15,
        scale=0.15,
        weight_decay=0.05,
        label_smoothing=0.05,
        epochs=8,
    )


def fashion_mnist() -> Recipe:
    """Fashion-MNIST, 60,000 pieces of clothing, in fifteen minutes on two cores."""
    return cifar10().replace(
        name="fashion-mnist",
        about=first_line(fashion_mnist),
        data="fashion-mnist",
        channels=1,
        size=28,
        crop=28,
        weight_decay=0.05,
        label_smoothing=0.1,
        epochs=12,
    )


def cifar10_fast() -> Recipe:
    """CIFAR-10 in ten minutes on two cores."""
    return cifar10().replace(name="cifar10-fast", about=first_line(cifar10_fast), epochs=10)


def cifar10_long() -> Recipe:
    """CIFAR-10 in forty-five minutes on two cores: more moved, and less held out.

    Seldom validated: by so few images a validation before the rate has fallen could be the best.
    """
    return cifar10().replace(
        name="cifar10-long",
        about=first_line(cifar10_long),
        epochs=40,
        shift=3,
        cutout=8,
        val_fraction=0.02,
        eval_every=10,
    )


def imagenette() -> Recipe:
    """Imagenette's ten classes from scratch at 128 pixels, in eleven minutes on two cores."""
    return cifar10().replace(
        name="imagenette",
        about=first_line(imagenette),
        data="",
        model="patch-128",
        size=144,
        crop=128,
        shift=0,
        area=0.35,
        epochs=60,
        batch_size=64,
        lr=2e-3,
        eval_batch=100,
        label_smoothing=0.1,
        log_every=20,
    )


def photos() -> Recipe:
    """A folder of your own photos, a sub-folder a class, seen at 64 pixels."""
    return cifar10().replace(
        name="photos",
        about=first_line(photos),
        data="",
        orient="apply",
        size=72,
        crop=64,
        shift=0,
        cutout=16,
        epochs=30,
        batch_size=32,
        lr=2e-3,
        weight_decay=0.05,
        eval_every=1,
        eval_batch=100,
        log_every=10,
    )


def seed_003() -> Recipe:
    """`seeds/003`: its net on CIFAR-10, SGD 0.01, 50 epochs, no augmentation. It overfits."""
    return Recipe(
        name="seed-003",
        about=first_line(seed_003),
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
        about=first_line(seed_004),
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
