"""alexnet import: weights of others as a run directory."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from alexnet.commands.train import RUNS
from alexnet.data.dataset import find_data
from alexnet.data.forms import open_image_set
from alexnet.data.images import Orient
from alexnet.errors import AlexNetError, UsageError
from alexnet.evaluation_set import open_evaluation_set
from alexnet.interchange.certificate import certify_run, run_logits
from alexnet.interchange.held_out import tally_scores
from alexnet.interchange.hub import pull
from alexnet.interchange.imported_net import expected_images, read_net
from alexnet.interchange.untrained_weights import detect_untrained
from alexnet.predictor import load
from alexnet.recipe import Normalize
from alexnet.records import (
    DataCard,
    EvalResult,
    ImportEvent,
    ImportResult,
    ImportTestResult,
    RunInit,
    RunStart,
    WeightsVerdict,
)
from alexnet.runs.checkpoint import save_checkpoint
from alexnet.runs.rundir import RunDir, fresh_run_path
from alexnet.runtime import chance_kept, environment
from alexnet.support.argument_checks import Range, checked
from alexnet.support.files import read_bytes, sha256_of
from alexnet.support.options import FILE, option
from alexnet.support.terminal import percent, say
from alexnet.training.state import State

HUB = "hf:"
LIST_LIMIT = 2**22  # bytes of a list of classes


@overload
def import_weights(
    file: str | Path,
    *,
    model: str | None = None,
    run: str | Path | None = None,
    classes: str | Path | None = None,
    data: None = None,
    mean: str | Path | None = None,
    bgr: bool | None = None,
    split: str | None = None,
    ignore_unknown: bool = False,
    size: int | None = None,
    crop: int | None = None,
    normalize: Normalize | None = None,
    orient: Orient | None = None,
) -> ImportResult: ...


@overload
def import_weights(
    file: str | Path,
    *,
    model: str | None = None,
    run: str | Path | None = None,
    classes: str | Path | None = None,
    data: str | Path,
    mean: str | Path | None = None,
    bgr: bool | None = None,
    split: str | None = None,
    ignore_unknown: bool = False,
    size: int | None = None,
    crop: int | None = None,
    normalize: Normalize | None = None,
    orient: Orient | None = None,
) -> ImportTestResult: ...


@overload
def import_weights(
    file: str | Path,
    *,
    model: str | None = None,
    run: str | Path | None = None,
    classes: str | Path | None = None,
    data: str | Path | None,
    mean: str | Path | None = None,
    bgr: bool | None = None,
    split: str | None = None,
    ignore_unknown: bool = False,
    size: int | None = None,
    crop: int | None = None,
    normalize: Normalize | None = None,
    orient: Orient | None = None,
) -> ImportResult | ImportTestResult: ...


@checked(size=Range(1, 4096), crop=Range(1, 4096))
@chance_kept()
def import_weights(
    file: str | Path,
    *,
    model: str | None = None,
    run: str | Path | None = None,
    classes: str | Path | None = None,
    data: str | Path | None = None,
    mean: str | Path | None = None,
    bgr: bool | None = None,
    split: str | None = None,
    ignore_unknown: bool = False,
    size: int | None = None,
    crop: int | None = None,
    normalize: Normalize | None = None,
    orient: Orient | None = None,
) -> ImportResult | ImportTestResult:
    """Makes a run directory of weights: a torch file, safetensors, caffemodel or ONNX, a folder
    that `export` wrote, or hf:OWNER/NAME on the hub.

    `model` is the network they are of; `classes` a file of names, one a line; `data` labelled
    images, on which accuracy is measured (`split` and `ignore_unknown` as for `test`); `mean`
    Caffe's mean image; `bgr` whether the first layer takes blue first. `size`, `crop`, `normalize`
    and `orient` replace the preprocessing that the weights are known to expect.
    Returns an ImportResult: the run, what was matched and left in the file, what images are
    expected, and whether the weights were trained at all; with `data` an ImportTestResult, which
    has the figures too.
    """
    fields = {"size": size, "crop": crop, "normalize": normalize, "orient": orient}
    replaced: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    asked = {"split": split, "ignore_unknown": ignore_unknown}
    if not str(file).startswith(HUB):
        origin = str(Path(file).absolute())
        return _import(
            Path(file), str(file), origin, None, model, run, classes, data, asked, mean, bgr,
            replaced,
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="alexnet-") as aside:
        place, revision = pull(str(file).removeprefix(HUB), Path(aside))
        try:
            return _import(
                place, str(file), str(file), revision or None, model, run, classes, data, asked,
                mean, bgr, replaced,
            )  # fmt: skip
        except AlexNetError as error:  # the folder that it names will be gone
            raise type(error)(str(error).replace(str(place), str(file))) from error


def _import(
    path: Path,
    name: str,
    origin: str,
    revision: str | None,
    model: str | None,
    run: str | Path | None,
    classes: str | Path | None,
    data: str | Path | None,
    asked: dict[str, Any],
    mean: str | Path | None,
    bgr: bool | None,
    replaced: dict[str, Any],
) -> ImportResult | ImportTestResult:
    """Makes a run of what lies at `path`, which people call `name`; `origin` and `revision` are
    recorded; `asked` are options of the measurement on `data`."""
    expectation = expected_images(path, model, Path(mean) if mean else None, replaced)
    recipe, statistics = expectation.recipe, expectation.statistics
    net, left = read_net(path, recipe, bgr)
    images = None if data is None else Path(find_data(recipe, data))
    count = len(next(reversed(net.state_dict().values())))
    names = _names(classes, images, expectation.classes, count)
    judged = detect_untrained(net)
    folder = RunDir.create(Path(run) if run else fresh_run_path(RUNS, recipe.name))
    digest = sha256_of(path / "model.safetensors" if path.is_dir() else path)
    described = DataCard(
        kind="imported",
        digest=digest[:16],
        classes=names,
        counts={},
        orient=recipe.orient,
        splits="not known: the weights were imported",
        mean=statistics.mean,
        std=statistics.std,
        mean_image=statistics.image_digest,
    )
    result = ImportResult(
        run=str(folder.path),
        file=name,
        sha256=digest,
        model=recipe.model,
        classes=len(names),
        matched=list(net.state_dict()),
        left=left,
        expects=str(expectation),
        judged=judged,
    )
    try:
        if statistics.image is not None:
            folder.write_mean_image(statistics.image)
        folder.write_environment(environment())
        folder.write_recipe(
            RunStart(
                recipe=recipe.to_dict(),
                digest=recipe.digest,
                data=described,
                init=RunInit(path=origin, revision=revision, sha256=digest),
                imported=_flags(model, classes, mean, bgr, replaced),
            )
        )
        save_checkpoint(
            folder.checkpoints,
            0,
            model=net.state_dict(),
            optimizer={},
            state=State(finished="imported").to_record(recipe),
            best=True,
        )
        told = {k: v for k, v in result.by_field().items() if k != "run"}
        folder.log(ImportEvent(step=0, **told))
        predictor = load(folder.path)
        if data is not None:
            tested = open_evaluation_set(recipe, described, data, **asked)
            for note in tested.notes():
                say(note)
            tally = tally_scores(lambda x: run_logits(predictor, x), tested.images, len(names))
            figures = tally.figures()
            judged = _held_against_chance(judged, figures, len(names))
            result = ImportTestResult(
                **{**result.by_field(), "judged": judged},
                **figures.by_field(),
                **tested.figures().by_field(),
                data=tested.path,
                precision="fp32",
            )
        certify_run(predictor)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)  # it was empty before
        raise
    finally:
        folder.close()
    if judged.verdict != "trained":
        say(f"warning: {name}: {judged.verdict} weights: {judged.why}")
    return result


def _flags(
    model: str | None,
    classes: str | Path | None,
    mean: str | Path | None,
    bgr: bool | None,
    replaced: dict[str, Any],
) -> list[str]:
    """The flags of the command line that import the same again."""
    words = ["--as", model] if model else []
    for flag, file in (("--classes", classes), ("--mean", mean)):
        words += [flag, str(Path(file).absolute())] if file else []
    words += [] if bgr is None else ["--bgr" if bgr else "--no-bgr"]
    return words + [word for name, value in replaced.items() for word in (f"--{name}", str(value))]


def _held_against_chance(
    judged: WeightsVerdict, figures: EvalResult, classes: int
) -> WeightsVerdict:
    low, high = figures.top1_ci95
    if low > 1 / classes:
        return judged
    return replace(
        judged,
        verdict="random",
        why=f"{percent(figures.top1)} of {figures.n:,} images are named right "
        f"({percent(low)} to {percent(high)}), and chance is {percent(1 / classes)}: random "
        "weights, or other classes, another order of them, or other preprocessing",
    )


def _names(
    file: str | Path | None, data: Path | None, known: tuple[str, ...], count: int
) -> list[str]:
    """The classes in the order of the network's outputs: from the list, else from the certificate,
    else from the images where there are as many, else numbers."""
    if file is not None:
        text = read_bytes(Path(file), LIST_LIMIT).decode(errors="replace")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(names) != count or len(set(names)) != count:
            raise UsageError(
                f"{option('classes', file)} has {len(set(names))} different names, and the "
                f"network tells {count} classes apart: one name a line, in its order"
            )
        return names
    if known:
        return list(known)
    if data is not None:
        folders = list(open_image_set(data, to_train=False, aloud=False).classes)
        if {*folders} <= {*map(str, range(count))}:  # numbers say the order of the outputs
            return [str(i) for i in range(count)]
        if len(folders) == count:
            say(
                f"classes are called as those of {data}, in the order of their names; "
                f"{option('classes', FILE)} says otherwise"
            )
            return folders
    named_in = option("classes", FILE)
    say(f"classes are called 0 to {count - 1}: {named_in} has their names, one a line")
    return [str(i) for i in range(count)]
