"""Arrays of pixels are answered as files of the same pixels are, whatever their sides."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.errors import DataError
from old_runs import RUNS

SIDES = [(1, 1), (1, 9), (9, 1), (1, 3), (3, 1), (3, 3), (1, 40), (40, 1), (12, 17)]


@pytest.fixture(scope="module", params=["photos", "stopped"])
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """A network of colours, and one of greys."""
    run = tmp_path_factory.mktemp("run") / request.param
    return alexnet.load(shutil.copytree(RUNS / request.param, run, symlinks=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", SIDES)
def test_an_array_is_what_its_file_is(
    predictor: alexnet.Predictor, sides: tuple[int, int], channels: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*sides, channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
    assert np.array_equal(predictor.decode(pixels), predictor.decode(file.getvalue()))
    answers = predictor.predict([pixels, file.getvalue()])
    assert np.array_equal(answers[0], answers[1])


def test_colours_of_a_line_are_seen(predictor: alexnet.Predictor) -> None:
    """A row of red pixels is no grey picture three pixels wide."""
    row = np.zeros((1, 30, 3), np.uint8)
    row[..., 0] = 255
    decoded = predictor.decode(row)
    assert decoded[0, 0].tolist() in ([255, 0, 0], [76])
    assert (decoded == decoded[0, 0]).all()


def test_views_of_arrays_are_read_as_they_are(predictor: alexnet.Predictor) -> None:
    whole = np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8)
    for view in (whole[::-1], whole[:, ::-1], whole[..., ::-1], whole[3:4], whole[:, 5:6]):
        assert np.array_equal(predictor.decode(view), predictor.decode(view.copy()))


@pytest.mark.parametrize("shape", [(1, 9, 2), (1, 9, 4), (9, 1), (1, 1, 9, 3), (0, 9, 3), (9,)])
def test_other_arrays_are_refused(predictor: alexnet.Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"not uint8 \(H, W, 1 or 3\)"):
        predictor.predict([np.zeros(shape, np.uint8)])
