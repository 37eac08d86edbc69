"""Several processes that train one network: who they are, and what they tell each other.

torchrun starts them; torch.distributed carries what is exchanged, over gloo between CPUs and NCCL
between GPUs. Each sees its share of the batch that one process would see.
"""

import atexit
import gc
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from alexnet.errors import AlexNetError, DataError, Elsewhere, UsageError
from alexnet.models.dropout import MaskSlice
from alexnet.records import Record
from alexnet.support.launch import is_launched, process_count, rank, refuse_partial_launch
from alexnet.support.options import option

T = TypeVar("T")
R = TypeVar("R", bound=Record)

MEETING = timedelta(minutes=30)  # for all processes to come
PATIENCE = timedelta(hours=1)  # for what one does while the others wait: a plan, in one go


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

    @property
    def loss_factor(self) -> float:
        """What a process multiplies its loss by before the backward pass: gradients are averaged
        over the ranks, and summed over the towers, which all have the same loss."""
        return self.ranks / self.towers

    def mask_slice(self, places: range, size: int) -> MaskSlice | None:
        """The part of a dropout mask for images `places` of a batch of `size`; None where this
        process uses the whole of it."""
        if len(places) == size and self.towers == 1:
            return None
        return MaskSlice(places, size, self.tower, self.towers)

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

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What every process does inside; one that fails ends all of them, at the end of it.

        Of those that fail the first raises its error, and all others raise Elsewhere.
        """
        error = None
        try:
            yield
        except AlexNetError as raised:
            error = raised
        own = self.rank * self.towers + self.tower
        status = error.exit_status if error else 0
        last, status = self.largest(self.size - own if error else 0, status)
        if error is not None and last == self.size - own:
            raise error
        if last:
            raise Elsewhere(exit_status=status)

    def broadcast(self, value: Any) -> Any:
        """The first process's plain data, on every one; what others give is not looked at."""
        if self.size == 1:
            return value
        text = _packed(value) if self.leads else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(text)])
        dist.broadcast(length, 0)
        text = text if self.leads else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0)
        return _unpacked(text)

    def share(self, own: Any) -> list[Any]:
        """Plain data of every process, on every one, by rank."""
        if self.size == 1:
            return [own]
        text = _packed(own)
        lengths = [torch.tensor([0]) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)]))
        longest = max(map(int, lengths))
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in lengths]
        dist.all_gather(texts, F.pad(text, (0, longest - len(text))))
        return [_unpacked(t[: int(length)]) for t, length in zip(texts, lengths, strict=True)]

    def agree(self, kind: type[R], made: R | None) -> R:
        """The record that the first process made, on every one."""
        values = self.broadcast(made.to_json() if made is not None else None)
        return made if made is not None else kind.from_json(values, "what the first process sent")


def check_same_data(path: str, digest: str, first: str) -> None:
    """DataError where data that this process reads has another digest than the first's."""
    if digest != first:
        raise DataError(
            f"the data in {path} is not what the first process reads (digest {first} there, "
            f"{digest} here): give all of them the same"
        )


def _packed(value: Any) -> Tensor:
    """Plain data as bytes: as JSON, and not by torch's object collectives, which would unpickle."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _unpacked(text: Tensor) -> Any:
    return json.loads(text.numpy().tobytes())


ALONE = Team()
_joined = itertools.count()
_left: list[int] = []  # this process's number, where it left others waiting on their GPUs


@contextmanager
def join(towers: int = 1, remedy: str = "") -> Iterator[Team]:
    """The team of this process: of those that torchrun started, or itself alone.

    `remedy` is what to do when another one is gone: without it, to continue the run.
    Raises UsageError where the processes cannot be divided among the towers, or are more than a
    host's GPUs, of which each takes one.
    """
    refuse_partial_launch()
    remedy = remedy or f"continue with {option('resume', True)} from the last checkpoint"
    size = process_count()
    if towers < 1 or size % towers:
        raise UsageError(
            f"towers {towers}: a process each is needed, and there are {size}: start them with "
            f"torchrun --nproc-per-node {max(towers, 1)} -m -- alexnet train ..."
        )
    if size == 1:
        yield ALONE
        return
    own = rank()
    gpus = torch.cuda.device_count()
    if gpus:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if here > gpus:
            raise UsageError(
                f"{here} processes for {gpus} GPU(s): start {gpus} on a host with torchrun "
                f"--nproc-per-node {gpus}, or use processors with CUDA_VISIBLE_DEVICES= before it"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # One meeting place for the life of the process: a second one at the same port could be found
    # while the first is still there. So a program may train and then test.
    place = dist.PrefixStore(f"alexnet-{next(_joined)}", _meeting_place())  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=place, rank=own, world_size=size, timeout=PATIENCE)
    # A group that is still referred to, as by frames in a cycle, outlives its destruction, and its
    # threads abort the process when they ask for an interpreter that is gone.
    atexit.register(gc.collect)
    try:
        ranks = size // towers
        images = [dist.new_group(list(range(t, size, towers))) for t in range(towers)]
        pairs = [dist.new_group(list(range(towers * r, towers * (r + 1)))) for r in range(ranks)]
        share, tower = divmod(own, towers)
        team = Team(share, ranks, tower, towers, images[tower], pairs[share])
        with lost_others(remedy):
            yield team
    except BaseException:
        if gpus:  # NCCL's end waits for the others, who wait for this one
            _left.append(own)
        else:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
    for name in ("images", "pair"):  # the team itself may live on
        object.__setattr__(team, name, None)
    del images, pairs
    gc.collect()


def left_others() -> bool:
    """Whether this process failed while others wait for it on their GPUs: its end should not wait
    for them, so that torchrun sees it and ends them."""
    return bool(_left)


@cache
def _meeting_place() -> Any:
    store, _, _ = next(rendezvous("env://", timeout=MEETING))
    store.set_timeout(MEETING)
    return store


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that failed."""
    return is_launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


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
