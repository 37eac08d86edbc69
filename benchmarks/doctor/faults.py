"""The fault library: a healthy case, and what can be wrong with its network, data or optimiser."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from alexnet.models.layers import ResponseNorm

BATCH = 64


@dataclass
class Case:
    """A network, its data as the network gets them (N, C, H, W), and how it is optimised."""

    model: nn.Module
    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor
    rate: float = 0.01
    adam: bool = False
    left_out: tuple[str, ...] = ()
    shuffle: bool = True
    seed: int = 0
    raw: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.zeros(1), torch.ones(1)))

    def optimizer(self) -> torch.optim.Optimizer:
        held = [p for n, p in self.model.named_parameters() if n not in self.left_out]
        if self.adam:
            return torch.optim.Adam(held, self.rate)
        return torch.optim.SGD(held, self.rate, momentum=0.9, weight_decay=5e-4)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.y))
        if self.shuffle:
            order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(self.seed))
        return [(self.x[part], self.y[part]) for part in order.split(BATCH)]

    def val_batches(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.val_x.split(BATCH), self.val_y.split(BATCH), strict=True))


@dataclass(frozen=True)
class Fault:
    """`causes` are the names that are right; `apply` breaks a case; `needs` a kind of module.

    `harmless` are networks that were measured to learn in spite of it: there it is as right to find
    nothing.
    """

    name: str
    causes: tuple[str, ...]
    apply: Callable[[Case], Case]
    needs: type | None = None
    harmless: tuple[str, ...] = ()


# The network


class Then(nn.Module):
    """A network and what is wrongly put after it."""

    def __init__(self, net: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.after = net, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(x))


class LiveDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, True)


class TrainedKeep(nn.Module):
    """Dropout whose keep-probability is a parameter, as in the diary."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand_like(x) < self.keep) / self.keep


class LiveNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True)


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def weights(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def swapped(net: nn.Module, swap: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Modules without modules in them, exchanged in place."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if not any(True for _ in child.children()) and (new := swap(child)) is not None:
                setattr(module, name, new)
    return net


def drawn(case: Case, std: float | None, bias: float | None) -> Case:
    torch.manual_seed(case.seed)
    for module in weights(case.model):
        if std is not None:
            nn.init.normal_(module.weight, 0, std)  # type: ignore[arg-type]
        if bias is not None and module.bias is not None:
            nn.init.constant_(module.bias, bias)  # type: ignore[arg-type]
    return case


def linear_convolutions(case: Case) -> Case:
    """Takes every activation away that comes before the first fully connected layer."""
    hidden = [m for m in case.model.modules() if not any(True for _ in m.children())]
    first = next(i for i, m in enumerate(hidden) if isinstance(m, nn.Linear))
    gone = {id(m) for m in hidden[:first] if isinstance(m, nn.ReLU)}
    swapped(case.model, lambda m: nn.Identity() if id(m) in gone else None)
    return case


def before_middle(case: Case, module: nn.Module) -> Case:
    """Puts a module in front of the middle layer of weights."""
    layers = weights(case.model)
    middle = layers[len(layers) // 2]
    first = [nn.Flatten()] if isinstance(middle, nn.Linear) else []
    swapped(case.model, lambda m: nn.Sequential(*first, module, m) if m is middle else None)
    return case


def head_frozen(case: Case) -> Case:
    for p in weights(case.model)[-1].parameters():
        p.requires_grad_(False)
    return case


def head_left_out(case: Case) -> Case:
    names = [name for name, _ in case.model.named_parameters()][:2]
    return replace(case, left_out=tuple(names))


def strong_norm(case: Case) -> Case:
    for module in case.model.modules():
        if hasattr(module, "constants"):
            constants = module.constants
            module.constants = {**constants, "alpha": constants["alpha"] * 1e5}
    return case


def live_dropout(case: Case) -> Case:
    return before_middle(case, LiveDropout(0.5))


# The data


def class_order(case: Case) -> Case:
    order = case.y.argsort(stable=True)
    return replace(case, x=case.x[order], y=case.y[order], shuffle=False)


def badly_shuffled(case: Case) -> Case:
    """Class order, shuffled within a window of 200 images."""
    order = case.y.argsort(stable=True)
    chance = torch.Generator().manual_seed(case.seed)
    order = torch.cat(
        [part[torch.randperm(len(part), generator=chance)] for part in order.split(200)]
    )
    return replace(case, x=case.x[order], y=case.y[order], shuffle=False)


def shuffled_labels(case: Case) -> Case:
    chance = torch.Generator().manual_seed(case.seed)
    return replace(case, y=case.y[torch.randperm(len(case.y), generator=chance)])


def not_numbers(case: Case) -> Case:
    x = case.x.clone()
    x[::100, :, 3, 3] = float("nan")
    return replace(case, x=x)


def as_bytes(case: Case, x: Tensor) -> Tensor:
    mean, std = case.raw
    return x * std[:, None, None] + mean[:, None, None]


def copies(case: Case) -> Case:
    val = case.val_x.clone()
    val[: len(val) // 10] = case.x[: len(val) // 10]
    labels = case.val_y.clone()
    labels[: len(val) // 10] = case.y[: len(val) // 10]
    return replace(case, val_x=val, val_y=labels)


def with_model(case: Case, model: nn.Module) -> Case:
    return replace(case, model=model)


FAULTS = [
    Fault("healthy", (), lambda c: c),
    Fault("ReLU on the logits", ("activation-on-logits",),
          lambda c: with_model(c, Then(c.model, torch.relu))),
    Fault("softmax twice", ("softmax-twice",),
          lambda c: with_model(c, Then(c.model, lambda x: x.softmax(1)))),
    Fault("linear convolutions", ("linear-layers",), linear_convolutions),
    Fault("weights N(0, 1)", ("exploding-signal",), lambda c: drawn(c, 1.0, None)),
    # Batch norm undoes the scale of weights, and before a ReLU the biases too: after 200 steps
    # alexnet-28 names 93 to 96 % of held-out digits with each of these.
    Fault("weights N(0, 0.1)", ("exploding-signal",), lambda c: drawn(c, 0.1, None),
          harmless=("alexnet-28", "cifar-alexnet")),
    Fault("std 0.01 and bias 1", ("starved-signal",), lambda c: drawn(c, 0.01, 1.0),
          harmless=("alexnet-28", "cifar-alexnet")),
    Fault("bias -5", ("dead-units",), lambda c: drawn(c, None, -5.0), harmless=("alexnet-28",)),
    Fault("Adam at 10x", ("rate-too-high",), lambda c: replace(c, adam=True, rate=0.01)),
    Fault("momentum at 100x", ("rate-too-high",), lambda c: replace(c, rate=c.rate * 100)),
    Fault("learning rate 0", ("no-steps",), lambda c: replace(c, rate=0.0)),
    Fault("class order", ("class-order", "one-class"), class_order),
    Fault("class order, badly shuffled", ("class-order",), badly_shuffled),
    Fault("training as validation", ("validation-is-training",),
          lambda c: replace(c, val_x=c.x[: len(c.val_x)], val_y=c.y[: len(c.val_y)])),
    Fault("dropout at evaluation", ("stochastic-evaluation",), live_dropout),
    Fault("batch norm at evaluation", ("batch-in-evaluation",),
          lambda c: before_middle(c, _live_norm(c))),
    Fault("trained keep-probability", ("trained-constant",),
          lambda c: before_middle(c, TrainedKeep())),
    Fault("labels from 1", ("labels-out-of-range",), lambda c: replace(c, y=c.y + 1)),
    Fault("validation labels shifted", ("splits-shifted",),
          lambda c: replace(c, val_y=(c.val_y + 1) % 10)),
    Fault("shuffled labels", ("labels-unrelated",), shuffled_labels),
    Fault("constant images", ("constant-input",), lambda c: replace(c, x=torch.zeros_like(c.x))),
    Fault("one image", ("constant-input",), lambda c: replace(c, x=c.x[:1].expand_as(c.x))),
    Fault("inputs 0 to 255", ("input-scale",),
          lambda c: replace(c, x=as_bytes(c, c.x), val_x=as_bytes(c, c.val_x)),
          harmless=("alexnet-28", "cifar-alexnet")),
    Fault("response norm 1e5 times too strong", ("squashing-layer",), strong_norm, ResponseNorm),
    Fault("detached layer", ("no-gradient",), lambda c: before_middle(c, Cut())),
    Fault("frozen head", ("frozen",), head_frozen),
    Fault("layer not in the optimiser", ("not-in-optimizer",), head_left_out),
    Fault("validation 0 to 255", ("splits-differ",),
          lambda c: replace(c, val_x=as_bytes(c, c.val_x))),
    Fault("copies in validation", ("shared-images",), copies),
    Fault("1 % NaN images", ("not-finite-input",), not_numbers),
]  # fmt: skip


def _live_norm(case: Case) -> nn.Module:
    layers = weights(case.model)
    middle = layers[len(layers) // 2]
    if isinstance(middle, nn.Conv2d):
        return LiveNorm(middle.in_channels)
    return _LiveNorm1d(middle.in_features)  # type: ignore[arg-type]


class _LiveNorm1d(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True)
