"""The recipes that come with alexnet: functions that return a complete Recipe, their table, and the
sources of their fields."""

from collections.abc import Callable
from pathlib import Path

from alexnet.errors import UsageError, did_you_mean
from alexnet.recipe.fields import RETIRED_MODELS, Recipe, retired_line
from alexnet.recipe.files import RECORD, SUFFIX, read_recipe_file, read_recorded_recipe
from alexnet.support.options import call


def first_line(recipe: Callable[[], Recipe]) -> str:
    """The description of a recipe: the first line of the docstring of its function."""
    return (recipe.__doc__ or "").splitlines()[0]


# Small images, and photos of one's own.


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


# ILSVRC, and other images that the network sees at 224 pixels; `--data` names them.


def paper_2012() -> Recipe:
    """The paper's text on ILSVRC-2012 (or your --data): 90 epochs, rate divided when stuck.

    40.7 % top-1 and 18.2 % top-5 error there, ten views; five to six days on two GTX 580.
    """
    return Recipe(
        name="paper-2012",
        about=first_line(paper_2012),
        data="",
        model="alexnet-2012",
        size=256,
        crop=224,
        normalize="image",
        flip=True,
        colour=0.1,
        epochs=90,
        batch_size=128,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        decay_biases=True,
        schedule="plateau",
        eval_batch=100,
    )


def paper_2010() -> Recipe:
    """The paper's text on ILSVRC-2010, whose test labels are public: 37.5 / 17.0 % error."""
    return paper_2012().replace(name="paper-2010", about=first_line(paper_2010))


def code_2012() -> Recipe:
    """What was run: the released net and its logged schedule (--crop-chunk 32 as there).

    Its log ends at 40.66 / 18.21 % error on ILSVRC-2012 val, ten views. Biases learn at twice the
    rate and do not decay; from epoch 67 without colour noise and conv1 slower, from 72 not at all.
    """
    return paper_2012().replace(
        name="code-2012",
        about=first_line(code_2012),
        model="alexnet-2012-code",
        normalize="centre",
        colour_rule="code",
        colour_until=67,
        epochs=91,
        bias_lr=2,
        decay_biases=False,
        schedule="steps",
        drops=(25, 51, 79),
        part_lr=("conv1=0.1@67", "conv1=0@72"),
    )


def caffe() -> Recipe:
    """Caffe's bvlc_alexnet and its solver: 57.1 / 80.2 % accuracy on ILSVRC-2012, one view.

    Its 450,000 steps of 256 images are 90 epochs there and its steps of 100,000 are 20. Its images
    were squeezed to 256 x 256; here the shorter side is 256 and the centre is kept.
    """
    return code_2012().replace(
        name="caffe",
        about=first_line(caffe),
        model="alexnet-caffe",
        crop=227,
        normalize="image",
        colour=0,
        colour_rule="paper",
        colour_until=0,
        epochs=90,
        batch_size=256,
        drops=(20, 40, 60, 80),
        part_lr=(),
    )


def one_weird_trick_2014() -> Recipe:
    """The one-tower net of 2014 by the schedule of its layer-params file: rate / 6.3 at quarters.

    57.45 % top-1 and 80.19 % top-5 accuracy in its log, one view. The biases' rate falls less
    there; weights start by torch's rule, as in torchvision.
    """
    return code_2012().replace(
        name="one-weird-trick-2014",
        about=first_line(one_weird_trick_2014),
        model="alexnet-2014",
        normalize="torchvision",
        colour=0,
        colour_rule="paper",
        colour_until=0,
        epochs=90,
        drops=(22.5, 45, 67.5),
        lr_factor=250 ** (-1 / 3),
        part_lr=(),
    )


def bn() -> Recipe:
    """Batch norm in the place of response norm, which lets the rate be higher."""
    return paper_2012().replace(
        name="bn",
        about=first_line(bn),
        model="alexnet-bn",
        normalize="std",
        colour=0,
        batch_size=256,
        lr=0.02,
        decay_biases=False,
        schedule="cosine",
        warmup_epochs=1,
    )


def large_batch() -> Recipe:
    """Batch norm with LARS for large batches (-b 512 to 32768): 100 epochs, one rate for all.

    Trust 0.001, decay 0.0005, momentum 0.9 and the fall with the square are of You, Gitman,
    Ginsburg 2017 (arXiv 1708.03888), who chose a rate for each batch size; this one and the
    warm-up are ours, and nobody has run it at its size. With batches of 32k it took You et al. 2017
    (arXiv 1709.05011) 11 minutes on 1,024 CPUs.
    """
    return bn().replace(
        name="large-batch",
        about=first_line(large_batch),
        batch_size=4096,
        epochs=100,
        lr=10,
        lr_batch=4096,
        trust=0.001,
        schedule="poly",
        warmup_epochs=2,
        eval_batch=500,
    )


def seed_000() -> Recipe:
    """`seeds/000` as it was meant: one column, momentum 0.001, L2, rate lowered when stuck.

    Mended: no ReLU on the logits, a whole validation slice without dropout, shuffled batches,
    mirrors, and training and test images of one size. It published 47.95 / 71.88 % accuracy.
    """
    return paper_2012().replace(
        name="seed-000",
        about=first_line(seed_000),
        model="alexnet-one-column",
        normalize="mean",
        colour=0,
        lr=1e-3,
    )


def seed_002() -> Recipe:
    """`seeds/002` as it was meant: batch norm and Adam on ILSVRC-2012; it published no figure."""
    return paper_2012().replace(
        name="seed-002",
        about=first_line(seed_002),
        model="alexnet-bn",
        normalize="std",
        colour=0,
        opt="adam",
        lr=1e-3,
        weight_decay=0,
        decay_biases=False,
    )


def modern() -> Recipe:
    """Today's practice with the same network: batch norm, AdamW, one cycle, zoomed crops."""
    return bn().replace(
        name="modern",
        about=first_line(modern),
        opt="adamw",
        batch_size=64,
        lr=1e-3,
        weight_decay=0.05,
        area=0.35,
        label_smoothing=0.1,
        schedule="onecycle",
        warmup_epochs=0,
        epochs=40,
    )


# The table of recipes, and their sources.

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar10-fast": cifar10_fast,
    "cifar10-long": cifar10_long,
    "imagenette": imagenette,
    "photos": photos,
    "seed-003": seed_003,
    "seed-004": seed_004,
    "paper-2012": paper_2012,
    "paper-2010": paper_2010,
    "code-2012": code_2012,
    "caffe": caffe,
    "one-weird-trick-2014": one_weird_trick_2014,
    "bn": bn,
    "large-batch": large_batch,
    "seed-000": seed_000,
    "seed-002": seed_002,
    "modern": modern,
}

# The source of each recipe's fields: a general one, and those of single fields.
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "paper-2012": (
        "paper, section 5",
        {
            "size": "paper, section 2",
            "normalize": "paper, section 2",
            "crop": "paper, section 4.1",
            "flip": "paper, section 4.1",
            "colour": "paper, section 4.1",
            "colour_rule": "paper, section 4.1",
            "decay_biases": "the paper's update makes no exception",
        },
    ),
    "code-2012": ("2012 code, layer file 145 and its log", {}),
    "caffe": (
        "Caffe, models/bvlc_alexnet/solver.prototxt",
        dict.fromkeys(
            ("crop", "normalize", "colour", "bias_lr", "decay_biases", "batch_size"),
            "Caffe, models/bvlc_alexnet/train_val.prototxt",
        ),
    ),
    "one-weird-trick-2014": (
        "cuda-convnet2, layers/layer-params-223-ce2-1gpu.cfg",
        {"normalize": "torchvision"},
    ),
    "large-batch": (
        "You, Gitman, Ginsburg 2017 (arXiv 1708.03888)",
        dict.fromkeys(("model", "lr", "lr_batch", "warmup_epochs", "size", "crop"), "ours"),
    ),
    "seed-000": ("seeds/000 and 001", {"flip": "ours", "schedule": "its closing note"}),
    "seed-002": ("seeds/002", {"lr": "Adam's default", "batch_size": "ours"}),
    "seed-003": ("seeds/003", {"batch_size": "see docs/decisions.md, 8"}),
    "seed-004": ("seeds/004", {}),
}
_SOURCES["paper-2010"] = _SOURCES["paper-2012"]


# The recipe that each published network was trained with; Caffe trained two networks alike.
TRAINING = {
    "alexnet-2012": "paper-2012",
    "alexnet-2012-code": "code-2012",
    "alexnet-2014": "one-weird-trick-2014",
    "alexnet-bn": "seed-002",
    "alexnet-caffe": "caffe",
    "alexnet-one-column": "seed-000",
    "caffenet": "caffe",
}


def source_of(recipe: str, field: str) -> str:
    """The source of a field of a recipe; "ours" for our own choices."""
    general, special = _SOURCES.get(recipe, ("ours", {}))
    return special.get(field, general)


def find_recipe(name: str) -> Recipe:
    """The recipe with a name, or in a file: TOML, or the JSON record of a run or an export.
    UsageError for an unknown name, with the nearest one."""
    if name.endswith(SUFFIX):
        return read_recipe_file(Path(name))
    if name.endswith(RECORD):
        return read_recorded_recipe(Path(name))
    if name in RETIRED_MODELS:
        raise UsageError(retired_line(name))
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES, call('recipes'))}")
    return RECIPES[name]()
