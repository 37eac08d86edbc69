"""Claims that are counted on the networks themselves: exact, in seconds."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from alexnet.data import OFFICIAL, open_image_set
from alexnet.errors import UsageError
from alexnet.lab.claims.claim import Claim, ClaimVerdict, Outcome, as_printed
from alexnet.lab.claims.study import Study
from alexnet.models import Conv, LayerRow, Net, Part, Pool, Spec, model_spec, summarize
from alexnet.support.options import call

MODEL, CLASSES, GIVEN = "alexnet-2012", 1000, (3, 224, 224)
NARROW = 8  # a receptive field depends on windows, not on how many kernels there are
FIGURE_2_CONV1 = 253_440  # neurons, as the figure's caption has them
ONE_PERCENT, MILLIONS = 1.0, 1.2e6  # as printed
ROUGHLY = 0.1  # what "roughly" leaves open


def layers(model: str = MODEL) -> list[LayerRow]:
    """The layers with weights, from the network's own table."""
    return [row for row in summarize(model_spec(model, CLASSES), GIVEN) if row.macs]


def exact(measured: float, verdict: ClaimVerdict, finding: str, **figures: object) -> Outcome:
    return Outcome(verdict, float(measured), None, finding, figures)


def parameters(study: Study, model: str = MODEL) -> Outcome:
    rows = layers(model)
    total = sum(row.parameters for row in rows)
    finding = f"{total:,} with biases; {sum(r.parameters for r in rows[-3:]):,} in three FC layers"
    by_layer = {row.name: row.parameters for row in rows}
    return exact(total, as_printed(total, study.printed, 1), finding, layers=by_layer)


def neurons(study: Study, model: str = MODEL) -> Outcome:
    """The sum over layers, beside the sum of the numbers that the paper's own figure prints."""
    counts = {row.name: math.prod(row.shape) for row in layers(model)}
    total = sum(counts.values())
    own = total - counts["conv1"] + FIGURE_2_CONV1
    finding = (
        f"{total:,}; with the {FIGURE_2_CONV1:,} that figure 2 prints for conv1 in the place of "
        f"{counts['conv1']:,} it would be {own:,}"
    )
    return exact(total, as_printed(total, study.printed, 2), finding, layers=counts, figure_2=own)


def conv1_neurons(study: Study) -> Outcome:
    maps, height, width = layers()[0].shape
    total, rows = maps * height * width, FIGURE_2_CONV1 / (maps * width)
    finding = (
        f"{maps} x {height} x {width} are {total:,}; {FIGURE_2_CONV1:,} are "
        f"{maps} x {width} x {rows:g}"
    )
    return exact(total, as_printed(total, study.printed, 6), finding, shape=[maps, height, width])


def conv_shares(study: Study) -> Outcome:
    """Each convolution's share of the parameters, the largest against the printed bound."""
    rows = layers()
    total = sum(row.parameters for row in rows)
    shares = {r.name: 100 * r.parameters / total for r in rows if r.name.startswith("conv")}
    largest = max(shares.values())
    text = ", ".join(f"{name} {share:.2f} %" for name, share in shares.items())
    verdict: ClaimVerdict = "confirmed" if largest <= ONE_PERCENT else "contradicted"
    return exact(largest, verdict, text, shares=shares)


def conv_work(study: Study) -> Outcome:
    rows = layers()
    work = sum(row.macs for row in rows)
    convs = [row for row in rows if row.name.startswith("conv")]
    share = 100 * sum(row.macs for row in convs) / work
    weights = 100 * sum(r.parameters for r in convs) / sum(r.parameters for r in rows)
    finding = (
        f"{work:,} multiply-adds an image, {share:.1f} % of them in convolutions, which hold "
        f"{weights:.1f} % of the parameters; one tower without groups: "
        f"{sum(r.macs for r in layers('alexnet-one-column')):,}"
    )
    verdict: ClaimVerdict = "confirmed" if 90 <= share <= 95 else "contradicted"
    return exact(share, verdict, finding, macs={row.name: row.macs for row in rows})


def input_size(study: Study, spec: Spec | None = None) -> Outcome:
    """The side of conv1's output for 224 and 227 pixels, padded or not, rounded down or up."""
    conv1 = (spec or model_spec(MODEL, CLASSES))[0]
    assert isinstance(conv1, Conv)
    variants = {
        "224, no padding": (224, replace(conv1, padding=0)),
        "224, padding 2": (224, replace(conv1, padding=2)),
        "224, no padding, rounded up": (224, replace(conv1, padding=0, ceil=True)),
        "227, no padding": (227, replace(conv1, padding=0)),
    }
    sides = {name: part.shape((3, side, side))[1] for name, (side, part) in variants.items()}
    measured = sides["224, no padding"]
    finding = "; ".join(f"{name}: {side} x {side}" for name, side in sides.items())
    return exact(measured, as_printed(measured, study.printed, 2), finding, sides=sides)


def overlapping_shapes(study: Study) -> Outcome:
    """The outputs of the pools, of 3 every 2 and of 2 every 2, on the maps of the network."""
    shape_before: tuple[int, ...] = GIVEN
    pairs = {}
    for part in model_spec(MODEL, CLASSES):
        if isinstance(part, Pool):
            plain = replace(part, kernel=2)
            pairs[shape_before[1]] = (part.shape(shape_before)[1], plain.shape(shape_before)[1])
        shape_before = part.shape(shape_before)
    differ = sum(own != plain for own, plain in pairs.values())
    finding = "; ".join(f"{side} to {own} and {plain}" for side, (own, plain) in pairs.items())
    return exact(differ, "contradicted" if differ else "confirmed", finding)


def receptive_fields(study: Study) -> Outcome:
    """Which pixels move one output, by the gradient of a network of ones; and how far apart the
    fields of two neighbours are."""
    fields: dict[str, int] = {}
    spec = [part for part in model_spec(MODEL, CLASSES) if isinstance(part, Conv | Pool)]
    ones = [_one_kernel(part) for part in spec]
    net = Net(ones, (1, *GIVEN[1:]))
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    image = torch.ones(1, 1, 2 * GIVEN[1], 2 * GIVEN[1], requires_grad=True)  # none is cut
    for name in net.parts:
        middle = _reach(net, image, name, 0)
        fields[name] = middle[1] - middle[0] + 1
    apart = _reach(net, image, "conv1", 1)[0] - _reach(net, image, "conv1", 0)[0]
    finding = f"{apart} pixels; fields of " + ", ".join(f"{n} {s}" for n, s in fields.items())
    return exact(apart, as_printed(apart, study.printed, 1), finding, fields=fields)


def _one_kernel(part: Part) -> Part:
    """The same window on one map; a mean, through which every pixel of a window is seen."""
    if isinstance(part, Conv):
        return replace(part, out=1, groups=1)
    assert isinstance(part, Pool)
    return replace(part, kind="mean")


def _reach(net: Net, image: Tensor, name: str, beside: int) -> tuple[int, int]:
    """The first and last pixel row that the middle output of a part, or one beside it, depends on.

    In the middle of the map, where no field is cut by the edge.
    """
    out = net.activations(image, [name])[1][name]
    middle = (out.shape[2] - 1) // 2
    (gradient,) = torch.autograd.grad(out[0, 0, middle + beside, middle], image)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    return int(rows[0]), int(rows[-1])


def ilsvrc_counts(study: Study) -> Outcome:
    """The counts that archives are held against when they are packed, or those of a packed set."""
    if study.data is not None:
        source = open_image_set(study.data)
        if source.kind != "packed":
            raise UsageError(
                f"{study.data}: counts are of a packed set: `{call('data pack')}` makes one"
            )
        counts = {part: len(source.read(part).labels) for part in source.parts}
        what = "as packed"
    else:
        counts, what = OFFICIAL["ILSVRC-2010"], "ILSVRC-2010, as its archives are checked"
    later = OFFICIAL["ILSVRC-2012"]
    text = ", ".join(f"{n:,} {part}" for part, n in counts.items())
    finding = f"{what}: {text}; ILSVRC-2012: " + ", ".join(f"{n:,} {p}" for p, n in later.items())
    near = abs(counts["train"] / MILLIONS - 1) <= ROUGHLY
    return exact(counts["train"], "confirmed" if near else "contradicted", finding, counts=counts)


CLAIMS = (
    Claim(
        name="parameters",
        paper="60 million parameters",
        source="abstract and section 4",
        unit="parameters",
        printed=60e6,
        measure=parameters,
    ),
    Claim(
        name="neurons",
        paper="650,000 neurons",
        source="abstract",
        unit="neurons",
        printed=650e3,
        measure=neurons,
    ),
    Claim(
        name="neurons-conv1",
        paper=f"{FIGURE_2_CONV1:,} neurons in the first layer",
        source="figure 2",
        unit="neurons",
        printed=FIGURE_2_CONV1,
        measure=conv1_neurons,
    ),
    Claim(
        name="conv-parameters",
        paper="each convolution contains no more than 1 % of the parameters",
        source="section 1",
        unit="% of the parameters in the largest",
        printed=ONE_PERCENT,
        measure=conv_shares,
    ),
    Claim(
        name="conv-work",
        paper="convolutions do about 90 to 95 % of the computation and hold about 5 % of the "
        "parameters",
        source="Krizhevsky 2014, section 2; the paper prints no count of operations",
        unit="% of the multiply-adds",
        measure=conv_work,
    ),
    Claim(
        name="input-224",
        paper="224 pixels through 11 x 11 windows every 4 give maps of 55 x 55",
        source="section 3.5 and figure 2",
        unit="pixels a side, without padding",
        printed=55,
        measure=input_size,
    ),
    Claim(
        name="overlapping-shapes",
        paper="pools of 3 every 2 and of 2 every 2 produce output of equivalent dimensions",
        source="section 3.4",
        unit="of three pools whose outputs differ",
        printed=0,
        measure=overlapping_shapes,
    ),
    Claim(
        name="receptive-fields",
        paper="receptive field centres of neighbours in a kernel map of conv1 are 4 pixels apart",
        source="section 3.5",
        unit="pixels",
        printed=4,
        measure=receptive_fields,
    ),
    Claim(
        name="ilsvrc-counts",
        paper="roughly 1.2 million training images, 50,000 validation and 150,000 test images",
        source="section 2",
        unit="training images",
        printed=MILLIONS,
        measure=ilsvrc_counts,
    ),
)
