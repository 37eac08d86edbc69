"""Settings chosen by measurement: what is measured is given here, so that the choice is certain."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import commands, runtime
from alexnet.data.augment import Preprocess
from alexnet.data.statistics import Statistics
from alexnet.engine import settings
from alexnet.engine import train as engine
from alexnet.engine.settings import Settings, chosen_threads, measure_steps, settle
from alexnet.errors import Unavailable
from alexnet.recipe import Recipe
from alexnet.runtime import threads
from conftest import without_report

LONG = 10_000_000_000  # images


class Given:
    """A measurement that says what it is told, and notes what it was asked."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.asked, self.cannot = seconds, list[Settings](), False

    def __call__(self, recipe: Recipe, count: int) -> float:
        assert recipe.precision != "auto"
        self.asked.append(Settings(recipe.precision, recipe.channels_last, count, recipe.compile))
        layout = "last" if recipe.channels_last else "plain"
        if recipe.compile and self.cannot:
            raise Unavailable("no g++ here: leave --compile out")
        made = "compiled" if recipe.compile else "eager"
        factors = (recipe.precision, layout, f"threads{count}", made)
        return torch.tensor([self.seconds.get(f, 1.0) for f in factors]).prod().item()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: "fp32")
    monkeypatch.setattr(runtime, "bf16_pace", lambda device: 1.0)
    with threads(2):
        yield


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
    measure = Given(**seconds)
    recipe, found = settle(Recipe(), 10, LONG, (), measure)
    assert (recipe.precision, recipe.channels_last) == (best.precision, best.channels_last)
    assert found["chosen"]["threads"] == best.threads
    assert len(found["measured"]) == len(measure.asked) == 4
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"settings: {best}: " in said


def test_bf16_is_not_tried_where_it_is_hopeless(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A processor without AVX-512 would take minutes for the steps that are timed."""
    for module in (runtime, settings):
        monkeypatch.setattr(module, "bf16_pace", lambda device: 128.4)
    measure = Given(bf16=0.1)
    recipe, _ = settle(Recipe(), 10, LONG, (), measure)
    assert recipe.precision == "fp32"
    assert {one.precision for one in measure.asked} == {"fp32"}
    assert "bf16" not in capfd.readouterr().err
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: asked)
    recipe, _ = settle(Recipe(precision="bf16"), 10, LONG, (), measure)
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
    measure = Given(bf16=0.1, plain=0.1, threads1=0.1)
    recipe, found = settle(Recipe(precision="fp32"), 10, LONG, ("precision",), measure)
    assert (recipe.precision, found["measured"], measure.asked) == ("fp32", [], [])
    recipe, _ = settle(Recipe(), 10, LONG, ("channels_last",), measure)
    assert all(one.channels_last for one in measure.asked)
    assert recipe.channels_last
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _, found = settle(Recipe(), 10, LONG, (), measure)
    assert found["chosen"]["threads"] == 2
    measure.asked.clear()
    recipe, _ = settle(Recipe(), 10, 100, (), measure)  # too short to be worth it
    assert (recipe.precision, measure.asked) == ("fp32", [])


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
    measure, recipe = Given(compiled=seconds), Recipe(model="alexnet-2014", size=256, crop=224,
                                                      batch_size=256)  # fmt: skip
    settled, found = settle(recipe, 10, round(images), (), measure)
    assert settled.compile is found["chosen"]["compile"] is bool(chosen)
    assert any(one.compile for one in measure.asked) is (chosen is not None)
    assert "for 256 images" in capfd.readouterr().err
    for fixed, other in (
        (("compile",), recipe),
        ((), recipe.replace(accumulate=2)),
        (("compile",), recipe.replace(compile=True)),
    ):
        measure.asked.clear()
        settled, found = settle(other, 10, HOUR, fixed, measure)
        assert not any(one.compile for one in measure.asked)
        assert settled.compile is found["chosen"]["compile"] is other.compile


def test_what_cannot_compile_is_said_and_trained(
    gpu: None, capfd: pytest.CaptureFixture[str]
) -> None:
    measure = Given(compiled=0.1)
    measure.cannot = True
    recipe = Recipe(model="alexnet-2014", size=256, crop=224, batch_size=256)
    settled, _ = settle(recipe, 10, HOUR, (), measure)
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
        assert measure_steps(preprocess, 10)(one, before + 1) > 0
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
    monkeypatch.setattr(settings, "WORTH", 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    fields = {**tiny, "precision": "auto", "doctor": "off"}

    def quick(*wins: str) -> None:
        measure = Given(**dict.fromkeys(wins, 0.5))
        monkeypatch.setattr(commands.training, "measure_steps", lambda *_: measure)

    def run(name: str, **more: Any) -> bytes:
        commands.train("digits", data=idx_folder, run=tmp_path / name, **fields, **more)
        return (tmp_path / name / "checkpoints/last/model.safetensors").read_bytes()

    with threads(2):
        quick("fp32", "threads1")
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
        quick("bf16", "plain")
        commands.train(run=tmp_path / "cut", resume=True)
        assert torch.get_num_threads() == 2
    last = tmp_path / "cut/checkpoints/last/model.safetensors"
    assert last.read_bytes() == whole
    known = json.loads((tmp_path / "cut/environment.json").read_text())
    chosen = {"precision": "fp32", "channels_last": True, "threads": 1, "compile": False}
    assert known["settings"]["chosen"] == chosen
    assert known["threads"] == 1
    assert json.loads((tmp_path / "cut/recipe.json").read_text())["recipe"]["precision"] == "fp32"
