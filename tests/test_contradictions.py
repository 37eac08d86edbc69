"""Recipes that contradict themselves, and parts of a network that are named wrongly."""

import math
from typing import Any

import pytest

from alexnet.errors import UsageError
from alexnet.recipe import Recipe


@pytest.mark.parametrize("field", ["shift", "rotate", "scale", "area"])
def test_the_mean_image_goes_with_nothing_that_moves_pixels(field: str) -> None:
    moved: dict[str, Any] = {"shift": 2, "rotate": 5.0, "scale": 0.1, "area": 0.5}
    with pytest.raises(UsageError, match=rf"normalize image .*{field}.*normalize='mean'"):
        Recipe(normalize="image", **{field: moved[field]})
    Recipe(normalize="centre", **{field: moved[field]})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mixup": 0.7, "cutmix": 0.6}, ("mixup 0.7", "cutmix 0.6", "more than 1")),
        ({"colour": 0.25, "channels": 1}, ("colour 0.25", "grey")),
        ({"area": 0}, ("area is 0", "above 0")),
        ({"area": 1.5}, ("area is 1.5", "at most 1")),
        ({"area": -0.5}, ("area is -0.5",)),
        ({"mixup": 1.25}, ("mixup is 1.25", "0 to 1")),
        ({"cutmix": -0.25}, ("cutmix is -0.25", "0 to 1")),
        ({"crop_chunk": 0}, ("crop_chunk is 0", "at least 1")),
        ({"colour": math.nan}, ("colour is nan", "finite")),
        ({"colour_rule": "both"}, ("'both'", "paper, code")),
        ({"normalize": "imagenet"}, ("'imagenet'", "image", "torchvision")),
        ({"bias_lr": -2.0}, ("bias_lr is -2", "0 or more")),
    ],
)
def test_contradictions_are_refused_by_value(
    fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**fields)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["fc8", "fc8=", "=3", "fc8=ten", "fc8=-1", "fc8=1@", "fc8=1@x", "fc=2", "8=2", ""]
)
def test_a_part_rate_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match=r"like fc8=10 or conv1=0@72") as caught:
        Recipe(part_lr=("conv1=0.5", entry))
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize("entry", ["conv", "conv1..", "..conv2", "conv1-conv3", "1", "", "conv1.2"])
def test_a_frozen_part_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match=r"like conv1 or conv1\.\.conv5") as caught:
        Recipe(freeze=(entry,))
    assert repr(entry) in str(caught.value)


def test_an_infinite_part_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="fc8=1e999"):
        Recipe(part_lr=("fc8=1e999",))


def test_part_rates_are_read() -> None:
    recipe = Recipe(part_lr=("fc8=10", "conv1=0.1@67", "conv1=0@72", "conv2=1e-3@2.5"))
    expected = [("fc8", 10, 0), ("conv1", 0.1, 67), ("conv1", 0, 72), ("conv2", 1e-3, 2.5)]
    assert recipe.part_rates == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trust": 0.001, "opt": "adam"}, "trust 0.001 .LARS. works with opt='sgd' only"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate 9 cuts a batch of 8 images"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_large_batch_fields_that_contradict(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe(**fields)
