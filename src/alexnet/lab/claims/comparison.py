"""A claim as a comparison that is fair by construction: arms in which one factor differs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from alexnet.errors import UsageError
from alexnet.lab.claims.claim import Outcome
from alexnet.lab.claims.one_training import (
    Alter,
    Change,
    Material,
    cell_of,
    gather,
    resolved,
    train,
)
from alexnet.lab.claims.paired import Tried, compare_scores, learnt_nothing, search_rate
from alexnet.lab.claims.study import Row, Study
from alexnet.models import Preset, compare_presets, find_model
from alexnet.recipe import Recipe
from alexnet.support.terminal import say

CHOOSING = 1000  # the seed that rates are tried with; those that count begin at 0
RATES = (1 / 3, 1.0, 3.0)  # of the recipe's, tried for every arm
STORE = "trials.json"  # of all comparisons: arms that several share are trained once

Score = Callable[[Row], float]  # of a trained network's figures: lower is better


@dataclass(frozen=True)
class Arm:
    """A recipe, and a change of its network that has no name of its own."""

    name: str
    recipe: Recipe
    change: Change | None = None

    def preset(self) -> Preset:
        named = find_model(self.recipe.model)
        if self.change is None:
            return named
        change = self.change
        return Preset(lambda classes: change(named.spec(classes)), named.size, named.channels)


@dataclass(frozen=True)
class Comparison:
    """The first arm is as the paper would have it: its score is to be lower than the others'.

    `varies` names what may differ between the arms, with * for any: recipe fields, and what
    `alexnet recipes --diff` says of networks. Everything else is refused. With `ratio` the effect
    is how many times the others' score is the first's, else how much more it is. `choose` is the
    score by which each arm gets its learning rate, on the slice for decisions; `failed` says of
    which networks the score is only a lower bound. Scores are made of the figures of "train",
    "held" and "test" (error, loss), of "curve" and "held_curve".
    """

    arms: tuple[Arm, ...]
    varies: tuple[str, ...]
    score: Score
    score_name: str
    images: int
    ratio: bool = False
    choose: Score = lambda row: float(row["held"]["loss"])
    rates: tuple[float, ...] = RATES
    until: Callable[[list[float]], bool] | None = None
    alter_test: Alter | None = None
    failed: Callable[[Row], bool] | None = None

    def differences(self, classes: int = 10) -> dict[str, list[str]]:
        """For each arm after the first, all that differs from the first, a line each."""
        by_arm = {}
        for arm in self.arms[1:]:
            lines = dict(self._differing(self.arms[0], arm, classes))
            if others := [n for n in lines if not any(fnmatchcase(n, p) for p in self.varies)]:
                raise UsageError(
                    f"not a fair comparison: {arm.name} differs from {self.arms[0].name} in "
                    f"{others[0]} ({lines[others[0]]}) too, and only {', '.join(self.varies)} may"
                )
            if not lines:
                raise UsageError(f"{arm.name} and {self.arms[0].name} are the same: no comparison")
            by_arm[arm.name] = [f"{name}: {line}" for name, line in lines.items()]
        return by_arm

    def _differing(self, first: Arm, second: Arm, classes: int) -> Iterator[tuple[str, str]]:
        for name in first.recipe.conflicts(second.recipe):
            one, other = (getattr(arm.recipe, name) for arm in (first, second))
            yield name, f"{one} and {other}"
        for d in compare_presets(first.preset(), second.preset(), classes):
            yield d.what, f"{d.first} and {d.second}"

    def __call__(self, study: Study) -> Outcome:
        for name, lines in self.differences().items():
            say(f"{self.arms[0].name} and {name} differ in {'; '.join(lines)}")
        material = gather(self.arms[0].recipe, study, self.images, self.alter_test)
        rates = {arm.name: self._rate(arm, material, study) for arm in self.arms}
        cells = [
            (arm, resolved(arm.recipe).replace(seed=seed, lr=rates[arm.name][0]))
            for seed in range(study.seeds)
            for arm in self.arms
        ]
        rows = self._trials(cells, material, study, test=True)
        by_arm = {arm.name: rows[i :: len(self.arms)] for i, arm in enumerate(self.arms)}
        outcome = compare_scores(
            self.score_name,
            {name: [self.score(row) for row in of] for name, of in by_arm.items()},
            study.printed,
            ratio=self.ratio,
            rates=rates,
            curves={name: [row["curve"] for row in of] for name, of in by_arm.items()},
            differ=self.differences(),
            **material.described,
        )
        return replace(outcome, finding=outcome.finding + self._doubts(by_arm, material.classes))

    def _doubts(self, by_arm: dict[str, list[Row]], classes: int) -> str:
        """What takes meaning from the scores: networks that learnt nothing, or were too slow."""
        doubts = learnt_nothing(by_arm, classes)
        for name, rows in by_arm.items():
            if late := sum(map(self.failed, rows)) if self.failed else 0:
                doubts += f"; {name}: {late} of {len(rows)} were not there at the end"
        return doubts

    def _rate(self, arm: Arm, material: Material, study: Study) -> tuple[float, Tried]:
        """The rate with the lowest score, and all scores. Every arm is tried with the same rates,
        and with further ones while its best is the lowest or the highest."""
        recipe = resolved(arm.recipe).replace(seed=CHOOSING)
        tried = [float(f"{recipe.lr * factor:.3g}") for factor in self.rates]

        def scores(rates: Sequence[float]) -> list[float]:
            cells = [(arm, recipe.replace(lr=lr)) for lr in rates]
            return [self.choose(row) for row in self._trials(cells, material, study, test=False)]

        return search_rate(tried, scores)

    def _trials(
        self,
        cells: list[tuple[Arm, Recipe]],
        material: Material,
        study: Study,
        *,
        test: bool,
    ) -> list[Row]:
        asked = [
            cell_of(recipe, material, arm.change)
            | {"until": getattr(self.until, "__name__", ""), "tested": test}
            for arm, recipe in cells
        ]
        trained = dict(
            zip((cell["network"] + cell["recipe"] for cell in asked), cells, strict=True)
        )

        def how(cell: Row) -> Row:
            arm, recipe = trained[cell["network"] + cell["recipe"]]
            found = train(recipe, material, arm.change, until=self.until)
            row: Row = {"curve": found.curve, "held_curve": found.held}
            row |= {"train": found.figures(material.train), "held": found.figures(material.held)}
            return row | ({"test": found.figures(material.test)} if test else {})

        return study.measure(asked, how, study.folder.parent / STORE)


def test_error(row: Row) -> float:
    """%"""
    return 100 * float(row["test"]["error"])


def train_error(row: Row) -> float:
    """% of the training images, as they are stored."""
    return 100 * float(row["train"]["error"])


def gap(row: Row) -> float:
    """Percentage points between test and training error."""
    return test_error(row) - train_error(row)
