"""Reads the batches of a run, and handles images that cannot be read.

All processes of a team leave out the same images from the same update on. An unreadable image
counts from the first update whose batch contains it, not from the moment at which a thread that
reads ahead meets it. Batches that were read ahead with this image are read again without it.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alexnet.data.bad_images import bad_image_event, most_left_out, remedy
from alexnet.data.dataset import SPLITS, Dataset
from alexnet.data.device import to_device
from alexnet.data.image_set import ImageFiles
from alexnet.data.loader import Batch, read_batch
from alexnet.data.splits import Unread
from alexnet.errors import AlexNetError, DataError, Elsewhere, ReaderEnded, Unreadable
from alexnet.metrics import Tally
from alexnet.records import BadImage, Fate
from alexnet.runs.rundir import RunDir
from alexnet.support.options import AdvisedCall
from alexnet.support.signals import DeferredSignals
from alexnet.support.terminal import say
from alexnet.training.state import Clock
from alexnet.training.trainer import Trainer


class RunReader:
    """Reads the batches of a run, and leaves out or reports images that cannot be read.

    `failure` is why there is no next batch. All processes of the team have one at the same step;
    that of the first names the cause. `again` is the command that continues the run.
    """

    def __init__(
        self,
        dataset: Dataset,
        trainer: Trainer,
        run: RunDir,
        again: AdvisedCall,
        signals: DeferredSignals,
    ) -> None:
        self._dataset, self._trainer, self._run, self._again = dataset, trainer, run, again
        self._recipe, self._team = trainer.recipe, trainer.team
        self._batches: Iterator[Batch] | None = None
        self._batch: Batch | None = None
        self._error: DataError | None = None
        self.failure: AlexNetError | None = None
        dataset.bad_images.run = run.path
        dataset.drive.gives_up = lambda: signals.received is not None

    def fetch(self, clock: Clock) -> None:
        """Wait for the next batch."""
        try:
            if self._batches is None:
                batches = self._trainer.batches(left_out=self._left_out)
                self._batches = clock.waiting(batches)
            self._batch = self._reread(next(self._batches))
        except DataError as error:
            self._error = error

    def evaluate(self, step: int, measure: Callable[[Unread | None], Tally]) -> Tally | None:
        """Return the tally of `measure`, called with the images to leave out.

        None where an image that cannot be read is a `failure`.
        """
        left_out = dict.fromkeys(self._dataset.bad_images.out_at("val", step).tolist(), ("", ""))
        unread = dict(left_out)
        try:
            tally = measure(unread)
        except (DataError, Elsewhere) as error:
            self.failure = error
            return None
        self._settle("val", {i: x for i, x in unread.items() if i not in left_out}, step)
        return None if self.failure else tally

    def close(self) -> None:
        """Stop reading ahead."""
        if isinstance(self._batches, Generator):
            self._batches.close()
        self._batches = None

    @property
    def needs_agreement(self) -> bool:
        """Whether this process met an error or an image that the others have to know of."""
        return self._error is not None or (self._batch is not None and bool(self._batch.unread))

    def agree(self, step: int) -> None:
        """Exchange errors and unreadable images of this batch. Every process calls it."""
        while self.failure is None:
            own: Unread = {}
            if isinstance(self._error, Unreadable):
                own = self._error.images
            elif self._batch is not None:
                own, self._batch = self._batch.unread, replace(self._batch, unread={})
            self._pass_on(None if isinstance(self._error, Unreadable) else self._error)
            if self.failure is not None:
                return
            self._settle("train", own, step, over=self._error is not None)
            if self._batch is not None and self.failure is None:
                try:
                    self._batch = self._reread(self._batch)
                except DataError as error:
                    self._error = error
            if not any(self._team.largest(self.needs_agreement)):
                return

    def reason(self) -> AlexNetError:
        """Return the failure, with the command that continues the run."""
        assert self.failure is not None
        if type(self.failure) in (Elsewhere, ReaderEnded, Unreadable):
            return self.failure
        return DataError(f"{self.failure}; everything is saved: continue with `{self._again}`")

    def take(self) -> Batch:
        """Return the batch that `fetch` waited for."""
        batch, self._batch = self._batch, None
        assert batch is not None
        return batch

    def _reread(self, batch: Batch) -> Batch:
        """Return the batch, read again if one of its images has been left out meanwhile."""
        left_out = self._left_out(batch.step)
        if batch.whole is None or not len(left_out) or not np.isin(batch.whole, left_out).any():
            return batch
        fresh = read_batch(
            self._trainer.data.train,
            self._recipe,
            batch.step,
            self._trainer.share,
            left_out=self._left_out,
        )
        images, labels = (to_device(x, self._trainer.device) for x in (fresh.images, fresh.labels))
        return replace(fresh, images=images, labels=labels, unread=batch.unread | fresh.unread)

    def _left_out(self, step: int) -> NDArray[np.intp]:
        return self._dataset.bad_images.out_at("train", step)

    def _settle(self, split: str, own: Unread, step: int, over: bool = False) -> None:
        """Leave images out from this step on, or set `failure`.

        `own` are the unreadable images of this process. It is a failure if the recipe stops at bad
        images, or if they are more than the recipe allows; `over` says that this is known already.
        """
        shares = self._team.share(
            {"images": [[i, *image] for i, image in own.items()], "over": over}
        )
        images = {int(i): (path, why) for share in shares for i, path, why in share["images"]}
        bad, recipe = self._dataset.bad_images, self._recipe
        over = any(share["over"] for share in shares)
        left_out = set(bad.out_at(split, step).tolist())
        images = {i: image for i, image in sorted(images.items()) if over or i not in left_out}
        if not images:
            return
        count = len(self._trainer.data.train if split == "train" else self._dataset.val)
        most = most_left_out(recipe.bad_share, count)
        stops = recipe.bad_images == "stop"
        over = over or len(images) + len(left_out) > most
        fate: Fate = "reported" if stops or over else "left out"
        rows = [
            BadImage(self._dataset.relative_path(path), split, i, why, step, fate)
            for i, (path, why) in images.items()
        ]
        if fate == "reported":  # with all missing files, so that one answer covers them
            rows += self._missing_files({row.path for row in rows} | bad.paths, step)
        bad.put(rows, keep=self._run.writes)
        for row in rows:
            self._run.log(bad_image_event(row))
        if fate == "left out":
            for path, why in images.values():
                say(f"warning: step {step:,}: left out of {split} from here on: {path}: {why}")
        elif not self._team.leads:
            self.failure = Elsewhere(exit_status=2)
        else:
            share = None if stops else recipe.bad_share
            self.failure = Unreadable(split, images, remedy(self._again, step, share, most))

    def _missing_files(self, reported: Collection[str], step: int) -> list[BadImage]:
        """Return missing files of the splits cut from the training images, without those whose
        paths are `reported`. Every process calls it."""
        missing: list[tuple[str, str, int]] = []
        with self._team.all_or_none():
            if self._team.leads:
                missing = self._find_missing(reported)
        return [
            BadImage(path, name, int(i), "no such file", step)
            for path, name, i in self._team.broadcast(missing)
        ]

    def _find_missing(self, reported: Collection[str]) -> list[tuple[str, str, int]]:
        """Return path, split and index of each missing file."""
        dataset, missing = self._dataset, []
        for name in SPLITS:
            if name == "test" and dataset.own_part(name) is not None:
                continue
            files = dataset.split(name).pixels
            if not isinstance(files, ImageFiles):
                continue
            for i in range(len(files)):
                path = dataset.relative_path(files.path(i))
                if path not in reported and not files.on_disk(i).is_file():
                    missing.append((path, name, i))
        return missing

    def _pass_on(self, error: DataError | None) -> None:
        """Make an error that concerns no single image the failure of all processes."""
        try:
            with self._team.all_or_none():
                if error is not None:
                    raise error
        except AlexNetError as raised:
            self.failure = raised
