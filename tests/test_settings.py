"""Settings chosen by measurement: what steps take is given here, so that the choice is certain."""

import gc
import json
import os
import random
import weakref
from collections.abc import Collection, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.data import Preprocess, Statistics
from alexnet.recipe import Recipe
from alexnet.records import SettingsChoice
from alexnet.training import Hardware, Settings, TimingRule, choose_settings, threads
from conftest import without_report
from given_steps import Given, Step, train_choosing
from short_runs import Cut, at_each_step

LONG = 10_000_000_000  # images
CPU = Hardware(torch.device("cpu"), "fp32", lambda: 1.0)
OLD_CPU = Hardware(torch.device("cpu"), "fp32", lambda: 128.4)  # without AVX-512
GPU = Hardware(torch.device("cuda"), "bf16", lambda: 1.0)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threads(2):
        yield


def choose(
    prepare: Any,
    recipe: Recipe | None = None,
    fixed: Collection[str] = (),
    images: int = LONG,
    hardware: Hardware = CPU,
) -> tuple[Recipe, SettingsChoice]:
    return choose_settings(recipe or Recipe(), 10, images, fixed, prepare, hardware=hardware)


# Rounds.


def steps(*seconds: float, then: float) -> Step:
    """Steps that take so long, and `then` as long as they are asked."""
    each = chain(seconds, repeat(then))
    return lambda: next(each)


def duel(holder: Step, challenger: Step) -> tuple[bool, list[float], list[float]]:
    """Whether one thread is chosen in the place of two, and the seconds of each round of both."""
    _, choice = choose(
        lambda _, count: holder if count == 2 else challenger,
        fixed=("channels_last",),
        hardware=OLD_CPU,
    )
    ours, theirs = (row.rounds for row in choice.measured)
    return choice.chosen.threads == 1, ours, theirs


def test_a_slow_round_of_the_better_does_not_turn_the_choice() -> None:
    for place in range(3):
        slow = [0.5] * place + [2.5]
        assert duel(steps(then=1.0), steps(*slow, then=0.5))[0]
        assert not duel(steps(*slow, then=0.5), steps(then=1.0))[0]


def test_a_fast_round_of_the_worse_does_not_turn_the_choice(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for place in range(3):
        chosen, ours, theirs = duel(steps(then=0.1), steps(*[0.12] * place, 0.01, then=0.12))
        assert not chosen
        assert len(ours) == len(theirs) == 30, "more rounds, but not for ever"
    assert capfd.readouterr().err.count("30 rounds disagree") == 3


def test_a_real_difference_is_found_in_few_rounds() -> None:
    chosen, ours, theirs = duel(steps(then=1.0), steps(then=0.85))
    assert chosen
    assert len(ours) == len(theirs) == 3
    _, slow, slower = duel(steps(then=60.0), steps(then=90.0))
    assert len(slow) == len(slower) == 2, "minutes are not spent on it"
    assert not duel(steps(then=1.0), steps(then=0.95))[0], "not worth it"


def test_a_disagreement_that_ends_is_settled(capfd: pytest.CaptureFixture[str]) -> None:
    """Of two slow rounds in three the best says the opposite of the rest, until there are more."""
    assert not duel(steps(0.5, 0.5, then=0.1), steps(then=0.097))[0]
    assert duel(steps(then=0.1), steps(0.19, 0.19, then=0.05))[0]
    assert "disagree" not in capfd.readouterr().err


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
    assert duel(machine.step("a", 0.1), machine.step("b", work))[0] is faster


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
    """Medians of three steps, one setting after the other, choose wrongly 4 to 16 times of 60."""
    wrong = 0
    for seed in range(60):
        machine = Company(seed)
        wrong += duel(machine.step(work), machine.step(work * factor))[0] is not faster
    assert wrong <= 3, f"{wrong} of 60"


def test_who_goes_first_changes() -> None:
    machine = Machine(0, 1)
    duel(machine.step("a", 1.0), machine.step("b", 1.0))
    assert "".join(machine.taken) == "abbaab"


def test_rounds_that_disagree_are_said_and_keep_the_rule(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def prepare(recipe: Recipe, count: int) -> Step:
        return steps(0.01, then=0.13) if count == 1 else steps(then=0.1)

    _, choice = choose(prepare, fixed=("channels_last",))
    assert choice.chosen.threads == 2
    said = capfd.readouterr().err
    one = Settings("fp32", True, 1)
    assert f"not chosen: {one}: 30 rounds disagree (10 to 130 ms" in said
    row = next(row for row in choice.measured if row.threads == 1)
    assert row.seconds == 0.01
    assert row.rounds == [0.01, *[0.13] * 29]


def test_how_long_it_lasts_is_by_what_steps_usually_take() -> None:
    """In company that is not what the fastest takes."""
    _, choice = choose(lambda *_: steps(0.1, then=0.12))
    assert choice.expected_s == pytest.approx(0.12 * LONG / 32)


def test_at_most_two_are_in_memory_and_none_afterwards() -> None:
    alive: list[weakref.ref[Step]] = []
    most = 0

    def prepare(recipe: Recipe, count: int) -> Step:
        nonlocal most
        gc.collect()
        most = max(most, 1 + sum(x() is not None for x in alive))
        step = steps(then=0.8 ** len(alive))
        alive.append(weakref.ref(step))
        return step

    _, choice = choose(prepare)
    assert choice.chosen == Settings("bf16", False, 1)
    gc.collect()
    assert most == 2
    assert len(alive) == 4
    assert not any(x() for x in alive)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("[enforce fail] can't allocate memory: you tried too much"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("some other fault"), False),
    ],
)
@pytest.mark.parametrize("moment", ["preparing", "in a round"])
def test_what_runs_out_of_memory_is_not_chosen(
    error: RuntimeError, short: bool, moment: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> float:
        raise error

    def prepare(recipe: Recipe, _: int) -> Step:
        if recipe.precision == "bf16":
            return lambda: 1.0
        return fail if moment == "in a round" else steps(then=fail())

    recipe = Recipe(model="alexnet-2014", size=256, crop=224)
    if not short:
        with pytest.raises(RuntimeError, match=str(error)):
            choose(prepare, recipe, ("compile", "channels_last"), hardware=GPU)
        return
    settled, choice = choose(prepare, recipe, ("compile", "channels_last"), hardware=GPU)
    assert settled.precision == "bf16"
    assert len(choice.measured) == 1
    said = capfd.readouterr().err
    assert "not chosen: fp32, channels last, 2 thread(s): out of memory" in said


def test_a_caller_draws_what_it_would_have_drawn() -> None:
    def prepare(recipe: Recipe, count: int) -> Step:
        torch.manual_seed(count)
        return lambda: torch.rand(1).item() + 1

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    choose(prepare)
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
    seconds: dict[str, float], best: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    given = Given(**seconds)
    recipe, choice = choose(given)
    assert (recipe.precision, recipe.channels_last) == (best.precision, best.channels_last)
    assert choice.chosen.threads == best.threads
    assert len(choice.measured) == len(given.asked) == 4
    for row in choice.measured:
        assert row.seconds == min(row.rounds)
        assert len(row.rounds) >= 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"settings: {best}: " in said


def test_bf16_is_not_tried_where_it_is_hopeless(capfd: pytest.CaptureFixture[str]) -> None:
    """A processor without AVX-512 would take minutes for the steps that are timed."""
    given = Given(bf16=0.1)
    recipe, _ = choose(given, hardware=OLD_CPU)
    assert recipe.precision == "fp32"
    assert {one.precision for one in given.asked} == {"fp32"}
    assert "bf16" not in capfd.readouterr().err
    recipe, _ = choose(given, Recipe(precision="bf16"), hardware=OLD_CPU)
    assert recipe.precision == "bf16", "what is asked for is done"
    assert "bf16 products take 128 times as long as fp32" in capfd.readouterr().err


def test_the_pace_of_bf16_is_measured_once() -> None:
    here = Hardware.here()
    assert here.bf16_pace() == Hardware.here().bf16_pace() > 0
    if here.precision == "bf16":
        given = Given()
        choose(given, hardware=here)
        assert {one.precision for one in given.asked} == {"fp32", "bf16"}


def test_what_is_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(bf16=0.1, plain=0.1, threads1=0.1)
    recipe, choice = choose(given, Recipe(precision="fp32"), ("precision",))
    assert (recipe.precision, choice.measured, given.asked) == ("fp32", [], [])
    recipe, _ = choose(given, fixed=("channels_last",))
    assert all(one.channels_last for one in given.asked)
    assert recipe.channels_last
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _, choice = choose(given)
    assert choice.chosen.threads == 2
    given.asked.clear()
    recipe, _ = choose(given, images=100)  # too short to be worth it
    assert (recipe.precision, given.asked) == ("fp32", [])


# Of a GPU.

HOUR = 3600 * 256  # images, where a step of a whole batch takes a second
LARGE = Recipe(model="alexnet-2014", size=256, crop=224, batch_size=256)


@pytest.mark.parametrize(
    ("images", "seconds", "chosen"),
    [
        (HOUR, 0.5, True),
        (HOUR, 0.95, False),  # not worth it
        (HOUR // 4, 0.5, None),  # a quarter of an hour: compiling would take too much of it
    ],
)
def test_a_gpu_compiles_what_lasts(
    images: int, seconds: float, chosen: bool | None, capfd: pytest.CaptureFixture[str]
) -> None:
    given = Given(compiled=seconds)
    settled, choice = choose(given, LARGE, images=images, hardware=GPU)
    assert settled.compile is choice.chosen.compile is bool(chosen)
    assert any(one.compile for one in given.asked) is (chosen is not None)
    assert "for 256 images" in capfd.readouterr().err
    for fixed, other in (
        (("compile",), LARGE),
        ((), LARGE.replace(accumulate=2)),
        (("compile",), LARGE.replace(compile=True)),
    ):
        given.asked.clear()
        settled, choice = choose(given, other, fixed, HOUR, GPU)
        assert not any(one.compile for one in given.asked)
        assert settled.compile is choice.chosen.compile is other.compile


def test_what_cannot_compile_is_said_and_trained(capfd: pytest.CaptureFixture[str]) -> None:
    given = Given(compiled=0.1)
    given.cannot = True
    settled, _ = choose(given, LARGE, images=HOUR, hardware=GPU)
    assert not settled.compile
    assert "not compiled: no g++ here" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("accumulate", "ranks", "images"), [(1, 1, 4096), (4, 1, 1024), (1, 8, 512), (3, 8, 171)]
)
def test_a_trial_step_is_what_a_gpu_has_at_once(
    accumulate: int, ranks: int, images: int, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = LARGE.replace(batch_size=4096, accumulate=accumulate)
    choose_settings(recipe, 10, HOUR, ("compile",), Given(), ranks, hardware=GPU)
    assert f" for {images} images" in capfd.readouterr().err


def test_a_choice_changes_rounding_alone() -> None:
    """A recipe's digest aside, settings replace precision, layout and compile."""
    given = Given(plain=0.5, compiled=0.5)
    settled, _ = choose(given, LARGE, images=HOUR, hardware=GPU)
    assert sorted(LARGE.conflicts(settled)) == ["channels_last", "compile", "precision"]


# Real steps, and real trainings.


def test_real_steps_are_timed_and_leave_no_trace() -> None:
    recipe = Recipe(model="mnist-alexnet", channels=1, size=28, crop=28, batch_size=4)
    preprocess = Preprocess(28, 28, 1, Statistics((100.0,) * 3, (50.0,) * 3, ()))
    for precision in ("fp32", "bf16"):
        prepare = TimingRule().prepare(preprocess, 10, 1)
        assert prepare(recipe.replace(precision=precision), 3)() > 0
    assert torch.get_num_threads() == 2


def test_a_continued_run_keeps_what_was_chosen(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its end is that of a run which was not cut, to the bit."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two threads to choose from")
    without_report(monkeypatch)
    fields = {**tiny, "precision": "auto", "doctor": "off", "steps": 12, "log_every": 3}
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def quick(*wins: str) -> TimingRule:
        given = Given(**dict.fromkeys(wins, 0.5))
        return TimingRule(prepare=lambda *_: given, min_operations=0)

    def begin(run: Path) -> None:
        first = quick("fp32", "threads1")
        train_choosing(first, "digits", data=idx_folder, run=run, **fields)

    def in_one_thread(step: int) -> None:
        assert torch.get_num_threads() == 1
        if step == 9:
            raise Cut

    begin(whole)
    with at_each_step(in_one_thread), pytest.raises(Cut):
        begin(cut)
    with at_each_step(lambda _: in_one_thread(0)):
        train_choosing(quick("bf16", "plain"), run=cut, resume=True)
    assert torch.get_num_threads() == 2
    ends = [(run / "checkpoints/last/model.safetensors").read_bytes() for run in (whole, cut)]
    assert ends[0] == ends[1]
    known = json.loads((cut / "environment.json").read_text())
    chosen = {"precision": "fp32", "channels_last": True, "threads": 1, "compile": False}
    assert known["settings"]["chosen"] == chosen
    assert known["threads"] == 1
    assert json.loads((cut / "recipe.json").read_text())["recipe"]["precision"] == "fp32"
