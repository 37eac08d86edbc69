"""Several processes that train one network: who they are, and what they tell each other.

torchrun starts them; torch.distributed carries what is exchanged, over gloo between CPUs and NCCL
between GPUs. Each sees its share of the batch that one process would see.
"""

import inspect
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from alexnet.errors import AlexNetError, Elsewhere, UsageError
from alexnet.models.net import Net

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # for what one process does while the others wait
CONTINUE = "continue with --resume from the last checkpoint"


@dataclass(frozen=True)
class Team:
    """This process among those that train together.

    `rank` of `ranks` counts those that see different images, `tower` of `towers` those that hold
    different parts of the network. `images` and `pair` are torch's groups of the two kinds.
    """

    rank: int = 0
    ranks: int = 1
    tower: int = 0
    towers: int = 1
    images: Any = None
    pair: Any = None

    @property
    def size(self) -> int:
        return self.ranks * self.towers

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0 and self.tower == 0

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over those that see different images, in the same order at every call."""
        if self.ranks > 1:
            numbers = numbers.clone()
            dist.all_reduce(numbers, group=self.images)
        return numbers

    def gather(self, numbers: Tensor) -> list[Tensor]:
        """What each of those that see different images has, by rank."""
        if self.ranks == 1:
            return [numbers]
        found = [torch.empty_like(numbers) for _ in range(self.ranks)]
        dist.all_gather(found, numbers, group=self.images)
        return found

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number that any process has. On CPUs: no GPU waits for it."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return found.tolist()

    def together(self, work: Callable[[], T]) -> T:
        """The result of `work`, which every process does; what one of them raises ends all.

        The first of those that fail says why, the others raise Elsewhere.
        """
        error, found = None, None
        try:
            found = work()
        except AlexNetError as raised:
            error = raised
        own = self.rank * self.towers + self.tower
        status = error.exit_status if error else 0
        last, status = self.largest(self.size - own if error else 0, status)
        if error is not None and last == self.size - own:
            raise error
        if last:
            raise Elsewhere(exit_status=status)
        return found  # type: ignore[return-value]

    def first(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain data that `work` gives the first process, on every one. If it fails, all end."""
        found = self.together(lambda: work() if self.leads else {})
        if self.size == 1:
            return found
        # As JSON and not by torch's object collectives, which would unpickle.
        text = torch.tensor(list(json.dumps(found).encode()), dtype=torch.uint8)
        length = torch.tensor([len(text)])
        dist.broadcast(length, 0)
        text = text if self.leads else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))  # type: ignore[no-any-return]


ALONE = Team()
_joined = itertools.count()


@contextmanager
def join(towers: int = 1, remedy: str = CONTINUE) -> Iterator[Team]:
    """The team of this process: of those that torchrun started, or itself alone.

    `remedy` is what to do when another one is gone.
    Raises UsageError where the processes cannot be divided among the towers.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1
    if towers < 1 or size % towers:
        raise UsageError(
            f"towers {towers}: a process each is needed, and there are {size}: start them with "
            f"torchrun --nproc-per-node {max(towers, 1)} -m -- alexnet train ..."
        )
    if size == 1:
        yield ALONE
        return
    own = int(os.environ["RANK"])
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    # One meeting place for the life of the process: a second one at the same port could be found
    # while the first is still there. So a program may train and then test.
    place = dist.PrefixStore(f"alexnet-{next(_joined)}", _meeting_place())  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=place, rank=own, world_size=size, timeout=PATIENCE)
    try:
        ranks = size // towers
        images = [dist.new_group(list(range(t, size, towers))) for t in range(towers)]
        pairs = [dist.new_group(list(range(towers * r, towers * (r + 1)))) for r in range(ranks)]
        rank, tower = divmod(own, towers)
        with lost_others(remedy):
            yield Team(rank, ranks, tower, towers, images[tower], pairs[rank])
    finally:
        dist.destroy_process_group()


@cache
def _meeting_place() -> Any:
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    store.set_timeout(PATIENCE)
    return store


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that failed."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def lost_others(remedy: str) -> Iterator[None]:
    """Turns what torch raises when another process of the team ends into one line."""
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        if not (isinstance(error, dist.DistError) or "gloo" in words or "process group" in words):
            raise
        raise Elsewhere(
            "another process of this run ended; its last lines, or torchrun's, say why: "
            f"{remedy} ({words.splitlines()[0][:120]})"
        ) from error


def spread(net: Net, team: Team) -> nn.Module:
    """The network as it is trained by a team: gradients are means over the ranks, batch norms see
    the images of all of them.

    Bits depend on the number of ranks and not on where a run was cut.
    """
    if team.ranks == 1:
        return net
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net, team.images)  # type: ignore[no-untyped-call]
    else:
        for path, module in list(net.named_modules()):
            if isinstance(module, _BatchNorm):
                home, _, leaf = path.rpartition(".")
                setattr(net.get_submodule(home), leaf, GlobalBatchNorm(module, team.images))
    # Buffers are equal by themselves; how to say so changed in torch 2.13.
    known = inspect.signature(DistributedDataParallel).parameters
    word = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    alone: dict[str, Any] = {word: False}
    many = DistributedDataParallel(net, process_group=team.images, **alone)
    # After the first backward pass DDP sorts the gradients into other buckets, in which a ring
    # adds in another order. So that happens here, before the first step and after every restart.
    mode, p = net.training, next(net.parameters())
    net.eval()
    many(torch.zeros(1, *net.input_shape, device=p.device)).sum().backward()
    net.zero_grad(set_to_none=True)
    net.train(mode)
    return many


def summed(x: Tensor, group: Any) -> Tensor:
    """The sum over a group of processes; its gradient is the sum of theirs."""
    total: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return total


def joined(x: Tensor, group: Any) -> Tensor:
    """The processes' (n, c) side by side, (n, count c) on all; each gets the sum of the gradients
    of its part."""
    whole: Tensor = _Join.apply(x, group)  # type: ignore[no-untyped-call]
    return whole


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return summed(gradients[0], ctx.group), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group, own = group, x.contiguous()
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, own, group=group)
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        parts = torch.stack(gradients[0].chunk(dist.get_world_size(ctx.group), 1)).contiguous()
        theirs = torch.empty_like(parts)
        dist.all_to_all_single(theirs, parts, group=ctx.group)
        return theirs.sum(0), None


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the images of all ranks, on CPUs, where torch's SyncBatchNorm does not work.

    Shapes: (n, C, ...) -> the same; n may differ between ranks. Sums of float64 are exchanged, and
    their gradients. It holds the tensors of the batch norm that it is made from.
    """

    def __init__(self, of: _BatchNorm, group: Any) -> None:
        super().__init__(of.num_features, of.eps, of.momentum)
        self.weight, self.bias, self.group = of.weight, of.bias, group
        for name, buffer in of.named_buffers():
            setattr(self, name, buffer)
        self.train(of.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        wide = input.float()
        others = [i for i in range(input.dim()) if i != 1]
        var, mean = torch.var_mean(wide, others, correction=0)
        count = wide.new_full((1,), input.numel() / input.shape[1], dtype=torch.float64)
        local = torch.cat([mean.double(), var.double() + mean.double() ** 2, count.new_ones(1)])
        total = summed(local * count, self.group)
        n = total[-1]
        mean, square = (total[:-1] / n).chunk(2)
        var = square - mean**2
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean.float(), self.momentum)  # type: ignore[union-attr,arg-type]
            unbiased = (var * n / (n - 1)).float()
            self.running_var.lerp_(unbiased, self.momentum)  # type: ignore[union-attr,arg-type]
        scale = self.weight * (var + self.eps).rsqrt().float()
        shift = self.bias - mean.float() * scale
        shape = [1, -1, *[1] * (input.dim() - 2)]
        out: Tensor = wide * scale.view(shape) + shift.view(shape)
        return out.to(input.dtype)
