"""The AlexNets of the literature: shapes and counts by hand, and the inputs that they take."""

import pytest
import torch

from alexnet.errors import UsageError
from alexnet.models import (
    FAMILY,
    MODELS,
    Dropout,
    Linear,
    Net,
    Spec,
    build_model,
    find_model,
    model_spec,
    summarize,
)
from nets import SIZES, Built, rows_of
from nets import built as built

# Sides of the maps and of nothing else: all presets agree on them at their native size.
SIDES = {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13}
SIDES |= {"conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}


def shape_by_hand(name: str, part: str) -> tuple[int, ...]:
    if part[:2] == "fc":
        return (1000 if part == "fc8" else 4096,)
    widths = (64, 192, 384, 256, 256) if name == "alexnet-2014" else (96, 256, 384, 384, 256)
    return (widths[int(part[-1]) - 1], SIDES[part], SIDES[part])


def trunk(name: str) -> Spec:
    """What comes before the fully connected layers."""
    spec = FAMILY[name].spec(10)
    places = [i for i, part in enumerate(spec) if isinstance(part, Linear | Dropout)]
    return spec[: places[0]]


@pytest.mark.parametrize("name", FAMILY)
def test_shapes_at_the_native_size(name: str) -> None:
    rows = rows_of(name)
    assert FAMILY[name].size == (227 if "caffe" in name else 224)
    shape: tuple[int, ...] = ()
    for part, row in rows.items():
        if part in SIDES or part[:2] == "fc":
            shape = shape_by_hand(name, part)
        assert row.shape == shape, part
    assert SIDES.keys() | {"fc6", "fc7", "fc8"} <= rows.keys()


@pytest.mark.parametrize("name", FAMILY)
def test_maps_at_the_native_size_are_those_of_the_table(name: str) -> None:
    rows, size = rows_of(name), FAMILY[name].size
    net = Net(trunk(name), (3, size, size)).eval()
    with torch.no_grad():
        _, kept = net.activations(torch.rand(1, 3, size, size), net.parts)
    assert {part: tuple(x.shape[1:]) for part, x in kept.items()} == {
        part: rows[part].shape for part in kept
    }
    assert kept["pool5"].shape == (1, 256, 6, 6)


@pytest.mark.parametrize("name", FAMILY)
def test_every_part_can_be_looked_at(name: str, built: Built) -> None:
    net, size = built(name), SIZES[name]
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits, kept = net.activations(images, net.parts)
        _, alone = net.activations(images, ["conv5"])
    rows = summarize(model_spec(name, 10), (3, size, size))
    assert [(row.name, row.shape) for row in rows] == [
        (part, tuple(x.shape[1:])) for part, x in kept.items()
    ]
    assert torch.equal(kept["fc8"], logits)
    assert list(alone) == ["conv5"]
    assert torch.equal(alone["conv5"], kept["conv5"])
    assert sum(p.numel() for p in net.parameters()) == sum(row.parameters for row in rows)
    with pytest.raises(UsageError, match="no part 'conv6'"):
        net.activations(images, ["conv6"])


def test_multiply_adds_by_hand() -> None:
    towers, column = rows_of("alexnet-2012"), rows_of("alexnet-one-column")
    assert towers["conv1"].macs == 105_415_200  # 55^2 x 96 x 3 x 11^2
    assert towers["conv2"].macs == 223_948_800  # 27^2 x 256 x 48 x 5^2
    assert towers["conv3"].macs == 149_520_384  # 13^2 x 384 x 256 x 3^2
    assert towers["conv4"].macs == 112_140_288  # 13^2 x 384 x 192 x 3^2
    assert towers["conv5"].macs == 74_760_192  # 13^2 x 256 x 192 x 3^2
    assert towers["fc6"].macs == 37_748_736  # 9216 x 4096
    assert sum(row.macs for row in towers.values()) == 724_406_816
    assert column["conv2"].macs == 447_897_600
    local = summarize(model_spec("cuda-convnet-11", 10), (3, 24, 24))
    assert {row.name: row.macs for row in local}["local3"] == 1_327_104  # 6^2 x 64 x 64 x 3^2


def test_receptive_fields_by_hand() -> None:
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6")
    fields = [rows_of("alexnet-2012")[name].receptive_field for name in names]
    assert fields == [11, 19, 51, 67, 99, 131, 163, 195, 224]
    names = ("conv1", "pool1", "conv2", "mapnorm2", "pool2", "conv3", "conv4", "conv5", "pool5")
    fields = [rows_of("alexnet-2012-code")[name].receptive_field for name in names]
    assert fields == [11, 19, 51, 83, 99, 131, 163, 195, 224]


def test_grey_images_any_classes_and_the_smallest_size() -> None:
    net = build_model("alexnet-2012", 3, channels=1, size=63).eval()
    assert net.input_shape == (1, 63, 63)
    assert net.conv1.weight.shape == (96, 1, 11, 11)
    with torch.no_grad():
        assert net(torch.rand(2, 1, 63, 63)).shape == (2, 3)
        # 65 pixels make the same maps, so that the same net takes them
        logits, kept = net.activations(torch.rand(2, 1, 65, 65), ["pool5"])
    assert kept["pool5"].shape == (2, 256, 1, 1)
    assert logits.shape == (2, 3)
    with torch.device("meta"):
        larger = build_model("alexnet-2012", 17, channels=4, size=65)
    assert larger.fc8.weight.shape == (17, 4096)
    assert larger.conv1.weight.shape == (96, 4, 11, 11)
    assert larger.fc6.weight.shape == (4096, 256)


def test_too_small_an_image_is_refused_with_the_size_that_fits() -> None:
    with pytest.raises(UsageError, match=r"63 pixels.* 62 were asked .*crop=63"):
        build_model("alexnet-2012", 10, size=62)
    with pytest.raises(UsageError, match=r"crop=63"):
        build_model("alexnet-2012", 10, size=4)
    # 3 places before the last pool, 6 and 12 before the others, which round up: 11 x 4 + 11
    with pytest.raises(UsageError, match=r"alexnet-caffe takes images of 55 pixels.*crop=55"):
        build_model("alexnet-caffe", 10, size=32)
    # and three fewer where conv1 rounds up as well
    with pytest.raises(UsageError, match=r"crop=52"):
        build_model("alexnet-2012-code", 10, size=51)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("cafenet", "caffenet"),
        ("alexnet-one-colum", "alexnet-one-column"),
        ("alexnet-2012-cod", "alexnet-2012-code"),
        ("cuda-convnet-1", "cuda-convnet-1[138]"),
    ],
)
def test_a_misspelt_model_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"unknown model '{wrong}': did you mean '{right}'"):
        find_model(wrong)
    with pytest.raises(UsageError, match="unknown model 'zzz'"):
        build_model("zzz")


def test_every_preset_says_what_it_is_and_whose_choices_it_has() -> None:
    kinds = {"sizes", "padding", "order", "norm", "pool", "dropout", "init", "biases"}
    for name, preset in FAMILY.items():
        assert MODELS[name] is preset
        assert len(preset.about) > 20
        assert preset.sources.keys() == kinds | {"groups"}
        assert all(preset.sources.values())


def test_logits_are_float32_under_autocast(built: Built) -> None:
    net = built("alexnet-2012")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits, kept = net.activations(torch.rand(2, 3, 79, 79), ["conv1", "norm1", "pool5"])
    assert {x.dtype for x in kept.values()} == {torch.bfloat16}
    assert logits.dtype == torch.float32
    # computed in float32 and not only converted: bfloat16 keeps 8 bits
    assert not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize("given", [{"channels": 0}, {"size": 0}, {"size": -3}])
def test_inputs_of_nothing_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        build_model("alexnet-2012", **given)
