"""Every verdict of the doctor: its name, its texts, and the measurement that leads to it.

One class a verdict. Their order is that of causes: from the data that goes in to the figures that
come out. A fault makes the later ones likely, so of two that are equally severe the doctor names
the earlier one first.

To add a verdict, write a class where it belongs in that order. `check_data`, `check_network`,
`check_run` and `check_step` are the four occasions on which the doctor looks; override those on
which the fault shows.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from alexnet.diagnosis.batches import MIN_IMAGES, shared_share
from alexnet.diagnosis.findings import (
    BURST,
    LARGE_INPUTS,
    MAX_LOGIT_GAIN,
    SMALL_INPUTS,
    DataFindings,
    NetworkFindings,
)
from alexnet.diagnosis.label_probe import CLEARLY_ABOVE_CHANCE, LabelProbe
from alexnet.diagnosis.look import StepLook
from alexnet.diagnosis.modes import EQUAL_WITHIN
from alexnet.diagnosis.run_figures import LEARNING_STEPS, Learning, Line, RunFigures
from alexnet.diagnosis.signal import LayerSignal, SignalPropagation
from alexnet.records import (
    DivergedEvent,
    ResumeEvent,
    Severity,
    TrainEvent,
    ValEvent,
    Verdict,
)
from alexnet.support.options import Placeholder, call, in_flags, option

RECIPE = Placeholder("RECIPE")
RULES: list["Rule"] = []  # every rule, in the order of causes


class Rule:
    """How one fault is recognised and described. Subclasses add themselves to `RULES`.

    `cause`, `advice`, `source` (where the threshold comes from) and `threshold` are the defaults of
    its verdicts. A `symptom` is usually the result of an earlier fault, and does not outrank it.
    `may_end` marks what a training can recover from: the guard never stops on it.
    """

    name: ClassVar[str]
    cause: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    source: ClassVar[str] = ""
    threshold: ClassVar[float] = math.nan  # no threshold
    symptom: ClassVar[bool] = False
    may_end: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        RULES.append(cls())

    def check_data(self, data: DataFindings) -> Iterable[Verdict]:
        """Verdicts on images and labels, before training. A NetworkFindings comes here too."""
        return ()

    def check_network(self, network: NetworkFindings) -> Iterable[Verdict]:
        """Verdicts on a network and its trial steps, before training."""
        return ()

    def check_run(self, run: RunFigures) -> Iterable[Verdict]:
        """Verdicts on the figures of a run, during and after training."""
        return ()

    def check_step(self, look: StepLook) -> Iterable[Verdict]:
        """Verdicts on one step of a training, at which the guard looks."""
        return ()

    def advise(self) -> str:
        """The remedy. Rules whose advice names options override this."""
        return self.advice

    def verdict(
        self,
        severity: Severity,
        evidence: str,
        measured: float | None,
        *,
        threshold: float | None = None,
        cause: str = "",
        advice: str = "",
        source: str = "",
        where: str = "",
    ) -> Verdict:
        """A verdict with the rule's name, and its texts and threshold unless others are given."""
        limit = self.threshold if threshold is None else threshold
        return Verdict(
            name=self.name,
            severity=severity,
            evidence=evidence,
            cause=cause or self.cause,
            advice=advice or self.advise(),
            measured=measured,
            threshold=None if math.isnan(limit) else limit,
            source=source or self.source,
            where=where,
        )


def find_faults(findings: DataFindings) -> Iterator[Verdict]:
    """Verdicts on a network and its data before training."""
    for rule in RULES:
        yield from rule.check_data(findings)
        if isinstance(findings, NetworkFindings):
            yield from rule.check_network(findings)


def find_run_faults(lines: Iterable[Line], class_shares: Sequence[float]) -> Iterator[Verdict]:
    """Verdicts on the figures of a run: lines of metrics.jsonl, and the training labels' shares."""
    run = RunFigures.from_lines(lines, class_shares)
    for rule in RULES:
        yield from rule.check_run(run)


def advice_in_flags(verdict: Verdict) -> str:
    """Return the advice of a verdict in words of the command line, as the log of a run has it."""
    rule = next(rule for rule in RULES if rule.name == verdict.name)
    return in_flags(rule.advise) if verdict.advice == rule.advise() else verdict.advice


def find_step_faults(look: StepLook) -> Iterator[Verdict]:
    """Verdicts on one step of a training."""
    for rule in RULES:
        yield from rule.check_step(look)


def _explained_by(findings: NetworkFindings | StepLook, *rules: type[Rule]) -> bool:
    """Whether one of these rules already gives a verdict, so that no other is needed."""
    if isinstance(findings, StepLook):
        return any(True for rule in rules for _ in rule().check_step(findings))
    return any(True for rule in rules for _ in rule().check_network(findings))


# Images and labels


class LabelsOutOfRange(Rule):
    name = "labels-out-of-range"
    cause = "labels that count from 1, or a network built for another number of classes"
    source = "a label is the index of an output"

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        low, high = data.label_range()
        last = data.classes - 1
        if data.classes < 2 or (low >= 0 and high <= last):
            return
        yield self.verdict(
            "will not learn",
            f"labels go from {low} to {high}, but the network has {data.classes} outputs "
            f"(0 to {last})",
            high,
            threshold=last,
            advice=f"build the network with classes={high + 1}, or subtract {low} from the labels",
        )


class NotFiniteInput(Rule):
    name = "not-finite-input"
    cause = "a division by a deviation of zero, or damaged files"
    advice = "find these images where they are decoded or normalised, and reject them there"
    threshold = 0

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        train, val = data.train, data.val
        if train.non_finite:
            yield self.verdict(
                "will not learn",
                f"{train.non_finite:,} of {train.n:,} images contain NaN or infinity",
                train.non_finite / train.n,
                cause=f"{self.cause}; one such image makes every weight NaN",
                source="a single NaN spreads to the loss and all weights",
            )
        if val is not None and val.non_finite:
            yield self.verdict(
                "misleads",
                f"{val.non_finite:,} of {val.n:,} validation images contain NaN or infinity",
                val.non_finite / val.n,
                source="a figure computed from NaN means nothing",
                where="validation",
            )


class ConstantInput(Rule):
    name = "constant-input"
    advice = "look at a few images exactly as the network gets them"
    one_colour = 0.5  # share of images that are one colour
    repeated = 0.9  # share of images that are copies of others
    min_images = 20
    min_different = 8  # a small set of images may be read several times

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        train = data.train
        constant = train.constant / train.n if train.n else 0.0
        different = len(set(train.hashes))
        repeated = 1 - different / max(train.n, 1)
        few = train.n > self.min_images and different < self.min_different
        if constant > self.one_colour:
            yield self.verdict(
                "will not learn",
                f"{train.constant:,} of {train.n:,} images are one colour",
                constant,
                threshold=self.one_colour,
                cause="images that were not read (all zero), or were scaled to almost nothing and "
                "rounded",
                source="an image that is the same everywhere shows nothing",
            )
        elif repeated > self.repeated and few:
            yield self.verdict(
                "will not learn",
                f"only {different:,} of {train.n:,} images are different",
                repeated,
                threshold=self.repeated,
                cause="one image is read again and again: an index that does not move, or a cache "
                "that is never renewed",
                source="images have to differ",
            )


class OneClass(Rule):
    name = "one-class"
    cause = "a data set in class order that is not shuffled, or a folder read as one class"
    advice = "shuffle the training set (shuffle=True), and look at its labels"
    source = "there must be two classes to tell apart"
    threshold = 2
    min_labels = 256  # among fewer labels the other classes may be missing by chance

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        counts = data.label_counts()
        if counts is None or int((counts > 0).sum()) != 1:
            return
        n, label = int(counts.sum()), int(counts.argmax())
        yield self.verdict(
            "will not learn" if n >= self.min_labels else "note",
            f"all {n:,} labels read are {label}",
            1,
        )


class LabelsUnrelated(Rule):
    name = "labels-unrelated"
    cause = "labels that do not belong to the images: shuffled, or joined in another order"
    advice = "join labels to images by file name, and look at twenty images with their labels"
    # With shuffled labels the better of the two probes reaches 2.9 standard errors above chance.
    standard_errors = 3.5
    source = f"{standard_errors:g} standard errors above chance"
    # Cats and dogs are hard for a linear probe: with fewer images it proves nothing.
    min_images, min_images_of_rarest = 500, 20

    def finds_nothing(self, probe: LabelProbe) -> bool:
        return probe.accuracy < probe.above_chance(self.standard_errors)

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        probe = data.probe
        if probe is None or not self.finds_nothing(probe):
            return
        proven = probe.n >= self.min_images and probe.least >= self.min_images_of_rarest
        yield self.verdict(
            "will not learn" if proven else "note",
            f"a linear probe on small pictures and random filters names {probe.accuracy:.1%} of "
            f"the images that it was not fitted on (mean over classes), and guessing names "
            f"{probe.chance:.1%} (n {probe.n:,})",
            probe.accuracy,
            threshold=probe.chance,
        )


class ClassOrder(Rule):
    name = "class-order"
    cause = (
        "images come in class order, or are shuffled within a small window only: every batch pulls "
        "all outputs towards its few classes"
    )
    advice = "shuffle the whole training set every epoch (shuffle=True)"
    source = "healthy loaders measure 0.95 to 1.05"
    threshold = 0.7  # entropy of a batch's labels, divided by that of shuffled batches

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        counts = data.label_counts()
        if counts is None or int((counts > 0).sum()) == 1:
            return
        ratio = data.batch_entropy_ratio()
        if ratio is not None and ratio < self.threshold and data.train.n >= MIN_IMAGES:
            yield self.verdict(
                "will not learn",
                f"the labels of a batch have {ratio:.0%} of the entropy that they would have in "
                "shuffled batches",
                ratio,
            )


class InputScale(Rule):
    name = "input-scale"
    source = "initial weights are drawn for inputs of a deviation near 1"
    wild_loss = 2.0  # first loss in ln K, above which the scale already disturbs the network

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        if not data.has_wrong_scale() or list(ConstantInput().check_data(data)):
            return
        mean, std = data.train.mean.tolist(), data.train.std.tolist()
        deviation = float(data.train.std.mean())
        is_large = deviation > LARGE_INPUTS
        yield self.verdict(
            # The paper's own inputs are not divided: its weights are drawn for them.
            "learns badly" if self.disturbs(data) else "note",
            f"the inputs have a standard deviation of {deviation:.3g} (largest value "
            f"{data.train.largest:.3g})",
            deviation,
            threshold=LARGE_INPUTS if is_large else SMALL_INPUTS,
            cause="pixels that are not normalised as the initial weights expect "
            f"({'0 to 255' if is_large else 'divided twice'})",
            advice=f"subtract the mean ({', '.join(f'{m:.3g}' for m in mean)}) and divide by the "
            f"deviation ({', '.join(f'{s:.3g}' for s in std)})",
        )

    def disturbs(self, data: DataFindings) -> bool:
        """Whether the scale of the inputs disturbs the network: at the start, by raw pixels, or in
        first steps that would not burst on normalised inputs."""
        if not isinstance(data, NetworkFindings):
            return True
        if data.weights_explode():
            return False  # they do so at any scale of the inputs
        if data.signals.loss > self.wild_loss * data.ln_k():
            return True
        bursts_by_scale = data.bursts(data.trial) and not data.bursts(data.normalised_trial)
        return data.gets_raw_pixels() or bursts_by_scale


# The network before any step


class ActivationOnLogits(Rule):
    name = "activation-on-logits"
    advice = "remove the activation after the last layer"
    zero_logits = 0.1  # share of logits that are exactly 0, where none is negative
    activations = (
        *("Relu", "Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Clamp", "ClampMin", "LeakyRelu"),
    )

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        if network.classes < 2:
            return
        logits, ends_in = network.signals.logits, network.signals.ends_in
        zeros = (logits == 0).float().mean().item()
        low, high = float(logits.min()), float(logits.max())
        last = network.last_weight_layer()
        starts_at_zero = last is not None and last.rms == 0  # as some good networks do
        if low >= 0 and zeros > self.zero_logits and not starts_at_zero:
            at_ln_k = abs(network.signals.loss - math.log(network.classes)) < 1e-6
            yield self.verdict(
                "will not learn",
                f"{zeros:.0%} of the logits are exactly 0 and none is negative"
                + (", and the loss is exactly ln K" if at_ln_k else ""),
                zeros,
                threshold=self.zero_logits,
                cause="a ReLU after the last layer: a class whose logit is cut off gets no "
                "gradient, and once all are cut off, nothing changes any more",
                source="logits without an activation are never exactly 0",
            )
        elif (
            network.uses_cross_entropy
            and ends_in in self.activations
            and not (ends_in == "Relu" and starts_at_zero)
        ):
            yield self.verdict(
                "will not learn" if ends_in == "Relu" else "learns badly",
                f"the logits are the output of {ends_in} (from {low:.3g} to {high:.3g})",
                1,
                threshold=0,
                cause="an activation after the last layer: logits must be able to take any value, "
                "above and below 0",
                source="read from the gradient's graph",
            )


class SoftmaxTwice(Rule):
    name = "softmax-twice"
    advice = "let the network return logits; apply softmax only where probabilities are shown"
    source = "logits do not add up to a fixed number"
    threshold = 1

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        logits = network.signals.logits
        in_unit_range = float(logits.min()) >= 0 and float(logits.max()) <= 1
        by_image, by_class = (self._sums_to_one(logits, axis) for axis in (1, 0))
        if (
            network.classes < 2
            or not network.uses_cross_entropy
            or not in_unit_range
            or not (by_image or by_class)
            or _explained_by(network, ActivationOnLogits)
        ):
            return
        least_loss = math.log(1 + (network.classes - 1) / math.e)
        yield self.verdict(
            "learns badly",
            "the outputs lie between 0 and 1 and add up to 1"
            + ("" if by_image else " over the images of a batch: softmax over the wrong axis"),
            1,
            cause="the network ends in a softmax and the loss applies another one: the loss cannot "
            f"fall below {least_loss:.2f}, and gradients are small",
        )

    def _sums_to_one(self, logits: Tensor, axis: int) -> bool:
        return float((logits.sum(axis) - 1).abs().max()) < 1e-3


class FewLogits(Rule):
    name = "few-logits"
    cause = "a last layer that was made for another purpose"
    advice = "give the network as many outputs as there are classes"
    source = "cross-entropy needs one output for each class"
    threshold = 2

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        if network.classes < 2:
            yield self.verdict(
                "will not learn", f"the network has {network.classes} output", network.classes
            )


class Frozen(Rule):
    name = "frozen"
    cause = "the last layer was frozen with the others"
    source = "the last layer has to learn the classes"
    threshold = 0

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        last, frozen = network.last_weight_layer(), network.modes.frozen
        parameters = [p.name for p in network.signals.parameters]
        head = [name for name in parameters if last and name.startswith(f"{last.name}.")]
        if not head or not set(head) <= set(frozen):
            return
        is_everything = len(frozen) == len(parameters)
        yield self.verdict(
            "will not learn" if is_everything else "learns badly",
            f"the last layer ({', '.join(head)}) has requires_grad=False"
            + (", like all parameters" if is_everything else ""),
            len(frozen),
            advice=f"call requires_grad_(True) on {', '.join(head)}",
            where=head[0],
        )


class NotInOptimizer(Rule):
    name = "not-in-optimizer"
    cause = "the optimiser was made before the layer was, or from another network's parameters"
    advice = "make the optimiser from model.parameters() once the network is complete"
    source = "a parameter that no optimiser updates keeps its first value"
    threshold = 0

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        missing = network.modes.not_in_optimizer
        trained = sum(p.trained for p in network.signals.parameters)
        if missing:
            yield self.verdict(
                "will not learn" if len(missing) == trained else "learns badly",
                f"{len(missing)} of {trained} trained parameters are not in the optimiser; the "
                f"first is {missing[0]}",
                len(missing),
                where=missing[0],
            )


class NoGradient(Rule):
    name = "no-gradient"
    cause = "the graph is cut (detach, no_grad, .data, numpy), or the layer is not used"
    source = "every trained parameter takes part in the loss"
    threshold = 0

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        parameters = network.signals.parameters
        without = [p.name for p in parameters if p.trained and p.gradient is None]
        if without:
            is_everything = len(without) == sum(p.trained for p in parameters)
            yield self.verdict(
                "will not learn" if is_everything else "learns badly",
                f"no gradient arrives at {len(without)} of {len(parameters)} parameters; the first "
                f"is {without[0]}",
                len(without),
                advice=f"find what cuts the graph after {without[-1]}",
                where=without[0],
            )


class LinearLayers(Rule):
    name = "linear-layers"
    cause = "a missing activation: two linear layers in a row can do no more than one"
    advice = "put a ReLU after every convolution and hidden fully connected layer"
    source = "read from the gradient's graph; 1x1 convolutions are not counted"
    threshold = 2  # pairs of layers

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        pairs = len(network.signals.linear)
        if pairs >= self.threshold:
            yield self.verdict(
                "learns badly",
                f"{pairs} layers follow another layer without an activation between them",
                pairs,
            )


class StochasticEvaluation(Rule):
    name = "stochastic-evaluation"
    cause = "dropout, or other noise, is active in evaluation"
    advice = "call model.eval() before evaluation, and pass training=self.training to dropout"
    source = "float32 rounding gives less than 1e-6"
    threshold = EQUAL_WITHIN

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        distance = network.modes.random
        if distance > self.threshold:
            yield self.verdict(
                "misleads",
                f"two evaluations of the same images differ by {distance:.2g} of the logits' "
                "deviation",
                distance,
            )


class BatchInEvaluation(Rule):
    name = "batch-in-evaluation"
    cause = "batch norm uses the batch in evaluation"
    advice = "call model.eval() before evaluation; keep track_running_stats on"
    source = "float32 rounding gives less than 1e-5"
    threshold = 0.01  # of the logits' deviation

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        distance = network.modes.batchwise
        if distance > self.threshold and not _explained_by(network, StochasticEvaluation):
            yield self.verdict(
                "misleads",
                f"an image's logits change by {distance:.2g} of their deviation with the other "
                "images of its batch",
                distance,
            )


class TrainedConstant(Rule):
    name = "trained-constant"
    cause = (
        "a rate of dropout or noise is a parameter: training reduces the loss most easily by "
        "removing the noise"
    )
    source = "a parameter that acts in training alone cannot help evaluation"
    threshold = 0

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        for name in network.modes.train_only:
            yield self.verdict(
                "learns badly",
                f"{name} is a single trained number that changes the output in training and not in "
                "evaluation",
                1,
                advice=f"make {name} a plain number or a buffer",
                where=name,
            )


MAX_FIRST_LOSS = 2.0  # in ln K


class ExplodingSignal(Rule):
    name = "exploding-signal"
    symptom = True
    cause = "initial weights that are too large for the number of inputs of a unit"
    advice = "draw weights with a deviation of sqrt(2 / fan-in) (kaiming_normal_), or 0.01"
    source = "healthy networks measure 0.001 to 9"
    threshold = MAX_LOGIT_GAIN

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        loss, layers = network.signals.loss, network.signals.layers
        if not network.weights_explode() or not loss > MAX_FIRST_LOSS * network.ln_k():
            return
        worst = max([x for x in layers if x.has_weights] or layers, key=lambda x: x.gain)
        gain = network.logit_gain()
        yield self.verdict(
            "will not learn",
            f"inputs of deviation 1 give logits of deviation {gain:.3g}, and the first loss is "
            f"{loss:.4g} where ln {network.classes} is {math.log(network.classes):.3g}; "
            f"{worst.name} alone multiplies by {worst.gain:.3g}",
            gain,
            where=worst.name,
        )


class SquashingLayer(Rule):
    name = "squashing-layer"
    cause = "a saturated activation, or a normalisation whose constants are far too strong"
    advice = (
        "make the layer's inputs smaller, or its constants weaker (response norm: alpha 1e-4 on "
        "the sum)"
    )
    source = "ReLU and pooling measure 1.0, the paper's response norm 0.3 to 0.7"
    min_follows = -0.05  # change of the output in percent, where the input grows by one percent
    min_responds = 0.01  # share of a small change of the input that reaches the output
    bounded = ("Tanh", "Sigmoid", "Hardtanh", "Hardsigmoid", "Softsign", "ReLU6")

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        for layer in network.signals.layers:
            responds, follows = layer.responds, layer.follows
            name = f"{layer.name} ({layer.kind})"
            if layer.kind in self.bounded and responds is not None and responds < self.min_responds:
                yield self.verdict(
                    "learns badly",
                    f"{name} lets {responds:.1e} of a small change of its input through",
                    responds,
                    threshold=self.min_responds,
                    where=layer.name,
                )
                return
            if follows is not None and follows < self.min_follows:
                yield self.verdict(
                    "learns badly",
                    f"where the input of {name} grows by 1 %, its output changes by "
                    f"{follows:.2f} %",
                    follows,
                    threshold=self.min_follows,
                    where=layer.name,
                )
                return


class DeadUnits(Rule):
    name = "dead-units"
    symptom = True
    threshold = 0.9  # share of a layer's units that are 0 for every image, before training
    in_step = 0.95  # the same for the batch of one training step

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        yield from self.check_signals(network.signals, "before training")

    def check_signals(self, signals: SignalPropagation, when: str) -> Iterator[Verdict]:
        """The first layer whose units are 0 for every image; `when` says in words when it was."""
        layer = next(filter(self.is_dead, signals.layers), None)
        if layer is not None:
            yield self.verdict(
                "will not learn",
                f"{layer.dead:.0%} of the units of {layer.name} are 0 for every image {when}",
                layer.dead,
                cause="biases that are too negative, or steps so large that they pushed the units "
                "there: a ReLU that is off for all images gets no gradient",
                advice="lower the learning rate tenfold, and draw the biases as 0 or slightly "
                "positive",
                source="healthy networks measure less than 0.5",
                where=layer.name,
            )

    def is_dead(self, layer: LayerSignal) -> bool:
        # Weights of zero are how some networks start; only an activation is off for good.
        return layer.dead > self.threshold and not layer.has_weights and not layer.silent

    def check_step(self, look: StepLook) -> Iterator[Verdict]:
        for name, share in look.dead.items():
            in_both_looks = min(share, look.dead_before.get(name, 0.0))
            if in_both_looks <= self.in_step:
                continue
            # Nothing passes a layer that is off to its last unit. With a few units left, or where
            # it is off for images like these only, a network learns.
            yield self.verdict(
                _severity_in_training(look.learning, is_proof=in_both_looks == 1),
                f"{share:.0%} of the units of {name} are off for every image of a batch, at step "
                f"{look.step:,} and at the look before",
                share,
                threshold=self.in_step,
                cause="steps so large that they pushed units below zero for good",
                advice="none needed as long as the figures are good: the other units have learnt"
                if look.learning == "learnt"
                else "lower the learning rate tenfold and start from an earlier checkpoint",
                source="a unit that is off for all images gets no gradient",
                where=name,
            )


def _severity_in_training(learning: Learning, is_proof: bool) -> Severity:
    """Severity of a measurement at a step: it depends on whether the figures show learning."""
    if learning == "nothing":
        return "will not learn" if is_proof else "learns badly"
    return "note"


class StarvedSignal(Rule):
    name = "starved-signal"
    symptom = True
    cause = "weights so small beside the biases that only the biases reach the last layer"
    advice = "draw the biases as 0 or 0.1, or the weights larger"
    source = "healthy networks measure 1e-4 to 1"
    threshold = 2e-5

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        signal = network.signal_at_last_layer()
        if not signal < self.threshold or network.train.constant:
            return
        starved = (
            layer.name
            for layer in network.signals.layers
            if layer.arrives is not None and layer.arrives < self.threshold
        )
        first = next(starved, "")
        severity: Severity = "will not learn" if network.overfit_trial else "learns badly"
        if network.learns_from_images():
            severity = "note"  # networks whose branches start near zero recover in a few steps
        yield self.verdict(
            severity,
            f"before the last layer the activations of two images differ by 1 - cosine = "
            f"{signal:.1e}"
            + (f"; it is under {self.threshold:.0e} from {first} on" if first else ""),
            signal,
            where=first,
        )


class LargeInitialLoss(Rule):
    name = "large-initial-loss"
    symptom = True
    cause = "large inputs or weights make the network sure of its answers before it has learnt"
    advice = "draw the last layer's weights smaller (deviation 0.01)"
    source = "a network that knows nothing has a loss of ln K"

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        loss, limit = network.signals.loss, MAX_FIRST_LOSS * network.ln_k()
        if loss > limit and not _explained_by(network, ExplodingSignal):
            yield self.verdict(
                "note",
                f"the first loss is {loss:.4g}, and ln {network.classes} is "
                f"{math.log(network.classes):.3g}",
                loss,
                threshold=limit,
            )


# Steps, and the loss


class VanishingGradient(Rule):
    name = "vanishing-gradient"
    symptom = True
    cause = "gradients that are zero, or a learning rate that has fallen to almost nothing"
    advice = "stop here, or raise the learning rate"
    source = "float32 cannot add less than 6e-8 of a number to it"
    threshold = 1e-8  # rms(update) / rms(weight), for every weight

    def check_step(self, look: StepLook) -> Iterator[Verdict]:
        if (
            not look.updates
            or look.learning == "learnt"
            or look.schedule_is_ending
            or _explained_by(look, DecayAlone, RateTooHigh)
        ):
            return
        if max(update.ratio for update in look.updates) < self.threshold:
            yield self.verdict("learns badly", _update_size(look), look.update_ratio())


def _update_size(look: StepLook) -> str:
    ratio = look.update_ratio()
    return f"the update of step {look.step:,} is {ratio:.2g} times as large as the weights"


class NotFiniteLoss(Rule):
    name = "not-finite-loss"
    symptom = True
    cause = "steps that overshoot, or an image that is not finite"
    source = "a loss is a number"

    def advise(self) -> str:
        return f"lower the learning rate tenfold; run `{call('doctor', RECIPE)}` on the data"

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        for event in run.events:
            loss = getattr(event, "loss", None)
            is_finite = loss is None or math.isfinite(float(loss))
            if is_finite and not isinstance(event, DivergedEvent):
                continue
            where = getattr(event, "where", None) or "a weight"
            step = event.step or 0
            yield self.verdict(
                "will not learn",
                f"{where} is not finite at step {step:,}, where the loss was still "
                f"{float(loss or 0):.4g}"
                if is_finite
                else f"the loss is {loss} at step {step:,}",
                None,
            )
            return


LINES_IN_A_ROW = 3  # lines of figures; as many in a row are no chance
EQUAL_LOSSES = 1e-6  # nats


class LossIsLnK(Rule):
    name = "loss-is-ln-k"
    cause = (
        "all logits are equal: an activation on the logits that is off for every image, or weights "
        "that are all zero"
    )
    advice = "check the last layer: logits need no activation"
    source = "a network that guesses misses ln K by more than that"
    threshold = EQUAL_LOSSES

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        last = run.train[-LINES_IN_A_ROW:]
        if len(last) < LINES_IN_A_ROW:
            return
        classes = len(run.class_shares)
        distance = max(abs(event.loss - math.log(max(classes, 2))) for event in last)
        if distance < self.threshold:
            yield self.verdict(
                "will not learn",
                f"the loss is {last[-1].loss:.6f}, which is ln {classes} to six digits, since step "
                f"{last[0].step:,}",
                distance,
            )


class LossIsPrior(Rule):
    name = "loss-is-prior"
    may_end = True
    cause = (
        "the network gives every image the same answer: the image does not reach the logits, or "
        "the labels do not belong to the images"
    )
    source = "a network that ignores the images has the entropy of the labels as its loss"
    # The mean loss divided by that entropy. Noise of small batches keeps it above 1.
    lowest, threshold = 0.985, 1.06

    max_fall = 0.01  # of that entropy, from the first half of the plateau to the second
    val_images = 1000  # assumed where a line does not say how many it is about

    def advise(self) -> str:
        look = call("doctor", RECIPE)
        return f"run `{look}` on the same data: it measures where the image is lost"

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        train, val = run.train, run.val
        if len(train) < LINES_IN_A_ROW or train[-1].step < 2 * LEARNING_STEPS:
            return
        recent = [e for e in train if e.step >= train[-1].step - LEARNING_STEPS]
        rate_rises = (recent[-1].lr or 0.0) > (recent[0].lr or 0.0)
        if len(recent) < LINES_IN_A_ROW or rate_rises or list(LossIsLnK().check_run(run)):
            return
        recent_figures = RunFigures([*recent, *val[-1:]], run.class_shares)
        if recent_figures.learning() == "learnt":
            return
        entropy, constant_top1 = run.label_entropy, run.largest_share
        losses = [_mean_loss(event) for event in recent]
        half, mean_loss = len(losses) // 2, statistics.fmean(losses)
        fall = statistics.fmean(losses[:half]) - statistics.fmean(losses[half:])
        is_flat = abs(fall) < self.max_fall * entropy
        is_at_entropy = self.lowest * entropy < mean_loss < self.threshold * entropy
        last: TrainEvent | ValEvent = val[-1] if val else train[-1]
        error = math.sqrt(constant_top1 * (1 - constant_top1) / (last.n or self.val_images))
        at_chance = last.top1 is not None and last.top1 < constant_top1 + 3 * error
        if is_at_entropy and is_flat and at_chance:
            in_first_epoch = 0 < train[-1].epoch < 1
            yield self.verdict(
                "learns badly" if in_first_epoch else "will not learn",
                f"the loss is {mean_loss:.3f} on average and has not fallen since step "
                f"{recent[0].step:,}, and top-1 is {last.top1:.1%}; a network that ignores the "
                f"images has {entropy:.3f} and {constant_top1:.1%}",
                mean_loss / entropy,
            )


def _mean_loss(event: TrainEvent) -> float:
    """Loss over the epoch so far, or that of the last batch where a line does not have it."""
    return event.loss if event.loss_mean is None else event.loss_mean


class DecayAlone(Rule):
    name = "decay-alone"
    cause = (
        "weight decay, or an L2 term in the loss, is all that changes the weights: the loss may "
        "fall by it, and nothing is learnt from the images"
    )
    advice = "find what keeps the loss from depending on the weights; log the loss without L2"
    source = "updates that come from images measure -0.1 to 0.1"
    # Cosine between the update and minus the weight; Adam gives 0.8 by decay alone.
    threshold = 0.7

    def _verdict(self, severity: Severity, when: str, cosine: float) -> Verdict:
        return self.verdict(
            severity,
            f"{when} the weights move straight towards zero: the cosine between an update and "
            f"minus the weight is {cosine:.3f}, the median over weights",
            cosine,
        )

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        cosine = network.decay_cosine()
        if cosine is None or not cosine > self.threshold or network.is_already_trained():
            return
        if network.rated_trial() is not None and not _explained_by(network, NoSteps):
            yield self._verdict("will not learn", "in trial steps", cosine)

    def check_step(self, look: StepLook) -> Iterator[Verdict]:
        # A network that has learnt its images gets almost no gradient from them.
        is_learnt = look.learning == "learnt"
        if not look.updates or is_learnt or _explained_by(look, RateTooHigh):
            return
        cosine, untaught = look.decay_cosine(), look.untaught == 1
        if cosine > self.threshold and (untaught or look.learning == "nothing"):
            in_both_looks = untaught and look.untaught_before == 1
            severity = _severity_in_training(look.learning, is_proof=in_both_looks)
            yield self._verdict(severity, f"at step {look.step:,}", cosine)


class RateJumped(Rule):
    name = "rate-jumped"
    cause = "the schedule started again: step, epoch or optimiser were not restored"
    advice = "restore the step and the schedule with the weights"
    source = "a schedule does not depend on restarts"
    # Rate after a restart divided by the rate before it, beyond the rise of the schedule itself.
    threshold = 1.5

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        for earlier, last, first in _restarts(run):
            rate_before, rate = last.lr or 0.0, first.lr or 0.0
            rise = rate_before / (earlier.lr or 0.0) if earlier else 1.0
            if rate > self.threshold * max(rise, 1.0) ** 2 * rate_before:
                yield self.verdict(
                    "learns badly",
                    f"the learning rate went from {rate_before:.3g} to {rate:.3g} when the run was "
                    f"continued at step {first.step:,}",
                    rate / rate_before,
                )


class OrderJumped(Rule):
    name = "order-jumped"
    cause = "the epoch started again: some images come twice in it, others never"
    advice = "restore the place in the epoch, and the seed of its order, with the weights"
    source = "steps and epochs go forward together"
    threshold = 0

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        for _, last, first in _restarts(run):
            if first.step > last.step and first.epoch < last.epoch:
                yield self.verdict(
                    "learns badly",
                    f"the epoch went from {last.epoch:.3f} back to {first.epoch:.3f} when the run "
                    f"was continued at step {first.step:,}",
                    last.epoch - first.epoch,
                )


def _restarts(run: RunFigures) -> Iterator[tuple[TrainEvent | None, TrainEvent, TrainEvent]]:
    """The last two training lines before each restart, and the first one after it.

    Lines without a learning rate do not count. The first of the three is None where there was but
    one line before the restart.
    """
    before: list[TrainEvent] = []
    resumed = False
    for event in run.events:
        resumed = resumed or isinstance(event, ResumeEvent)
        if not isinstance(event, TrainEvent) or not event.lr:
            continue
        if resumed and before:
            yield (before[-2] if len(before) > 1 else None), before[-1], event
        before, resumed = [*before[-1:], event], False


class RateTooHigh(Rule):
    name = "rate-too-high"
    symptom = True
    source = "healthy first updates measure 1e-4 to 3e-2"
    threshold = 0.05  # rms(update) / rms(weight) of the trial, the median over weights
    in_step = 0.3  # the same of a training step
    recovery = 0.75  # last losses divided by the highest: biases of 1 cost a dozen steps
    # Share of dead units in a layer. Unbroken networks measure up to 0.97, killed ones 1.0.
    dead_after_trial = 0.99

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        rated, test = network.rated_trial(), network.rate_test
        if rated is None or _explained_by(network, NoSteps, DecayAlone):
            return
        trial, rate = rated
        first, last = trial.losses[0], statistics.fmean(trial.losses[-4:])
        update, ln_k = network.update_ratio() or 0.0, network.ln_k()
        recovers = statistics.fmean(trial.losses[-2:]) < self.recovery * max(trial.losses)
        rises = last > max(first, ln_k) + BURST * ln_k and not recovers
        killed = self._killed_layer(network)
        is_finite, is_large = math.isfinite(last), update > self.threshold
        if is_finite and not rises and not is_large and not killed:
            return
        effect = f"the loss went from {first:.3g} to {last:.3g} in {len(trial.losses)} steps"
        if not is_finite:
            effect = "the loss is not finite"
        elif killed:
            effect += f", {killed[1]:.0%} of the units of {killed[0]} died"
        limit, best = (test.limit, test.best) if test else (None, None)
        advised = best or rate / 10
        is_fatal = bool(killed) or not is_finite or (last > 2 * ln_k and not recovers)
        yield self.verdict(
            "will not learn" if is_fatal else "learns badly",
            f"at learning rate {rate:g} {effect}, and the first update moved the weights by "
            f"{update:.2g} of their size"
            + (f"; the loss rises steeply from a rate of {limit:.1g} on" if limit else ""),
            update,
            cause="steps that overshoot",
            advice=f"try a learning rate of {min(advised, rate / 3):.1g}",
        )

    def _killed_layer(self, network: NetworkFindings) -> tuple[str, float] | None:
        """The first layer whose units died in the trial steps, with their share."""
        dead_before = {
            layer.name for layer in network.signals.layers if layer.dead > DeadUnits.threshold
        }
        for name, share in network.dead_after_trial.items():
            if share > self.dead_after_trial and name not in dead_before:
                return name, share
        return None

    def check_step(self, look: StepLook) -> Iterator[Verdict]:
        if not look.updates:
            return
        ratio = look.update_ratio()
        if ratio > self.in_step or not math.isfinite(ratio):
            yield self.verdict(
                "learns badly",
                _update_size(look),
                ratio,
                threshold=self.in_step,
                cause="a learning rate that is too high",
                advice="lower the learning rate tenfold",
                source="healthy updates are less than a tenth of the weights",
            )


class RateTooLow(Rule):
    name = "rate-too-low"
    cause = "a learning rate for another optimiser, or a schedule that starts too low"
    source = "the rate test before training, on one batch"
    too_small = 300.0  # times smaller than the best rate of the rate test
    no_fall, clear_fall = 0.98, 0.7  # loss after the trial, and after the best rate: of the first

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        rated, test, at_best = network.rated_trial(), network.rate_test, network.overfit_trial
        if rated is None or test is None or not test.best or at_best is None:
            return
        trial, rate = rated
        limit = test.best / self.too_small
        if rate >= limit or _explained_by(network, NoSteps, DecayAlone, RateTooHigh):
            return
        stands_still = statistics.fmean(trial.losses[-4:]) > self.no_fall * trial.losses[0]
        if stands_still and min(at_best.losses) < self.clear_fall * at_best.losses[0]:
            yield self.verdict(
                "learns badly",
                f"the learning rate is {rate:g}, and the loss falls fastest at {test.best:.1g}",
                rate,
                threshold=limit,
                advice=f"try a learning rate of {test.best / 3:.1g}",
            )


class NoSteps(Rule):
    name = "no-steps"
    cause = "a learning rate of zero, or gradients that are all zero"
    advice = "set a learning rate above zero; with one, check that gradients arrive at the weights"
    source = "an update has to move the weights"
    threshold = 0

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        rated = network.rated_trial()
        if rated is None:
            return
        trial, rate = rated
        stands_still = trial.updates and max(u.ratio for u in trial.updates.values()) == 0
        if rate == 0 or stands_still:
            yield self.verdict(
                "will not learn",
                f"a step changes nothing (learning rate {rate:g})",
                network.update_ratio() or 0.0,
            )


class CannotOverfit(Rule):
    name = "cannot-overfit"
    cause = "the network learns slowly at first (small initial weights), or not at all"
    advice = "follow the other verdicts; if there are none, train for more steps"
    source = "entropy of the labels"
    learnt = 0.9  # of the entropy of the labels

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        trial = network.overfit_trial
        if trial is None or not trial.losses:
            return
        counts = torch.bincount(torch.cat(network.train.labels).clamp(min=0))
        entropy = min(network.label_entropy(), math.log(max(int((counts > 0).sum()), 1)))
        lowest = min(
            statistics.fmean(trial.losses[i : i + 3]) for i in range(max(len(trial.losses) - 2, 1))
        )
        if lowest > self.learnt * entropy:
            yield self.verdict(
                "note",
                f"in {len(trial.losses)} steps on 32 images the loss fell to {lowest:.3g}; a "
                f"network that ignores the images reaches {entropy:.3g}",
                lowest,
                threshold=self.learnt * entropy,
            )


# Validation, and figures that mislead


class SplitsShifted(Rule):
    name = "splits-shifted"
    cause = (
        "the two splits number their classes differently (lists sorted differently, one counted "
        "from 1, a class missing in one), or validation's labels do not belong to its images"
    )
    advice = (
        "number the classes once, by the names of the training set, use these numbers for both "
        "splits, and look at twenty validation images with their labels"
    )
    standard_errors = 4.0
    source = f"{standard_errors:g} standard errors"
    half = 0.5  # of the probe's accuracy above chance on train

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        probe = data.probe
        if probe is None or LabelsUnrelated().finds_nothing(probe):
            return
        if len(probe.shifts) < 2 or not data.val_has_mixed_classes():
            return
        best_shift = max(range(len(probe.shifts)), key=lambda shift: probe.shifts[shift])
        margin = self.standard_errors * math.sqrt(0.25 / max(probe.val_n, 1))
        on_val = probe.shifts[0]
        expected = probe.chance + self.half * (probe.accuracy - probe.chance)
        if best_shift and probe.shifts[best_shift] > on_val + margin:
            better = (
                f"with the labels moved by {best_shift} it names {probe.shifts[best_shift]:.1%}"
            )
        elif on_val + margin < min(probe.renamed, expected):
            better = f"with the classes renumbered it names {probe.renamed:.1%}"
        elif (
            probe.accuracy > probe.above_chance(CLEARLY_ABOVE_CHANCE) and on_val + margin < expected
        ):
            better = f"of training images that it was not fitted on it names {probe.accuracy:.1%}"
        else:
            return
        yield self.verdict(
            "misleads",
            f"a linear probe fitted on train names {on_val:.1%} of validation (n {probe.val_n:,}, "
            f"mean over classes); {better}",
            on_val,
            threshold=max(probe.shifts[best_shift], probe.renamed, expected),
        )


class SplitsDiffer(Rule):
    name = "splits-differ"
    cause = "validation images are normalised differently from training images"
    advice = "normalise both by the same function, with the training set's mean and deviation"
    source = "splits of one set measure less than 0.1"
    threshold = 0.5  # of train's deviation

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        distance, ratio = data.split_distance() or (0.0, 1.0)
        differ = distance > self.threshold or ratio > 1 + self.threshold
        if not differ or not data.val_has_mixed_classes() or _val_is_train(data):
            return
        yield self.verdict(
            "misleads",
            f"validation's mean is {distance:.2f} of train's deviations away, and its deviation is "
            f"{ratio:.2f} times as large or small",
            max(distance, ratio - 1),
        )


class ValidationIsTraining(Rule):
    name = "validation-is-training"
    shared = 0.5  # share of validation images that are training images
    equal_lines = 2  # validations whose loss equals the training loss
    tiny_loss = 1e-3  # nats; losses below it agree by chance

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        if data.val is None or not _val_is_train(data):
            return
        share = shared_share(data.train, data.val)
        yield self.verdict(
            "misleads",
            f"{share:.0%} of {data.val.n:,} validation images are training images, bit for bit",
            share,
            threshold=self.shared,
            cause="the training batch or the training loader is used for validation",
            advice="give validation its own images, which training never sees",
            source="splits must be disjoint",
        )

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        train_losses = {event.step: event.loss for event in run.train}
        equal = [
            event.loss
            for event in run.val
            if event.loss > self.tiny_loss
            and abs(train_losses.get(event.step, math.inf) - event.loss) < EQUAL_LOSSES
        ]
        if len(equal) >= self.equal_lines and len(set(equal)) > 1:
            yield self.verdict(
                "misleads",
                f"validation and training loss agree to six digits at {len(equal)} of "
                f"{len(run.val)} steps",
                len(equal),
                threshold=self.equal_lines,
                cause="the training batch is used for validation",
                advice="give validation its own images",
                source="two splits do not agree by chance",
            )


def _val_is_train(data: DataFindings) -> bool:
    has_val = data.val is not None and data.val.n > 0
    return has_val and _shared(data) > ValidationIsTraining.shared


def _shared(data: DataFindings) -> float:
    return 0.0 if data.val is None else shared_share(data.train, data.val)


class SharedImages(Rule):
    name = "shared-images"
    cause = "copies of the same image in both splits"
    source = "published sets have less than 0.1 %"
    threshold = 0.002  # share of validation images

    def advise(self) -> str:
        check = call("data check")
        return f"remove them from one split: `{check}` lists duplicates across splits"

    def check_data(self, data: DataFindings) -> Iterator[Verdict]:
        share = _shared(data)
        if data.val is None or share <= self.threshold or _val_is_train(data):
            return
        yield self.verdict(
            "misleads",
            f"{share:.2%} of {data.val.n:,} validation images are among {data.train.n:,} training "
            "images",
            share,
        )


class Ties(Rule):
    name = "ties"
    cause = "logits that are exactly equal: cut off at 0, or rounded to few bits"
    advice = "compute the last layer in float32, without an activation"
    source = "float32 logits do not tie"
    threshold = 0.01

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        for metric in ("top1", "top5"):
            for event in run.val:
                high = getattr(event, f"{metric}_optimistic")
                low = getattr(event, f"{metric}_pessimistic")
                if high is not None and low is not None and high - low > self.threshold:
                    yield self.verdict(
                        "misleads",
                        f"{metric} at step {event.step:,} is between {low:.1%} and {high:.1%}, "
                        "depending on how ties are counted",
                        high - low,
                    )
                    return


class Overfitting(Rule):
    name = "overfitting"
    cause = "more steps than the images can support: the network learns them by heart"
    source = "the lowest validation loss of the run"
    threshold = 1.1  # validation loss divided by its lowest
    val_images = 1000  # assumed where a line does not say how many it is about

    def advise(self) -> str:
        return (
            f"use the best checkpoint; shift, mirror or mix the images ({option('shift')}, "
            f"{option('flip', True)}, {option('cutmix')}), raise {option('dropout')} or "
            f"{option('weight_decay')}, or stop early ({option('early_stop')})"
        )

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        if len(run.val) < LINES_IN_A_ROW + 1 or not run.train:
            return
        best, last = min(run.val, key=lambda event: event.loss), run.val[-1]
        last_train = run.train[-1]
        if last.top1 is None or best.top1 is None:
            return
        after = [event.loss for event in run.val if event.step > best.step]
        lowest_of_last = min(after[-LINES_IN_A_ROW:], default=0.0)
        rises = len(after) >= LINES_IN_A_ROW and lowest_of_last > self.threshold * best.loss
        train_falls = _mean_loss(last_train) < best.loss / self.threshold
        error = math.sqrt(0.25 / (last.n or self.val_images))
        top1_rises = last.top1 > best.top1 + error
        if not rises or not train_falls or top1_rises:
            return
        train_top1 = last_train.top1 or 0.0
        yield self.verdict(
            "learns badly",
            f"validation loss rose from {best.loss:.3f} (step {best.step:,}) to {last.loss:.3f}; "
            f"top-1 is {train_top1:.1%} in training and {last.top1:.1%} on validation, a "
            f"difference of {train_top1 - last.top1:.1%}",
            last.loss / best.loss,
        )


# Harmless, and worth a word


class StarvedLoader(Rule):
    name = "starved-loader"
    cause = "images are read and decoded more slowly than the network uses them"
    source = "a packed set keeps it under 5 %"
    threshold = 0.2  # share of the time, the median over lines

    def advise(self) -> str:
        return f"pack the images (`{call('data pack')}`), or raise {option('workers')}"

    def check_run(self, run: RunFigures) -> Iterator[Verdict]:
        waits = sorted(e.data_wait for e in run.train[1:] if e.data_wait is not None)
        if len(waits) < LINES_IN_A_ROW:
            return
        median = waits[len(waits) // 2]
        if median > self.threshold:
            yield self.verdict(
                "note", f"training waits for images {median:.0%} of the time", median
            )


class ClassMissing(Rule):
    name = "class-missing"
    cause = "an empty class folder, or a network with more outputs than there are classes"
    advice = "check the class list; remove outputs that no image teaches"
    source = "chance would leave a class out once in e^10 times"
    threshold = 0
    min_expected = 10  # images that a class would have by equal shares

    def check_network(self, network: NetworkFindings) -> Iterator[Verdict]:
        counts = network.label_counts()
        if counts is None or int((counts > 0).sum()) == 1:
            return
        missing = (counts == 0).nonzero()[:, 0].tolist()
        n = int(counts.sum())
        if missing and n / network.classes > self.min_expected:
            yield self.verdict(
                "note",
                f"{len(missing)} of {network.classes} classes have no image among {n:,}; the first "
                f"is {missing[0]}",
                len(missing),
            )


# Derived from the classes above

CAUSES = tuple(rule.name for rule in RULES)
SYMPTOMS = {rule.name for rule in RULES if rule.symptom}
MAY_END = {rule.name for rule in RULES if rule.may_end}
