"""A network over several processes: what they sum, and the gradients that go through the sums."""

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from alexnet.models.net import Net
from alexnet.training.parallel import Team


def distribute(net: Net, team: Team) -> nn.Module:
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
