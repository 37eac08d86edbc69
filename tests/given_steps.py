"""Training steps that take as long as they are told, for what chooses by them."""

from alexnet.engine.settings import Settings, Step
from alexnet.errors import Unavailable
from alexnet.recipe import Recipe


class Given:
    """Prepares steps that take a second, times a factor for each of fp32, bf16, last, plain,
    threads1, compiled ... that is given; and notes what was asked for."""

    def __init__(self, **factors: float) -> None:
        self.factors, self.asked, self.cannot = factors, list[Settings](), False

    def __call__(self, recipe: Recipe, count: int) -> Step:
        assert recipe.precision != "auto"
        self.asked.append(Settings(recipe.precision, recipe.channels_last, count, recipe.compile))
        if recipe.compile and self.cannot:
            raise Unavailable("no g++ here: leave --compile out")
        layout = "last" if recipe.channels_last else "plain"
        seconds = 1.0
        for name in (recipe.precision, layout, f"threads{count}", "compiled" * recipe.compile):
            seconds *= self.factors.get(name, 1.0)
        return lambda: seconds
