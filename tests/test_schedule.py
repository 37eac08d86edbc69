"""The learning rate over a run, and what is watched to lower it or to stop."""

import math

import numpy as np
import pytest

from alexnet.recipe import Recipe
from alexnet.training import Watch, learning_rate


def rates(recipe: Recipe, total: int = 100, per_epoch: int = 10) -> list[float]:
    return [learning_rate(recipe, step, per_epoch, total) for step in range(total)]


def test_constant_and_steps() -> None:
    assert set(rates(Recipe(schedule="constant", lr=0.3))) == {0.3}
    found = rates(Recipe(schedule="steps", lr=1.0, drops=(2.0, 5.5), lr_factor=0.5))
    assert found == [1.0] * 20 + [0.5] * 35 + [0.25] * 45


def test_cosine_with_warm_up() -> None:
    recipe = Recipe(schedule="cosine", lr=2.0, warmup_epochs=1, final_lr=0.1)
    found = rates(recipe)
    np.testing.assert_allclose(found[:10], [0.2 * (i + 1) for i in range(10)])
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / 90)) / 2) for i in range(90)]
    np.testing.assert_allclose(found[10:], expected)
    assert learning_rate(recipe, 100, 10, 100) == pytest.approx(0.2)


def test_onecycle_rises_for_three_tenths_and_ends_at_the_bottom() -> None:
    found = rates(Recipe(schedule="onecycle", lr=1.0))
    assert int(np.argmax(found)) in (29, 30)
    assert max(found) == pytest.approx(1.0)
    assert (np.diff(found[:30]) > 0).all()
    assert (np.diff(found[30:]) < 0).all()
    assert found[0] == pytest.approx(1 / 30)
    assert 0 < found[-1] < 1e-3


def test_plateau_drops_three_times_and_stops() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2, lr=1.0)
    watch, seen = Watch(), []
    assert watch.update(0.5, 1.0, 1, recipe) == (True, "")
    for step in range(2, 20):
        best, why = watch.update(0.5, 1.0, step, recipe)
        assert not best
        seen.append(learning_rate(recipe, step, 10, 100, watch.drops))
        if why:
            break
    np.testing.assert_allclose(seen, [1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001])
    assert why == "no improvement after 3 drops of the learning rate"
    assert watch.best_step == 1


def test_watch_knows_the_best() -> None:
    recipe = Recipe(early_stop=2)
    watch = Watch()
    assert watch.update(0.5, 1.0, 1, recipe) == (True, "")
    assert watch.update(0.5, 0.9, 2, recipe) == (True, "")  # as accurate, and surer
    assert watch.update(0.5, 0.9, 3, recipe) == (False, "")
    assert watch.update(0.6, 5.0, 4, recipe) == (True, "")
    assert watch.update(0.4, 0.1, 5, recipe) == (False, "")
    assert watch.update(0.6, 5.0, 6, recipe) == (False, "no improvement in 2 validations")
    assert (watch.best_step, watch.best_top1, watch.best_loss) == (4, 0.6, 5.0)
    assert Watch().update(math.nan, math.nan, 1, recipe)[0] is False


def test_an_improvement_gives_the_plateau_its_patience_back() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2)
    watch = Watch()
    for step, top1 in enumerate((0.1, 0.1, 0.2, 0.2, 0.2)):
        watch.update(top1, 1.0, step, recipe)
    assert watch.drops == 1


# Large batches


def test_a_rate_is_scaled_to_the_batch() -> None:
    recipe = Recipe(lr=0.02, lr_batch=256, batch_size=1024, schedule="constant")
    assert learning_rate(recipe, 0, 10, 100) == pytest.approx(0.08)
    assert learning_rate(recipe.replace(lr_batch=0), 0, 10, 100) == 0.02


def test_poly_falls_with_the_square_of_what_is_left() -> None:
    recipe = Recipe(lr=1.0, schedule="poly", warmup_epochs=1)
    rates = [learning_rate(recipe, step, 10, 110) for step in (4, 9, 10, 60, 109)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.25, 1e-4])
