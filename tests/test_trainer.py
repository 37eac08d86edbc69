"""The trainer as a library: built from recipe and data, without a run directory."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet.data import Split, Statistics
from alexnet.errors import CheckpointError, Diverged
from alexnet.recipe import Recipe
from alexnet.records import TrainEvent, ValEvent
from alexnet.training import NotFinite, Trainer, TrainingData, join
from teams import run_team

RECIPE = Recipe(
    model="mnist-alexnet", channels=1, size=28, crop=28, batch_size=8, epochs=2, lr=0.05, opt="sgd",
    schedule="plateau", precision="fp32", log_every=2, shift=2,
)  # fmt: skip


def digits(n: int, name: str) -> Split:
    """Images with a bright row that tells the class."""
    labels = np.arange(n) % 4
    pixels = np.random.default_rng(0).integers(0, 60, (n, 28, 28, 1), np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 3 + 6 * label] = 255
    return Split(name, labels, pixels, 28, 1)


@pytest.fixture
def data() -> TrainingData:
    return TrainingData(digits(48, "train"), digits(12, "val"), 4, Statistics((60.0,), (80.0,), ()))


class Notes:
    """A log that is kept in memory; `at` is called with each step that is done."""

    def __init__(self, at: Any = None) -> None:
        self.lines: list[TrainEvent | ValEvent] = []
        self._at, self._done = at, 0

    def train(self, event: TrainEvent) -> None:
        self.lines.append(event)

    def val(self, event: ValEvent, net: object) -> None:
        self.lines.append(event)

    def advance(self) -> None:
        self._done += 1
        if self._at is not None:
            self._at(self._done)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in trainer.net.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_it_runs_and_writes_nothing(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    notes = Notes()
    state = Trainer(RECIPE.replace(log_every=4), data).run(log=notes)
    assert (state.step, state.finished) == (12, "all steps are done")
    # A line every fourth step and before each validation; its images are those of the epoch so far.
    assert [(line.event, line.step, line.n) for line in notes.lines] == [
        ("train", 4, 32), ("train", 6, 48), ("val", 6, 12),
        ("train", 8, 16), ("train", 12, 48), ("val", 12, 12),
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_step_by_step_it_is_the_same_training(data: TrainingData) -> None:
    whole, single = Trainer(RECIPE, data), Trainer(RECIPE, data)
    whole.run()
    for batch in single.batches():
        loss = single.train_step(batch)
        assert loss.isfinite()
        if single.state.step == 6:  # the plateau policy sees the validations, too
            found = single.validate().figures()
            single.state.watch.update(found.top1, found.loss, 6, RECIPE)
    assert single.is_at_end
    assert_same(weights(whole), weights(single))


def test_the_rate_falls_when_the_plateau_policy_says_so(data: TrainingData) -> None:
    trainer = Trainer(RECIPE, data)
    assert trainer.learning_rate == RECIPE.lr
    trainer.state.watch.drops = 2
    assert trainer.learning_rate == pytest.approx(RECIPE.lr * RECIPE.lr_factor**2)


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_state_goes_on_where_it_was_taken(data: TrainingData, opt: str) -> None:
    recipe = RECIPE.replace(opt=opt, lr=0.01)
    whole, first = Trainer(recipe, data), Trainer(recipe, data)
    whole.run()
    for batch in first.batches(range(8)):  # into the second epoch
        first.train_step(batch)
        if first.state.step == 6:
            seen = first.validate().figures()
            first.state.watch.update(seen.top1, seen.loss, 6, recipe)
    saved = first.state_dict()
    other = Trainer(recipe, data)
    other.load_state_dict(saved)
    assert other.state.step == 8
    assert other.state.watch == first.state.watch
    assert other.state.watch.best_step == 6
    other.run()
    assert_same(weights(whole), weights(other))
    assert other.state.watch == whole.state.watch
    assert torch.equal(other.state.sums, whole.state.sums)  # the figures of the whole epoch


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.1}, "another recipe"),
        ({"dropout": 0.1}, "another recipe"),
    ],
)
def test_a_state_of_another_training_is_refused(
    data: TrainingData, changes: dict[str, Any], said: str
) -> None:
    trained = Trainer(RECIPE, data)
    trained.train_step(next(trained.batches()))
    saved = trained.state_dict()
    other = Trainer(RECIPE.replace(**changes), data)
    before = weights(other)
    with pytest.raises(CheckpointError, match=said):
        other.load_state_dict(saved)
    assert_same(before, weights(other))
    assert other.state.step == 0


def test_weights_of_another_shape_are_refused(data: TrainingData) -> None:
    trainer = Trainer(RECIPE, data)
    saved = trainer.state_dict()
    name = next(iter(saved["model"]))
    saved["model"] = {**saved["model"], name: torch.zeros(3)}
    with pytest.raises(CheckpointError, match=rf"{name} is \(3,\) and the network needs"):
        trainer.load_state_dict(saved)


def test_a_loss_that_is_no_number_is_seen_at_its_step(data: TrainingData) -> None:
    """Step 5, and not at the next line of the log or the next validation."""
    trainer = Trainer(RECIPE.replace(log_every=1000, eval_every=1000), data)

    def break_after(step: int) -> None:
        if step == 4:
            with torch.no_grad():
                next(iter(trainer.net.parameters())).fill_(torch.nan)

    notes = Notes(break_after)
    with pytest.raises(NotFinite, match=r"the loss is nan at step 5, from .*weight") as caught:
        trainer.run(log=notes)
    assert isinstance(caught.value, Diverged)
    assert (caught.value.step, trainer.state.step, notes.lines) == (5, 5, [])


def _broken_in_one() -> list[int]:
    """Trains with a second process, whose weights alone are broken after step 3."""
    with join() as team:
        trainer = Trainer(
            RECIPE.replace(log_every=1000, eval_every=1000),
            TrainingData(digits(48, "t"), digits(12, "v"), 4, Statistics((60.0,), (80.0,), ())),
            team=team,
        )

        def break_after(step: int) -> None:
            if step == 3 and team.rank == 1:
                with torch.no_grad():
                    next(iter(trainer.net.parameters())).fill_(torch.nan)

        try:
            trainer.run(log=Notes(break_after))
        except Exception as error:
            return [trainer.state.step, int(isinstance(error, NotFinite))]
    return [0, 0]


def test_all_processes_end_at_the_step_at_which_one_sees_it(tmp_path: Path) -> None:
    ends = run_team(tmp_path, 2, _broken_in_one, within=120)
    assert ends == [[4, 1], [4, 0]]  # the first says why, the other only that it ends


class Guard:
    """A guard that finds something at step 3."""

    def __init__(self) -> None:
        self.fatal: Exception | None = None
        self.looked: list[int] = []

    def looks_at(self, step: int) -> bool:
        return False

    def look(self, step: int) -> AbstractContextManager[None]:
        self.looked.append(step)
        if step == 2:
            self.fatal = Diverged("this one does not learn")
        return nullcontext()


class Shelf:
    """Checkpoints in memory."""

    again = "go on"

    def __init__(self) -> None:
        self.saved: list[tuple[int, bool]] = []

    def save(self, trainer: Trainer, best: bool) -> None:
        self.saved.append((trainer.state_dict()["state"]["step"], best))

    def failed(self) -> bool:
        return False

    def wait(self) -> None: ...


def test_a_guard_ends_it_after_saving(data: TrainingData) -> None:
    guard, shelf = Guard(), Shelf()
    with pytest.raises(Diverged, match="does not learn"):
        Trainer(RECIPE, data).run(guard=guard, checkpoints=shelf)
    assert guard.looked == [0, 1, 2]
    assert shelf.saved == [(3, False)]


def test_validations_are_saved_and_the_best_is_marked(data: TrainingData) -> None:
    shelf = Shelf()
    Trainer(RECIPE.replace(save_every=5), data).run(checkpoints=shelf)
    assert [step for step, _ in shelf.saved] == [5, 6, 10, 12]
    assert shelf.saved[1] == (6, True)
    assert not any(best for step, best in shelf.saved if step in (5, 10))
