"""Settings chosen by measurement: what steps take is given here, so that the choice is certain."""

import gc
import json
import os
import random
import weakref
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import runtime
from alexnet.commands import train_choosing
from alexnet.data.augment import Preprocess
from alexnet.data.statistics import Statistics
from alexnet.recipe import Recipe
from alexnet.runtime import threads
from alexnet.training import settings
from alexnet.training import train as engine
from alexnet.training.settings import (
    MOST_ROUNDS,
    ROUNDS,
    Choosing,
    Contest,
    Settings,
    Step,
    chosen_threads,
    compare,
    is_faster,
    prepare_steps,
    settle,
)
from conftest import without_report
from given_steps import Given

LONG = 10_000_000_000  # images


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: "fp32")
    monkeypatch.setattr(runtime, "bf16_pace", lambda device: 1.0)
    with threads(2):
        yield


# Rounds.


def steps(*seconds: float, then: float) -> Step:
    """Steps that take so long, and `then` as long as they are asked."""
    each = chain(seconds, repeat(then))
    return lambda: next(each)


def test_a_slow_round_of_the_better_does_not_turn_the_choice() -> None:
    for place in range(ROUNDS):
        slow = [0.5] * place + [2.5]
        assert is_faster(*compare(steps(then=1.0), steps(*slow, then=0.5))) is True
        assert is_faster(*compare(steps(*slow, then=0.5), steps(then=1.0))) is False


def test_a_fast_round_of_the_worse_does_not_turn_the_choice() -> None:
    for place in range(ROUNDS):
        ours, theirs = compare(steps(then=0.1), steps(*[0.12] * place, 0.01, then=0.12))
        assert is_faster(ours, theirs) is None
        assert len(ours) == len(theirs) == MOST_ROUNDS, "more rounds, but not for ever"


def test_a_real_difference_is_found_in_few_rounds() -> None:
    ours, theirs = compare(steps(then=1.0), steps(then=0.85))
    assert is_faster(ours, theirs)
    assert len(ours) == len(theirs) == ROUNDS
    slow, slower = compare(steps(then=60.0), steps(then=90.0))
    assert len(slow) == len(slower) == 2, "minutes are not spent on it"
    assert not is_faster(*compare(steps(then=1.0), steps(then=0.95))), "not worth it"


def test_a_disagreement_that_ends_is_settled() -> None:
    """Of two slow rounds in three the best says the opposite of the rest, until there are more."""
    ours, theirs = compare(steps(0.5, 0.5, then=0.1), steps(then=0.097))
    assert is_faster(ours, theirs) is False
    ours, theirs = compare(steps(then=0.1), steps(0.19, 0.19, then=0.05))
    assert is_faster(ours, theirs) is True


class Machine:
    """A made machine and its clock: until some second all steps take `factor` times as long."""

    def __init__(self, until: float, factor: float) -> None:
        self.now, self.until, self.factor, self.taken = 0.0, until, factor, list[str]()

    def step(self, name: str, work: float) -> Step:
        def step() -> float:
            self.taken.append(name)
            took = work * (self.factor if self.now < self.until else 1.0)
            self.now += took
            return took

        return step


@pytest.mark.parametrize("until", [0.0, 0.05, 0.3, 1.1, 2.0, 2.5, 6.0])
@pytest.mark.parametrize(("work", "faster"), [(0.1, False), (0.05, True), (0.2, False)])
def test_a_neighbour_that_leaves_midway_decides_nothing(
    until: float, work: float, faster: bool
) -> None:
    """Timed one after the other, the second of two equals had seemed ten times faster."""
    machine = Machine(until, 10.0)
    found = is_faster(*compare(machine.step("a", 0.1), machine.step("b", work)))
    assert bool(found) is faster


class Company:
    """A made machine with a neighbour that comes and goes, for a second on average: while it is
    there, half of the time, each step takes 2 to 25 times as long."""

    def __init__(self, seed: int) -> None:
        self.chance, self.now, self.busy, self.changes = random.Random(seed), 0.0, False, 0.0

    def step(self, work: float) -> Step:
        def step() -> float:
            if self.now >= self.changes:
                self.busy = self.chance.random() < 0.5
                self.changes = self.now + self.chance.expovariate(1.0)
            took = work * self.chance.uniform(*((2, 25) if self.busy else (1, 1.05)))
            self.now += took
            return took

        return step


@pytest.mark.parametrize("work", [0.02, 0.1])
@pytest.mark.parametrize(("factor", "faster"), [(1.0, False), (0.5, True), (2.0, False)])
def test_a_neighbour_that_comes_and_goes_seldom_decides(
    work: float, factor: float, faster: bool
) -> None:
    """Medians of three steps, one setting after the other, choose wrongly 70 to 270 times of 1,000
    here."""
    wrong = 0
    for seed in range(200):
        machine = Company(seed)
        found = is_faster(*compare(machine.step(work), machine.step(work * factor)))
        wrong += bool(found) is not faster
    assert wrong <= 8, f"{wrong} of 200"


def test_who_goes_first_changes() -> None:
    machine = Machine(0, 1)
    compare(machine.step("a", 1.0), machine.step("b", 1.0))
    assert "".join(machine.taken) == "abbaab"


def test_rounds_that_disagree_are_said_and_keep_the_rule(
    two_threads: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepare(recipe: Recipe, count: int) -> Step:
        return steps(0.01, then=0.13) if count == 1 else steps(then=0.1)

    _, found = settle(Recipe(), 10, LONG, ("channels_last",), prepare)
    assert found["chosen"]["threads"] == 2
    said = capfd.readouterr().err
    one = Settings("fp32", True, 1)
    assert f"not chosen: {one}: {MOST_ROUNDS} rounds disagree (10 to 130 ms" in said
    row = next(row for row in found["measured"] if row["threads"] == 1)
    assert row["seconds"] == 0.01
    assert row["rounds"] == [0.01, *[0.13] * (MOST_ROUNDS - 1)]


def test_how_long_it_lasts_is_by_what_steps_usually_take(two_threads: None) -> None:
    """In company that is not what the fastest takes."""
    _, found = settle(Recipe(), 10, LONG, (), lambda *_: steps(0.1, then=0.12))
    assert found["expected_s"] == pytest.approx(0.12 * LONG / 32)


def test_at_most_two_are_in_memory_and_none_afterwards() -> None:
    alive: list[weakref.ref[Step]] = []
    most = 0

    def prepare(recipe: Recipe, count: int) -> Step:
        nonlocal most
        gc.collect()
        most = max(most, 1 + sum(x() is not None for x in alive))
        step = steps(then=1.0 / count)
        alive.append(weakref.ref(step))
        return step

    contest = Contest(Recipe(), prepare, Settings("fp32", True, 1))
    for count in (2, 1, 3, 4, 2):
        contest.challenge(Settings("fp32", True, count))
    assert contest.holder.threads == 4
    del contest
    gc.collect()
    assert most == 2
    assert not any(x() for x in alive)


def test_memory_that_runs_out_in_a_round_is_said(
    two_threads: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepare(recipe: Recipe, count: int) -> Step:
        def step() -> float:
            if count == 1:
                raise RuntimeError("[enforce fail] can't allocate memory: you tried too much")
            return 1.0

        return step

    _, found = settle(Recipe(), 10, LONG, (), prepare)
    assert found["chosen"]["threads"] == 2
    assert "1 thread(s): out of memory" in capfd.readouterr().err


def test_a_caller_draws_what_it_would_have_drawn(two_threads: None) -> None:
    def prepare(recipe: Recipe, count: int) -> Step:
        torch.manual_seed(count)
        return lambda: torch.rand(1).item() + 1

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    settle(Recipe(), 10, LONG, (), prepare)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({}, Settings("fp32", True, 2)),
        ({"bf16": 0.5}, Settings("bf16", True, 2)),
        ({"bf16": 0.95}, Settings("fp32", True, 2)),  # not worth it
        ({"bf16": 0.5, "plain": 0.8, "threads1": 0.7}, Settings("bf16", False, 1)),
        ({"bf16": 2.0, "plain": 1.2, "threads1": 0.7}, Settings("fp32", True, 1)),
    ],
)
def test_what_is_quicker_is_chosen(
    two_threads: None, seconds: dict[str, float], best: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    given = Given(**seconds)
    recipe, found = settle(Recipe(), 10, LONG, (), given)
    assert (recipe.precision, recipe.channels_last) == (best.precision, best.channels_last)
    assert found["chosen"]["threads"] == best.threads
    assert len(found["measured"]) == len(given.asked) == 4
    for row in found["measured"]:
        assert row["seconds"] == min(row["rounds"])
        assert len(row["rounds"]) >= 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"settings: {best}: " in said


def test_bf16_is_not_tried_where_it_is_hopeless(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A processor without AVX-512 would take minutes for the steps that are timed."""
    for module in (runtime, settings):
        monkeypatch.setattr(module, "bf16_pace", lambda device: 128.4)
    given = Given(bf16=0.1)
    recipe, _ = settle(Recipe(), 10, LONG, (), given)
    assert recipe.precision == "fp32"
    assert {one.precision for one in given.asked} == {"fp32"}
    assert "bf16" not in capfd.readouterr().err
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: asked)
    recipe, _ = settle(Recipe(precision="bf16"), 10, LONG, (), given)
    assert recipe.precision == "bf16", "what is asked for is done"
    assert "bf16 products take 128 times as long as fp32" in capfd.readouterr().err


def test_the_pace_of_bf16_is_measured_once() -> None:
    cpu = torch.device("cpu")
    pace = runtime.bf16_pace(cpu)
    assert pace > 0
    assert runtime.bf16_pace(cpu) == pace
    if runtime.choose_precision("auto", cpu) == "bf16":
        assert runtime.precisions(cpu) == ("fp32", "bf16")


def test_what_is_given_is_kept(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(bf16=0.1, plain=0.1, threads1=0.1)
    recipe, found = settle(Recipe(precision="fp32"), 10, LONG, ("precision",), given)
    assert (recipe.precision, found["measured"], given.asked) == ("fp32", [], [])
    recipe, _ = settle(Recipe(), 10, LONG, ("channels_last",), given)
    assert all(one.channels_last for one in given.asked)
    assert recipe.channels_last
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _, found = settle(Recipe(), 10, LONG, (), given)
    assert found["chosen"]["threads"] == 2
    given.asked.clear()
    recipe, _ = settle(Recipe(), 10, 100, (), given)  # too short to be worth it
    assert (recipe.precision, given.asked) == ("fp32", [])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: "bf16")
    monkeypatch.setattr(settings, "pick_device", lambda: torch.device("cuda"))


HOUR = 3600 * 256  # images, where a step of a whole batch takes a second


@pytest.mark.parametrize(
    ("images", "seconds", "chosen"),
    [
        (HOUR, 0.5, True),
        (HOUR, 0.95, False),  # not worth it
        (HOUR / 4, 0.5, None),  # a quarter of an hour: compiling would take too much of it
    ],
)
def test_a_gpu_compiles_what_lasts(
    gpu: None, images: float, seconds: float, chosen: bool | None,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given, recipe = Given(compiled=seconds), Recipe(model="alexnet-2014", size=256, crop=224,
                                                      batch_size=256)  # fmt: skip
    settled, found = settle(recipe, 10, round(images), (), given)
    assert settled.compile is found["chosen"]["compile"] is bool(chosen)
    assert any(one.compile for one in given.asked) is (chosen is not None)
    assert "for 256 images" in capfd.readouterr().err
    for fixed, other in (
        (("compile",), recipe),
        ((), recipe.replace(accumulate=2)),
        (("compile",), recipe.replace(compile=True)),
    ):
        given.asked.clear()
        settled, found = settle(other, 10, HOUR, fixed, given)
        assert not any(one.compile for one in given.asked)
        assert settled.compile is found["chosen"]["compile"] is other.compile


def test_what_cannot_compile_is_said_and_trained(
    gpu: None, capfd: pytest.CaptureFixture[str]
) -> None:
    given = Given(compiled=0.1)
    given.cannot = True
    recipe = Recipe(model="alexnet-2014", size=256, crop=224, batch_size=256)
    settled, _ = settle(recipe, 10, HOUR, (), given)
    assert not settled.compile
    assert "not compiled: no g++ here" in capfd.readouterr().err


def test_a_choice_changes_rounding_alone() -> None:
    """A recipe's digest aside, settings replace precision, layout and compile."""
    recipe = Recipe(lr=0.3)
    other = Settings("bf16", False, 1, compile=True).on(recipe)
    assert sorted(recipe.conflicts(other)) == ["channels_last", "compile", "precision"]


def test_real_steps_are_timed_and_leave_no_trace() -> None:
    recipe = Recipe(model="mnist-alexnet", channels=1, size=28, crop=28, batch_size=4)
    preprocess = Preprocess(28, 28, 1, Statistics((100.0,) * 3, (50.0,) * 3, ()))
    before = torch.get_num_threads()
    for precision in ("fp32", "bf16"):
        one = recipe.replace(precision=precision)
        assert prepare_steps(preprocess, 10)(one, before + 1)() > 0
    assert torch.get_num_threads() == before


def test_threads_of_a_run_are_believed_as_far_as_they_can_be() -> None:
    here = torch.get_num_threads()
    assert chosen_threads({"settings": {"chosen": {"threads": 1}}}) == 1
    for odd in ({}, {"settings": None}, {"settings": {"chosen": {"threads": 10**9}}}):
        assert chosen_threads(odd) == here
    assert chosen_threads({"settings": {"chosen": {"threads": "2"}}}) == here


def test_a_continued_run_keeps_what_was_chosen(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its end is that of a run which was not cut, to the bit."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two threads to choose from")
    without_report(monkeypatch)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    fields = {**tiny, "precision": "auto", "doctor": "off"}

    def quick(*wins: str) -> Choosing:
        given = Given(**dict.fromkeys(wins, 0.5))
        return Choosing(prepare=lambda *_: given, worth=0)

    def run(name: str) -> bytes:
        first = quick("fp32", "threads1")
        train_choosing(first, "digits", data=idx_folder, run=tmp_path / name, **fields)
        return (tmp_path / name / "checkpoints/last/model.safetensors").read_bytes()

    with threads(2):
        whole = run("whole")
        real: Callable[..., Any] = engine.train_step
        resumed = False

        def dying(model: Any, optimizer: Any, batch: Any, *rest: Any) -> Any:
            assert torch.get_num_threads() == 1
            if batch.step == 25 and not resumed:
                raise RuntimeError("cut")
            return real(model, optimizer, batch, *rest)

        monkeypatch.setattr(engine, "train_step", dying)
        with pytest.raises(RuntimeError, match="cut"):
            run("cut")
        resumed = True
        train_choosing(quick("bf16", "plain"), run=tmp_path / "cut", resume=True)
        assert torch.get_num_threads() == 2
    last = tmp_path / "cut/checkpoints/last/model.safetensors"
    assert last.read_bytes() == whole
    known = json.loads((tmp_path / "cut/environment.json").read_text())
    chosen = {"precision": "fp32", "channels_last": True, "threads": 1, "compile": False}
    assert known["settings"]["chosen"] == chosen
    assert known["threads"] == 1
    assert json.loads((tmp_path / "cut/recipe.json").read_text())["recipe"]["precision"] == "fp32"
