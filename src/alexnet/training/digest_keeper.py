"""Notes, while a run trains, the digest of every image that it reads to train and to validate."""

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Dataset
from alexnet.data.digests import BEFORE, UNREAD, ImageDigests, SplitDigests
from alexnet.data.splits import Split
from alexnet.runs.rundir import RunDir
from alexnet.training.parallel import Team


class DigestKeeper:
    """The digests of a run's images, in its folder from its first checkpoint on.

    Images in memory are digested before the first step, others as they are read. `train` and `val`
    are the slices to read from. A run that is `resumed` and kept none before (of version 0.1.0) has
    them once all are known: part of them would say that the others were never learnt from.
    """

    def __init__(self, run: RunDir, train: Split, val: Split, *, resumed: bool) -> None:
        self._run = run
        kept = run.digests() or {}
        self._digests = ImageDigests.unread(train=len(train), val=len(val))
        for name, digests in self._digests.to_arrays().items():
            if name in kept and len(kept[name]) == len(digests):
                digests[:] = kept[name].numpy()
        if BEFORE in kept:  # of the run whose weights it began with
            self._digests.splits[BEFORE] = SplitDigests(
                kept[BEFORE].numpy(), kept[f"{BEFORE}.look"].numpy()
            )
        self._whole_only = resumed and not {*kept} - {BEFORE, f"{BEFORE}.look"}
        self._saved = self._digests.missing == 0
        self._in_memory = isinstance(train.pixels, np.ndarray) and isinstance(
            val.pixels, np.ndarray
        )
        self._slices = train, val
        self.train = train if self._in_memory else self._digests.watch(train)
        self.val = val if self._in_memory else self._digests.watch(val)

    def read_what_is_in_memory(self, dataset: Dataset, workers: int) -> None:
        """Digests images that are in memory already: a few seconds for two gigabytes. Those that
        the run no longer reads are black there, and have none."""
        if self._in_memory:
            for part in self._slices:
                self._digests.read_all(part, workers, dataset.excluded_ids(part.name))

    def save(self, team: Team) -> None:
        """Writes what any process of the team has read, until all is written. All call it."""
        if self._saved:
            return
        tensors: dict[str, Tensor] = {}
        for name, digests in self._digests.to_arrays().items():
            shares = torch.stack(team.gather(torch.from_numpy(digests)))
            # Whoever read an image has the same digest, and the others have UNREAD, which is 0.
            first = (shares != UNREAD).int().argmax(0)
            tensors[name] = shares.gather(0, first[None])[0]
            read = tensors[name].numpy() != UNREAD
            digests[read] = tensors[name].numpy()[read]  # readers go on noting meanwhile
        whole = not self._digests.missing
        if team.leads and (whole or not self._whole_only):
            self._run.write_digests(tensors)
        self._saved = whole
