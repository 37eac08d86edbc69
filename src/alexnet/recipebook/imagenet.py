"""Recipes for ILSVRC and whatever else is shown at 224 pixels; the data is named with --data."""

from alexnet.recipe import Recipe, first_line


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
