"""The demo of the README: train on digits, test, classify three images, suggest what is next."""

import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import cli

NEXT = """
What to try next (`. .venv/bin/activate` first):
  alexnet classify {run} YOUR.png               a digit of your own, white on black
  alexnet test {run} --split val --json         the same figures for programs
  alexnet recipes                                     all recipes and networks
  alexnet data get fashion-mnist && alexnet train fashion-mnist
  alexnet train --data DIR                            your images, a sub-folder for each class
  alexnet train digits --seed 1 --lr 0.001            each field of a recipe is a flag
"""


def run(*words: str) -> None:
    print(f"\n$ alexnet {shlex.join(words)}", file=sys.stderr, flush=True)
    if status := cli.main(words):
        sys.exit(status)


def three_test_images(folder: Path) -> list[str]:
    """Write three test images as PNG files, named by their class. Returns the paths."""
    from alexnet.data.dataset import open_dataset
    from alexnet.recipe import find_recipe

    dataset = open_dataset(find_recipe("digits"))
    test = dataset.split("test")
    folder.mkdir(exist_ok=True)
    paths = []
    for i in np.linspace(0, len(test) - 1, 3).astype(int):
        path = folder / f"a-{dataset.classes[test.labels[i]]}.png"
        Image.fromarray(test.read(np.array([i]))[0, :, :, 0]).save(path)
        paths.append(str(path))
    return paths


def main() -> None:
    run("train", "digits")
    # Imported here, since it loads torch, and the command above sets up torch's threads first.
    from alexnet.runs.rundir import latest_run

    trained = latest_run(Path("runs"), "digits")
    assert trained is not None
    run("test", str(trained))
    run("classify", str(trained), *three_test_images(trained / "demo"))
    print(NEXT.format(run=trained))


if __name__ == "__main__":
    main()
