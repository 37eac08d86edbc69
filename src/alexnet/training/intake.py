"""The batches of a training as they come in, and what is done about images that cannot be read.

All processes of a team leave out the same images from the same updates on. One that is found is of
the update whose batch wants it first, not of the moment at which a thread that reads ahead came
upon it; and a batch that was read ahead with it is read again without it.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alexnet.data.bad_images import bad_image_event, most_left_out, remedy
from alexnet.data.dataset import SPLITS, Dataset
from alexnet.data.device import sent
from alexnet.data.image_set import ImageFiles
from alexnet.data.loader import Batch, read_batch
from alexnet.data.splits import Unread
from alexnet.errors import AlexNetError, DataError, Elsewhere, ReaderEnded, Unreadable
from alexnet.metrics import Tally
from alexnet.options import AdvisedCall
from alexnet.runs.records import BadImage, Fate
from alexnet.runs.rundir import RunDir
from alexnet.signals import DeferredSignals
from alexnet.terminal import say
from alexnet.training.state import Clock
from alexnet.training.trainer import Trainer


class Intake:
    """What is read of a run's data while it trains. `trouble` is why no batch can be given: all
    processes of the team have it, and the first says what it is. `again` is the command that goes
    on with the run."""

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
        self.trouble: AlexNetError | None = None
        dataset.bad.run = run.path
        dataset.drive.gives_up = lambda: signals.received is not None

    def fetch(self, clock: Clock) -> None:
        """Waits for the next batch."""
        try:
            if self._batches is None:
                batches = self._trainer.batches(left_out=self._left_out)
                self._batches = clock.waiting(batches)
            self._batch = self._renewed(next(self._batches))
        except DataError as error:
            self._error = error

    def evaluate(self, step: int, tally: Callable[[Unread | None], Tally]) -> Tally | None:
        """What `tally` counts without the images that are left out. None where an image that
        cannot be read is `trouble`."""
        gone = dict.fromkeys(self._dataset.bad.out_at("val", step).tolist(), ("", ""))
        unread = dict(gone)
        try:
            counted = tally(unread)
        except (DataError, Elsewhere) as error:
            self.trouble = error
            return None
        self._settle("val", {i: x for i, x in unread.items() if i not in gone}, step)
        return None if self.trouble else counted

    def close(self) -> None:
        """Ends what reads ahead."""
        if isinstance(self._batches, Generator):
            self._batches.close()
        self._batches = None

    @property
    def is_odd(self) -> bool:
        """Whether this process came upon something that the others are to know."""
        return self._error is not None or (self._batch is not None and bool(self._batch.unread))

    def agree(self, step: int) -> None:
        """What the processes found in their shares of an update's batch, settled by all of them."""
        while self.trouble is None:
            own: Unread = {}
            if isinstance(self._error, Unreadable):
                own = self._error.images
            elif self._batch is not None:
                own, self._batch = self._batch.unread, replace(self._batch, unread={})
            self._pass_on(None if isinstance(self._error, Unreadable) else self._error)
            if self.trouble is not None:
                return
            self._settle("train", own, step, over=self._error is not None)
            if self._batch is not None and self.trouble is None:
                try:
                    self._batch = self._renewed(self._batch)
                except DataError as error:
                    self._error = error
            if not any(self._team.largest(self.is_odd)):
                return

    def reason(self) -> AlexNetError:
        """`trouble`, which says how to go on."""
        assert self.trouble is not None
        if type(self.trouble) in (Elsewhere, ReaderEnded, Unreadable):
            return self.trouble
        return DataError(f"{self.trouble}; all is saved, go on with `{self._again}`")

    def take(self) -> Batch:
        """The batch that was waited for."""
        batch, self._batch = self._batch, None
        assert batch is not None
        return batch

    def _renewed(self, batch: Batch) -> Batch:
        """The batch, read again where it has an image that is left out by now."""
        out = self._left_out(batch.step)
        if batch.whole is None or not len(out) or not np.isin(batch.whole, out).any():
            return batch
        anew = read_batch(
            self._trainer.data.train,
            self._recipe,
            batch.step,
            self._trainer.share,
            left_out=self._left_out,
        )
        images, labels = (sent(x, self._trainer.device) for x in (anew.images, anew.labels))
        return replace(anew, images=images, labels=labels, unread=batch.unread | anew.unread)

    def _left_out(self, step: int) -> NDArray[np.intp]:
        return self._dataset.bad.out_at("train", step)

    def _settle(self, split: str, own: Unread, step: int, over: bool = False) -> None:
        """Leaves images out from a step on, or finds that this is `trouble`: where the recipe says
        stop, or where they are `over` its share, which is then known."""
        told = self._team.share({"images": [[i, *image] for i, image in own.items()], "over": over})
        images = {int(i): (path, why) for one in told for i, path, why in one["images"]}
        bad, recipe = self._dataset.bad, self._recipe
        over, out = any(one["over"] for one in told), set(bad.out_at(split, step).tolist())
        images = {i: image for i, image in sorted(images.items()) if over or i not in out}
        if not images:
            return
        count = len(self._trainer.data.train if split == "train" else self._dataset.val)
        most = most_left_out(recipe.bad_share, count)
        stops = recipe.bad_images == "stop"
        over = over or len(images) + len(out) > most
        fate: Fate = "reported" if stops or over else "left out"
        rows = [
            BadImage(self._dataset.inside(path), split, i, why, step, fate)
            for i, (path, why) in images.items()
        ]
        if fate == "reported":  # all that are gone by now, so that all may stay away
            rows += self._gone({row.path for row in rows} | bad.paths, step)
        bad.put(rows, keep=self._run.writes)
        for row in rows:
            self._run.log(bad_image_event(row))
        if fate == "left out":
            for path, why in images.values():
                say(f"warning: step {step:,}: left out of {split} from here on: {path}: {why}")
        elif not self._team.leads:
            self.trouble = Elsewhere(exit_status=2)
        else:
            share = None if stops else recipe.bad_share
            self.trouble = Unreadable(split, images, remedy(self._again, step, share, most))

    def _gone(self, known: Collection[str], step: int) -> list[BadImage]:
        """The files that are not there, of every split that is cut from those that it trains on,
        but for those that are known by their paths."""
        gone: list[tuple[str, str, int]] = []
        with self._team.all_or_none():
            if self._team.leads:
                gone = self._missing(known)
        return [
            BadImage(path, name, int(i), "no such file", step)
            for path, name, i in self._team.broadcast(gone)
        ]

    def _missing(self, known: Collection[str]) -> list[tuple[str, str, int]]:
        """Path, split and index of each."""
        dataset, missing = self._dataset, []
        for name in SPLITS:
            if name == "test" and dataset.own_part(name) is not None:
                continue
            files = dataset.split(name).pixels
            if not isinstance(files, ImageFiles):
                continue
            for i in range(len(files)):
                path = dataset.inside(files.path(i))
                if path not in known and not files.on_disk(i).is_file():
                    missing.append((path, name, i))
        return missing

    def _pass_on(self, error: DataError | None) -> None:
        """An error that is no image's own is trouble for all."""
        try:
            with self._team.all_or_none():
                if error is not None:
                    raise error
        except AlexNetError as raised:
            self.trouble = raised
