"""Statistics of scores that were measured in pairs, and the learning rate that each arm gets."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet import figures
from alexnet.lab.claims.claim import ClaimVerdict, Outcome

Scores = Mapping[str, Sequence[float]]  # of each arm, a seed each
Tried = dict[str, float | None]  # rates and their scores; None where training ran away
Rates = Mapping[str, tuple[float, Tried]]  # of each arm: the rate it got, and all
ENOUGH = 3  # seeds below which an interval is not worth printing a verdict on
STEP = 3  # between a rate and the next
WIDER = 2  # how often rates beyond the ends are tried, for each arm alike


@dataclass(frozen=True)
class Effect:
    """The mean of paired differences and its 95 % t-interval; n pairs."""

    mean: float
    low: float
    high: float
    n: int

    def judge(self, printed: float | None) -> ClaimVerdict:
        """What the interval says of a claim that the effect is above 0, and as large as printed.

        One that holds both 0 and the printed effect tells the two not apart.
        """
        if self.n < ENOUGH:
            return "not enough seeds"
        if self.low > 0:
            return "confirmed"
        if self.high < 0:
            return "contradicted"
        undecided = printed is not None and self.low <= printed <= self.high
        return "not enough seeds" if undecided else "not confirmed at this scale"


def paired_effect(differences: Sequence[float]) -> Effect:
    """The mean of differences that were measured in pairs; of one the interval has no end."""
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Effect(mean, -math.inf, math.inf, n)
    half = t_quantile(n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return Effect(mean, mean - half, mean + half, n)


def t_quantile(df: int, share: float = 0.95) -> float:
    """The t that Student's distribution stays within on both sides with this probability."""
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def share_within(t: float, pieces: int = 2000) -> float:
        """By Simpson's rule, over the angle whose tangent is x / sqrt(df): the tails are finite."""
        end = math.atan(t / math.sqrt(df))
        heights = [math.cos(end * i / pieces) ** (df - 1) for i in range(pieces + 1)]
        total = heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2])
        return 2 * scale * math.sqrt(df) * total * end / pieces / 3

    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_within(middle) < share else (low, middle)
    return high


def search_rate(
    rates: Sequence[float], scores_of: Callable[[Sequence[float]], Sequence[float]]
) -> tuple[float, Tried]:
    """The rate with the lowest score, and the scores of all that were tried: these, rising, and
    further ones while the best is the lowest or the highest, at most WIDER times."""
    rates, known = list(rates), dict[float, float]()
    wider = WIDER if len(rates) > 1 else 0
    while True:
        new = [rate for rate in rates if rate not in known]
        scores = [score if math.isfinite(score) else math.inf for score in scores_of(new)]
        known |= zip(new, scores, strict=True)
        best = min(rates, key=known.__getitem__)
        if not wider or best not in (rates[0], rates[-1]):
            break
        wider -= 1
        if best == rates[0]:
            rates.insert(0, float(f"{best / STEP:.3g}"))
        else:
            rates.append(float(f"{best * STEP:.3g}"))
    return best, {str(r): None if math.isinf(known[r]) else known[r] for r in rates}


def compare_scores(
    score_name: str,
    scores: Scores,
    printed: float | None,
    *,
    ratio: bool = False,
    rates: Rates | None = None,
    curves: Mapping[str, Any] | None = None,
    **about: Any,
) -> Outcome:
    """How much more the others' score is than the first's, or with `ratio` how many times it.

    Of several others the mean counts. `curves` and `about` are kept with the figures.
    """
    rates = rates or {}
    first, *others = scores
    pooled = [statistics.fmean(of) for of in zip(*(scores[n] for n in others), strict=True)]
    whole = _effect(scores[first], pooled, ratio)
    verdict = whole.judge(math.log(printed) if ratio and printed else printed)
    measured, ci95 = _numbers(whole, ratio)
    by_arm = [
        f"{name} {statistics.fmean(of):.4g}" + (f" at rate {rates[name][0]:g}" if rates else "")
        for name, of in scores.items()
    ]
    finding = f"{score_name}: {', '.join(by_arm)}"
    each = {name: _numbers(_effect(scores[first], scores[name], ratio), ratio) for name in others}
    if len(others) > 1:
        finding += f"; beside {first}: " + ", ".join(f"{n} {_text(*each[n])}" for n in others)
    if edge := [n for n, (rate, tried) in rates.items() if _at_edge(rate, tried)]:
        finding += f"; of {', '.join(edge)} the best rate is the lowest or highest tried"
    if verdict == "confirmed" and printed is not None and ci95 is not None:
        where = "in" if ci95[0] <= printed <= ci95[1] else "outside"
        finding += f"; the printed number lies {where} the interval"
    arms: dict[str, Any] = {name: {"scores": list(of)} for name, of in scores.items()}
    for name, (rate, tried) in rates.items():
        arms[name] |= {"rate": rate, "rates": tried}
    kept = {"score": score_name, "arms": arms, **about, "curves": dict(curves or {})}
    return Outcome(verdict, measured, ci95, finding, kept, partial(draw, kept))


def learnt_nothing(by_arm: Mapping[str, Sequence[Mapping[str, Any]]], classes: int) -> str:
    """Of which arms how many networks are no better than chance on the slice for decisions."""
    line = ""
    for name, rows in by_arm.items():
        if lost := sum(row["held"]["error"] > 0.95 * (1 - 1 / classes) for row in rows):
            line += f"; {name}: {lost} of {len(rows)} networks learnt nothing"
    return line


def draw(kept: dict[str, Any], folder: Path) -> None:
    """Scores of the arms, those of one seed joined, and the error in training where it is kept."""
    figures.draw_arms(
        {name: arm["scores"] for name, arm in kept["arms"].items()},
        {
            name: [[(step, 100 * error) for step, error, _ in curve] for curve in curves]
            for name, curves in kept["curves"].items()
        },
        folder / "arms.png",
        kept["score"],
    )


def _effect(first: Sequence[float], other: Sequence[float], ratio: bool) -> Effect:
    pairs = zip(first, other, strict=True)
    return paired_effect([math.log(b / a) if ratio else b - a for a, b in pairs])


def _numbers(of: Effect, ratio: bool) -> tuple[float, tuple[float, float] | None]:
    low, mean, high = (math.exp(x) if ratio else x for x in (of.low, of.mean, of.high))
    return mean, (low, high) if of.n > 1 else None


def _text(measured: float, ci95: tuple[float, float] | None) -> str:
    interval = f" ({ci95[0]:.3g} to {ci95[1]:.3g})" if ci95 else ""
    return f"{measured:+.3g}{interval}"


def _at_edge(rate: float, tried: Tried) -> bool:
    return len(tried) > 1 and str(rate) in (next(iter(tried)), next(reversed(tried)))
