"""Verdicts on the network, its contract with evaluation, and its learning rate."""

import math
from collections.abc import Iterator

import torch

from alexnet.diagnosis.contract import ALIKE
from alexnet.diagnosis.findings import GAIN, Findings
from alexnet.diagnosis.signal import SignalPropagation
from alexnet.diagnosis.verdict import Severity, Verdict

ZEROS = 0.1  # share of logits that are exactly zero, none being negative
BATCHWISE = 0.01  # of the logits' deviation
LOSS = 2.0  # initial loss, in ln K
FOLLOWS = -0.05  # percent that an output changes by where its input grows by one
RESPONDS = 0.01
STARVED = 2e-5
DEAD = 0.9
LINEAR = 2  # pairs of layers

ENDS = ("Relu", "Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Clamp", "ClampMin", "LeakyRelu")
BOUNDED = ("Tanh", "Sigmoid", "Hardtanh", "Hardsigmoid", "Softsign", "ReLU6")


def find_network_faults(f: Findings) -> Iterator[Verdict]:
    """Everything that the network shows; nothing where it could not be run."""
    if f.signals is None or f.contract is None:
        return
    yield from _head(f, f.signals)
    yield from _contract(f)
    yield from _wiring(f, f.signals)
    yield from _scale(f, f.signals)


def _head(f: Findings, s: SignalPropagation) -> Iterator[Verdict]:
    logits = s.logits
    one_image = float((logits.sum(1) - 1).abs().max()) < 1e-3
    zeros, low, high = (logits == 0).float().mean().item(), float(logits.min()), float(logits.max())
    if f.classes < 2:
        yield Verdict(
            "few-logits", "will not learn", f"the network has {f.classes} output",
            "a head for another purpose", "give it as many outputs as there are classes",
            f.classes, 2, "cross-entropy needs one output a class",
        )  # fmt: skip
    elif low >= 0 and zeros > ZEROS and not _begins_at_zero(f):
        stuck = ", and the loss is exactly ln K" if abs(s.loss - math.log(f.classes)) < 1e-6 else ""
        yield Verdict(
            "activation-on-logits",
            "will not learn",
            f"{zeros:.0%} of the logits are exactly 0 and none is negative{stuck}",
            "a ReLU after the last layer: a class whose logit is cut off gets no gradient, and "
            "once all are, nothing moves again",
            "take the activation off the last layer",
            zeros, ZEROS, "logits without an activation are never exactly 0",
        )  # fmt: skip
    elif f.entropic and s.ends_in in ENDS and not (s.ends_in == "Relu" and _begins_at_zero(f)):
        yield Verdict(
            "activation-on-logits",
            "will not learn" if s.ends_in == "Relu" else "learns badly",
            f"the logits come out of {s.ends_in} (from {low:.3g} to {high:.3g})",
            "an activation after the last layer: logits have to take any value, above and below 0",
            "take the activation off the last layer",
            1, 0, "read from the gradient's graph",
        )  # fmt: skip
    elif f.entropic and low >= 0 and high <= 1 and _sums_to_one(logits):
        yield Verdict(
            "softmax-twice",
            "learns badly",
            "the outputs lie between 0 and 1 and add up to 1"
            + ("" if one_image else " over the images of a batch: softmax over the wrong axis"),
            "the network ends in a softmax and the loss takes another one: the loss cannot come "
            f"under {math.log(1 + (f.classes - 1) / math.e):.2f} and gradients are small",
            "let the network return logits; take the softmax only where probabilities are shown",
            1, 1, "logits add up to anything",
        )  # fmt: skip


def _sums_to_one(logits: torch.Tensor) -> bool:
    return any(float((logits.sum(axis) - 1).abs().max()) < 1e-3 for axis in (0, 1))


def _begins_at_zero(f: Findings) -> bool:
    """Whether the last layer's weights are zero, as some networks begin."""
    last = f.head()
    return last is not None and last.rms == 0


def _contract(f: Findings) -> Iterator[Verdict]:
    c = f.contract
    assert c is not None
    if c.random > ALIKE:
        yield Verdict(
            "stochastic-evaluation",
            "misleads",
            f"two evaluations of the same images differ by {c.random:.2g} of the logits' deviation",
            "dropout, or other noise, is live in evaluation",
            "call model.eval() before evaluation, and pass training=self.training to dropout",
            c.random, ALIKE, "float32 rounding gives under 1e-6",
        )  # fmt: skip
    elif c.batchwise > BATCHWISE:
        yield Verdict(
            "batch-in-evaluation",
            "misleads",
            f"an image's logits change by {c.batchwise:.2g} of their deviation with the images "
            "beside it",
            "batch norm uses the batch in evaluation",
            "call model.eval() before evaluation; keep track_running_stats on",
            c.batchwise, BATCHWISE, "float32 rounding gives under 1e-5",
        )  # fmt: skip
    for name in c.constants:
        yield Verdict(
            "trained-constant",
            "learns badly",
            f"{name} is one number, is trained, and moves the training output and not the "
            "evaluation's",
            "a rate of dropout or noise was made a parameter: training it away is the easiest way "
            "to a lower loss",
            f"make {name} a plain number or a buffer",
            1, 0, "what only training sees cannot serve evaluation", name,
        )  # fmt: skip
    last = f.head()
    parameters = f.signals.parameters if f.signals else []
    head = [p.name for p in parameters if last and p.name.startswith(f"{last.name}.")]
    if head and set(head) <= set(c.frozen):
        everything = f.signals is not None and len(c.frozen) == len(f.signals.parameters)
        yield Verdict(
            "frozen",
            "will not learn" if everything else "learns badly",
            f"the last layer ({', '.join(head)}) has requires_grad=False"
            + (", like all parameters" if everything else ""),
            "the head was frozen with the rest",
            f"set requires_grad_(True) on {', '.join(head)}",
            len(c.frozen), 0, "the head has to learn the classes", head[0],
        )  # fmt: skip
    if c.unheld:
        trained = sum(p.trained for p in f.signals.parameters) if f.signals else 0
        yield Verdict(
            "not-in-optimizer",
            "will not learn" if len(c.unheld) == trained else "learns badly",
            f"{len(c.unheld)} of {trained} trained parameters are not in the optimiser: first "
            f"{c.unheld[0]}",
            "the optimiser was made before the layer was, or from another network's parameters",
            "make the optimiser from model.parameters() once the network is complete",
            len(c.unheld), 0, "a parameter that nobody updates stays as it was drawn", c.unheld[0],
        )  # fmt: skip


def _wiring(f: Findings, s: SignalPropagation) -> Iterator[Verdict]:
    dead_ends = [p for p in s.parameters if p.trained and p.gradient is None]
    if dead_ends:
        everything = len(dead_ends) == sum(p.trained for p in s.parameters)
        yield Verdict(
            "no-gradient",
            "will not learn" if everything else "learns badly",
            f"no gradient arrives at {len(dead_ends)} of {len(s.parameters)} parameters: first "
            f"{dead_ends[0].name}",
            "the graph is cut (detach, no_grad, .data, numpy), or the layer is not used",
            f"look for what cuts the graph after {dead_ends[-1].name}",
            len(dead_ends), 0, "every trained parameter takes part in the loss", dead_ends[0].name,
        )  # fmt: skip
    if len(s.linear) >= LINEAR:
        yield Verdict(
            "linear-layers",
            "learns badly",
            f"{len(s.linear)} layers follow another without an activation between",
            "a missing activation: two linear layers in a row can do no more than one",
            "put a ReLU after every convolution and hidden fully connected layer",
            len(s.linear), LINEAR, "read from the gradient's graph; 1x1 convolutions not counted",
        )  # fmt: skip


def _scale(f: Findings, s: SignalPropagation) -> Iterator[Verdict]:
    gain = f.gain() or 0.0
    ceiling = LOSS * math.log(max(f.classes, 2))
    if f.explodes() and s.loss > ceiling:
        weighted = [x for x in s.layers if x.has_weights] or s.layers
        worst = max(weighted, key=lambda x: x.gain)
        yield Verdict(
            "exploding-signal",
            "will not learn",
            f"for inputs of a deviation of 1 that of the logits is {gain:.3g}, and the first loss "
            f"is {s.loss:.4g} where ln {f.classes} is {math.log(f.classes):.3g}; {worst.name} "
            f"alone multiplies by {worst.gain:.3g}",
            "initial weights that are too large for the number of inputs of a unit",
            "draw weights with a deviation of sqrt(2 / fan-in) (kaiming_normal_), or 0.01",
            gain, GAIN, "healthy networks measure 0.001 to 9", worst.name,
        )  # fmt: skip
    elif s.loss > ceiling:
        yield Verdict(
            "large-initial-loss",
            "note",
            f"the first loss is {s.loss:.4g} and ln {f.classes} is {math.log(f.classes):.3g}",
            "the network is sure of itself before it has seen anything: large inputs or weights",
            "draw the last layer's weights smaller (deviation 0.01)",
            s.loss, ceiling, "a network that knows nothing has a loss of ln K",
        )  # fmt: skip
    for layer in s.layers:
        shrinks = layer.follows is not None and layer.follows < FOLLOWS
        deaf = layer.kind in BOUNDED and layer.responds is not None and layer.responds < RESPONDS
        if not (shrinks or deaf):
            continue
        what = f"where the input of {layer.name} ({layer.kind}) grows by 1 %, its output "
        what += f"changes by {layer.follows or 0:.2f} %"
        if deaf:
            what = (
                f"of a small change of its input {layer.name} ({layer.kind}) lets "
                f"{layer.responds:.1e} through"
            )
        yield Verdict(
            "squashing-layer",
            "learns badly",
            what,
            "a saturated activation, or a normalisation whose constants are far too strong",
            "make the layer's inputs smaller, or its constants weaker (response norm: alpha 1e-4 "
            "on the sum)",
            layer.responds if deaf else layer.follows, RESPONDS if deaf else FOLLOWS,
            "ReLU, pooling and the paper's response norm measure 1.0 and 0.3 to 0.7", layer.name,
        )  # fmt: skip
        break
    signal = f.arrives() or 0.0
    if signal < STARVED and not f.train.constant:
        lost = (x.name for x in s.layers if x.arrives is not None and x.arrives < STARVED)
        where = next(lost, "")
        yield Verdict(
            "starved-signal",
            # Networks whose branches begin near zero find their way in a few steps.
            "note" if f.sees() else "will not learn" if f.overfit else "learns badly",
            f"two images' activations before the last layer differ by 1 - cosine = {signal:.1e}"
            + (f"; it is under {STARVED:.0e} from {where} on" if where else ""),
            "weights so small beside the biases that what reaches the end is the biases",
            "draw the biases as 0 or 0.1, or the weights larger",
            signal, STARVED, "healthy networks measure 1e-4 to 1", where,
        )  # fmt: skip
    yield from dead(s, "at the beginning")


def dead(s: SignalPropagation, when: str) -> Iterator[Verdict]:
    """The first layer whose units are 0 for every image."""
    for layer in s.layers:
        # Weights of zero are how some networks begin; what is off for good is an activation.
        if layer.dead > DEAD and not layer.has_weights and not layer.silent:
            fatal: Severity = "will not learn"
            yield Verdict(
                "dead-units",
                fatal,
                f"{layer.dead:.0%} of the units of {layer.name} are 0 for every image {when}",
                "biases that are too negative, or steps so large that they pushed the units there: "
                "a ReLU that is off for all images gets no gradient",
                "lower the learning rate tenfold, and draw the biases as 0 or slightly positive",
                layer.dead, DEAD, "healthy networks measure under 0.5", layer.name,
            )  # fmt: skip
            return
