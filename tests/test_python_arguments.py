"""Arguments from Python: every natural form of right ones, and one clear line for wrong ones."""

import inspect
import os
import re
import signal
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.data import open_dataset
from alexnet.errors import AlexNetError, UsageError
from alexnet.recipe import Recipe
from alexnet.training import Trainer
from shell import clean_folder as clean_folder  # around every test here
from shell import cli as cli
from shell import run as run

untyped: Any = alexnet  # calls that a type checker refuses
TrainerOf: Any = Trainer
HUGE, LONG = 10**400, "a" * 5000
Call = Callable[[Path], object]

# Wrong calls, and how the message names the option.
WRONG: dict[str, tuple[str, Call]] = {
    # a path of another type, empty, with a NUL byte, too long
    "test(5)": ("run", lambda r: untyped.test(5)),
    "test(None)": ("run", lambda r: untyped.test(None)),
    "test('')": ("run", lambda r: alexnet.test("")),
    "test(b'x')": ("run", lambda r: untyped.test(b"x")),
    "load(5)": ("run", lambda r: untyped.load(5)),
    "load(NUL)": ("run", lambda r: alexnet.load("a\0b")),
    "load(long)": ("run", lambda r: alexnet.load(LONG)),
    "load(deep)": ("run", lambda r: alexnet.load("a/" * 5000)),
    "export(5)": ("run", lambda r: untyped.export(5, format="onnx", out="x.onnx")),
    "export(out=5)": ("out", lambda r: untyped.export(r, format="onnx", out=5)),
    "export(out='')": ("out", lambda r: alexnet.export(r, format="onnx", out="")),
    "export(format)": ("format", lambda r: untyped.export(r, format="onx", out="x")),
    "export(int8)": ("int8", lambda r: untyped.export(r, format="onnx", out="x", int8="yes")),
    "report(5)": ("runs", lambda r: untyped.report(5)),
    "report([5])": (r"runs\[0\]", lambda r: untyped.report([5])),
    "report([])": ("report", lambda r: alexnet.report([])),
    "report(data)": ("nope", lambda r: alexnet.report(r, data="nope")),
    "report(brief)": ("brief", lambda r: untyped.report(r, brief=1)),
    "data_check(5)": ("path", lambda r: untyped.data_check(5)),
    "data_check('')": ("path", lambda r: alexnet.data_check("")),
    "data_pack(5)": ("source", lambda r: untyped.data_pack(5, out="o")),
    "data_pack(out)": ("out", lambda r: untyped.data_pack(r, out=5)),
    "inspect(out)": ("out", lambda r: untyped.inspect(r, "filters", out=5)),
    "doctor(out)": ("out", lambda r: untyped.doctor(out=5)),
    "doctor(5)": ("target", lambda r: untyped.doctor(5)),
    "train(run=5)": ("run", lambda r: untyped.train(run=5)),
    "train(init=5)": ("init", lambda r: untyped.train(init=5)),
    "train(data=5)": ("data", lambda r: untyped.train(data=5)),
    "train(data=list)": ("data", lambda r: untyped.train(data=["photos"])),
    "train(data=bytes)": ("data", lambda r: untyped.train(data=b"x")),
    "train(run=NUL)": ("run", lambda r: alexnet.train(run="a\0b")),
    "train(run=long)": ("run", lambda r: alexnet.train(run=LONG)),
    "train(data='')": ("data", lambda r: alexnet.train(data="")),
    "import_weights(5)": ("file", lambda r: untyped.import_weights(5)),
    "import_weights(run)": ("run", lambda r: untyped.import_weights("f", run=["r"])),
    "serve(5)": ("run", lambda r: untyped.serve(5)),
    "claim(out)": ("out", lambda r: untyped.claim(out=5)),
    "bench(data)": ("data", lambda r: untyped.bench(data=5)),
    # a name, a word or a list of another type
    "train(5)": ("recipe", lambda r: untyped.train(5)),
    "train([name])": ("recipe", lambda r: untyped.train(["digits"])),
    "train(dict)": ("recipe", lambda r: untyped.train({"model": "alexnet-28"})),
    "train(long)": ("recipe", lambda r: untyped.train(LONG)),
    "train(doctor=None)": ("doctor", lambda r: untyped.train(doctor=None)),
    "train(doctor=maybe)": ("doctor", lambda r: untyped.train(doctor="maybe")),
    "train(resume)": ("resume", lambda r: untyped.train(resume="yes")),
    "train(tensorboard)": ("tensorboard", lambda r: untyped.train(tensorboard=1)),
    "train(towers='2')": ("towers", lambda r: untyped.train(towers="2")),
    "train(towers=nan)": ("towers", lambda r: untyped.train(towers=float("nan"))),
    "train(signal)": ("stop_signal", lambda r: untyped.train(stop_signal=[15])),
    "train(SIGKILL)": ("stop_signal", lambda r: alexnet.train(stop_signal=9)),
    "train(device)": ("device", lambda r: untyped.train(device="tpu")),
    "train(long name)": ("takes no", lambda r: untyped.train(**{LONG: 1})),
    "inspect(5)": ("what", lambda r: untyped.inspect(r, 5)),
    "inspect(filter)": ("what", lambda r: untyped.inspect(r, "filter")),
    "inspect(items)": ("items", lambda r: untyped.inspect(r, "activations", 5)),
    "inspect(items[1])": (
        r"items\[1\]", lambda r: untyped.inspect(r, "activations", ["a.png", 5])),
    "inspect(channels)": ("channels", lambda r: untyped.inspect(r, "activations", channels=-1)),
    "inspect(count)": ("count", lambda r: untyped.inspect(r, "activations", count="3")),
    "inspect(top)": ("top", lambda r: untyped.inspect(r, "confusion", top=0)),
    "inspect(metric)": ("metric", lambda r: untyped.inspect(r, "neighbors", metric="x")),
    "inspect(part)": ("part", lambda r: untyped.inspect(r, "filters", part=1)),
    "build_model(5)": ("name", lambda r: untyped.build_model(5)),
    "build_model(long)": ("name", lambda r: untyped.build_model(LONG)),
    "claim(5)": ("name", lambda r: untyped.claim(5)),
    "claim(seeds)": ("seeds", lambda r: untyped.claim(seeds="3")),
    "claim(budget)": ("budget", lambda r: untyped.claim(all=True, budget=30)),
    "data_get(5)": ("name", lambda r: untyped.data_get(5)),
    "data_get(offline)": ("offline", lambda r: untyped.data_get("mnist", offline="no")),
    "classify(5)": ("images", lambda r: untyped.classify(r, 5)),
    "classify(None)": ("images", lambda r: untyped.classify(r, None)),
    "classify([])": ("images", lambda r: alexnet.classify(r, [])),
    "classify([5])": (r"images\[0\]", lambda r: untyped.classify(r, [5])),
    "classify(dict)": ("images", lambda r: untyped.classify(r, {"a.png": 1})),
    "classify(stdin)": ("stdin", lambda r: untyped.classify(r, "-", stdin="x")),
    "test(checkpoint)": ("checkpoint", lambda r: untyped.test(r, checkpoint=5)),
    "test(views)": ("views", lambda r: untyped.test(r, views="2")),
    "test(split)": ("split", lambda r: untyped.test(r, split=["val"])),
    "test(engine)": ("engine", lambda r: untyped.test(r, engine="tensorrt")),
    "test(certificate)": ("certificate", lambda r: untyped.test(r, certificate="yes")),
    "recipes(5)": ("name", lambda r: untyped.recipes(5)),
    "recipes(classes)": ("classes", lambda r: untyped.recipes("digits", classes="3")),
    "bench(what)": ("what", lambda r: untyped.bench("speed")),
    "bench(rounds)": ("rounds", lambda r: untyped.bench("train", rounds=0)),
    "completion(5)": ("shell", lambda r: untyped.completion(["bash"])),
    "diagnose(5)": ("model", lambda r: untyped.diagnose(5, 5, 5)),
    "diagnose(loader)": ("loader", lambda r: untyped.diagnose(torch.nn.Linear(2, 2), 5)),
    "diagnose(optimizer)": (
        "optimizer", lambda r: untyped.diagnose(torch.nn.Linear(2, 2), [], optimizer=5)),
    "diagnose(seconds)": (
        "seconds", lambda r: untyped.diagnose(torch.nn.Linear(2, 2), [], seconds=-1)),
    "Trainer(name)": ("recipe", lambda r: TrainerOf("digits", None)),
    "Trainer(None)": ("data", lambda r: TrainerOf(Recipe(), None)),
    "predict(5)": ("images", lambda r: untyped.load(r).predict(5)),
    "predict(views)": ("views", lambda r: untyped.load(r).predict([], views="2")),
    # numbers as text, of another kind, not finite, huge
    "doctor(-1)": ("seconds", lambda r: alexnet.doctor(seconds=-1)),
    "doctor(nan)": ("seconds", lambda r: alexnet.doctor(seconds=float("nan"))),
    "doctor('1')": ("seconds", lambda r: untyped.doctor(seconds="1")),
    "train(minutes=True)": ("minutes", lambda r: untyped.train(data="x", minutes=True)),
    "train(minutes='2')": ("minutes", lambda r: untyped.train(data="x", minutes="2")),
    "train(minutes=huge)": ("minutes", lambda r: untyped.train(data="x", minutes=HUGE)),
    "classify(top='2')": ("top", lambda r: untyped.classify(r, "a.png", top="2")),
    "classify(top=2.5)": ("top", lambda r: untyped.classify(r, "a.png", top=2.5)),
    "classify(top=0)": ("top", lambda r: alexnet.classify(r, "a.png", top=0)),
    "data_check(pixels)": ("max_pixels", lambda r: untyped.data_check(r, max_pixels="1")),
    "data_check(0 pixels)": ("max_pixels", lambda r: untyped.data_check(r, max_pixels=0)),
    "data_check(workers)": ("workers", lambda r: untyped.data_check(r, workers="2")),
    "data_check(10**9)": ("workers", lambda r: untyped.data_check(r, workers=10**9)),
    "data_pack('48')": ("size", lambda r: untyped.data_pack(r, out="o", size="48")),
    "data_pack(48.0)": ("size", lambda r: untyped.data_pack(r, out="o", size=48.0)),
    "data_pack(channels)": ("channels", lambda r: untyped.data_pack(r, out="o", channels=2)),
    "data_pack(encoding)": ("encoding", lambda r: untyped.data_pack(r, out="o", encoding="png")),
    "data_pack(expect)": ("expect", lambda r: untyped.data_pack(r, out="o", expect="train=5")),
    "data_pack(expect '5')": (
        "expect", lambda r: untyped.data_pack(r, out="o", expect={"train": "5"})),
    "serve('x')": ("port", lambda r: untyped.serve(r, port="x")),
    "serve(70000)": ("port", lambda r: alexnet.serve(r, port=70_000)),
    "build_model('10')": ("classes", lambda r: untyped.build_model("alexnet-28", "10")),
    "build_model(nan)": ("classes", lambda r: untyped.build_model("alexnet-28", float("nan"))),
    "build_model(10**12)": ("classes", lambda r: alexnet.build_model("alexnet-28", 10**12)),
    "build_model(dropout)": (
        "dropout", lambda r: alexnet.build_model("alexnet-28", dropout=float("nan"))),
    "import_weights(crop)": ("crop", lambda r: untyped.import_weights("f", crop="3")),
    # fields of a recipe
    **{
        f"field {i}: {name}": (
            name, lambda r, name=name, value=value: untyped.train("digits", **{name: value})
        )
        for i, (name, value) in enumerate([
            ("epochs", HUGE), ("epochs", "ten"), ("epochs", float("nan")), ("epochs", 1e30),
            ("epochs", None), ("epochs", True), ("epochs", 10**5000),
            ("lr", HUGE), ("lr", 0), ("lr", -1), ("lr", float("inf")), ("lr", "0.1"),
            ("steps", 10**18), ("steps", 2.0), ("steps", "2"), ("steps", 0), ("steps", -5),
            ("batch_size", -5), ("batch_size", 0), ("batch_size", 10**12),
            ("views", -3), ("views", 3), ("workers", 10**9), ("workers", -1),
            ("channels", 2), ("size", 10**5), ("seed", 2**63), ("seed", -1), ("momentum", 1),
            ("area", 0), ("area", 1.5), ("mixup", -0.1), ("dropout", 1.0), ("dropout", "none"),
            ("val_fraction", 1.0), ("opt", "sdg"), ("opt", 5), ("flip", 1), ("flip", "yes"),
            ("drops", 20), ("drops", "20"), ("drops", ["20"]), ("drops", [float("nan")]),
            ("drops", [-1]), ("freeze", [5]), ("freeze", 5), ("freeze", "conv1"),
            ("part_lr", [None]), ("part_lr", {"fc8": 10}), ("model", 5), ("model", LONG),
            ("model", None), ("name", "a/b"), ("name", LONG), ("name", 5),
        ])
    },
}  # fmt: skip


@pytest.mark.parametrize(("names", "call"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_get_one_clear_line(
    names: str, call: Call, trained: Path, clean_folder: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with pytest.raises(AlexNetError) as caught:
        call(trained)
    line = str(caught.value)
    assert re.search(rf"(?<!\w){names}", line), line
    assert line.isprintable(), line
    assert len(line) < 300, line
    assert not re.search(r"(?<!\w)--", line), line
    assert "NoneType" not in line
    assert list(clean_folder.iterdir()) == [], "something was written"
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"batch_size": -5}, "batch_size is -5; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"views": -3}, "views is -3; it must be 1 to 2"),
        ({"dropout": "x"}, "dropout is 'x'; it takes float or None"),
        ({"steps": 1.5}, "steps is 1.5; it takes int or None"),
        ({"epochs": HUGE}, "epochs is 1000000000...00000000000; it takes a finite number"),
        ({"area": 2}, "area is 2; it must be above 0 and at most 1"),
        ({"drops": [1, "x"]}, "drops[1] is 'x'; it takes float"),
        ({"opt": "sdg"}, "opt is 'sdg'; it takes one of sgd, adam, adamw: did you mean 'sgd'?"),
    ],
)
def test_a_field_names_its_whole_range_at_once(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**fields)
    assert str(caught.value) == line


def test_a_value_cannot_write_to_the_terminal() -> None:
    with pytest.raises(UsageError) as caught:
        untyped.train(doctor="\x1b[2J\n\u202eon")
    assert str(caught.value).isprintable()


class Place:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_every_form_of_images_is_classified_alike(trained: Path, photo: Path) -> None:
    """A path as text, as a Path and as os.PathLike, bytes, pixels, and lists and iterators."""
    pixels = np.asarray(Image.open(photo))
    forms: list[tuple[Any, str]] = [
        (str(photo), str(photo)), (photo, str(photo)), (Place(photo), str(photo)),
        ([str(photo)], str(photo)), ((photo,), str(photo)),
        (photo.parent.glob("*.png"), str(photo)),
        (photo.read_bytes(), "images[0]"), (pixels, "images[0]"), ([pixels], "images[0]"),
        (pixels[None], "images[0]"),
    ]  # fmt: skip
    answers = [(alexnet.classify(trained, form), name) for form, name in forms]
    tops = [[(t.class_name, t.probability) for t in a.results[0].top] for a, _ in answers]
    assert all(top == tops[0] for top in tops)
    assert [[r.path for r in a.results] for a, _ in answers] == [[name] for _, name in answers]
    predictor = alexnet.load(Place(trained))  # type: ignore[arg-type]
    for form, _ in forms:
        if not isinstance(form, Iterable) or isinstance(
            form, str | bytes | list | tuple | np.ndarray
        ):
            assert predictor.predict(form).shape == (1, 10)


def test_one_path_is_a_list_of_one(run: Path, photo: Path) -> None:
    shown = alexnet.inspect(run, "activations", str(photo))
    assert [image.path for image in shown.images] == [str(photo)]  # type: ignore[union-attr]


@pytest.mark.parametrize("stop", [signal.SIGUSR2, int(signal.SIGUSR2), "SIGUSR2", "usr2"])
def test_numbers_of_numpy_and_signals_are_taken(stop: Any, clean_folder: Path) -> None:
    done = untyped.train(
        "digits", run=Place(clean_folder / "run"), stop_signal=stop, towers=np.int8(1),
        doctor="off",
        steps=np.int64(2), batch_size=np.int32(8), lr=np.float32(0.5), workers=np.int64(0),
        flip=np.bool_(False), shift=0, rotate=0, scale=np.float64(0), precision="fp32",
    )  # fmt: skip
    recipe = untyped.recipes(Path(done.run) / "recipe.json").recipe
    assert (recipe.steps, recipe.batch_size, recipe.lr) == (2, 8, 0.5)
    assert type(recipe.steps) is int
    assert type(recipe.lr) is float


def test_a_trainer_takes_a_data_set_as_it_is_opened() -> None:
    recipe = Recipe(model="alexnet-28", data="digits", crop=28, size=28, channels=1, steps=1)
    trainer = Trainer(recipe, open_dataset(recipe))
    assert trainer.data.classes == 10
    assert trainer.data.statistics.mean


def test_every_public_function_checks_its_arguments() -> None:
    """A new one is decorated too; response_norm, which networks call, checks its tensor itself."""
    plain = {
        name for name in alexnet.__all__
        if inspect.isfunction(getattr(alexnet, name))
        and not hasattr(getattr(alexnet, name), "__wrapped__")
    }  # fmt: skip
    assert plain == {"response_norm", "completion"}


def test_signatures_stay_visible() -> None:
    assert list(inspect.signature(alexnet.train).parameters)[:2] == ["recipe", "data"]
    assert typing.get_type_hints(alexnet.classify)["top"] is int
    assert (alexnet.train.__doc__ or "").startswith("Train a recipe")


def test_a_misspelt_verb_gets_the_nearest(cli: Any) -> None:
    status, _, lines = cli("trian")
    assert (status, "did you mean 'train'?" in lines[-1]) == (2, True)


def test_the_command_line_has_the_same_ranges(cli: Any) -> None:
    for words, says in [
        (["doctor", "--seconds", "-1"], "--seconds is -1.0; it must be 0 or more"),
        (["doctor", "--seconds", "nan"], "--seconds is nan; it takes a finite number"),
        (["data", "check", ".", "--max-pixels", "0"], "--max-pixels is 0; it must be at least 1"),
        (["test", ""], "run is ''; it takes a path that is not empty"),
    ]:
        status, _, lines = cli(*words)
        assert (status, says in lines[-1]) == (2, True), lines


CHECKED = """
import alexnet
alexnet.test("run").top1
alexnet.test("run", certificate=True).holds
alexnet.doctor().recipe
alexnet.claim().claims
alexnet.claim("name").finding
alexnet.import_weights("file").matched
"""


def test_an_editor_knows_which_result_a_call_has(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CHECKED)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\ncache_dir = /dev/null\n[mypy-alexnet.*]\nfollow_imports = silent\n"
        "[mypy-torch.*,numpy.*,matplotlib.*,PIL.*,rich.*,safetensors.*,shtab.*,jinja2.*]\n"
        "follow_imports = skip\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "calls.py"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"MYPYPATH": str(Path(alexnet.__file__).parents[1]), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
