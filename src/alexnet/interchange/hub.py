"""Model folders of Hugging Face's hub (config, weights, card, certificate), upload and download."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet.errors import Unavailable, UsageError
from alexnet.interchange.certificate import CERTIFICATE_FILE
from alexnet.interchange.optional_packages import missing_package
from alexnet.records import Certificate, ClaimedFigures, RecordedEnvironment, RunInit
from alexnet.runs.checkpoint import pack_tensors
from alexnet.runs.train_command import conditions, train_command
from alexnet.support.files import write_atomic, write_json
from alexnet.support.options import option
from alexnet.support.terminal import escaped, percent, shows_top5

_CARD = """---
library_name: alexnet
pipeline_tag: image-classification
tags:
- alexnet
- image-classification
---

# {model}, {classes} classes

{origin} To use it, with this folder as `FOLDER`:

```
alexnet import FOLDER --run runs/{name}
alexnet classify runs/{name} photo.jpg
```

## What it names

{class_list}

## Data

{data}

## How it was trained

{training}

Preprocessing, which belongs to the weights: {preprocessing}

## How well it does

{metrics}

## Limits

It names one of these {classes} classes for every image, also for one that shows none of them. The
figures hold for images like those above. Its accuracy on other images was not measured, nor how its
mistakes affect groups of people. Probabilities are those of the softmax and were not calibrated.

## Licence

None is stated for these weights. Whoever publishes them chooses one that the terms of the images
allow.
The program `alexnet` is MIT.

## Proof

`alexnet test FOLDER --certificate` compares the weights with `certificate.json`: their sha256, and
the logits of four images that a rule draws.
"""

_ORIENTATION = {
    "apply": "turned upright by the EXIF orientation of its file",
    "ignore": "not turned (EXIF orientation is ignored)",
}
_PRECISION = (
    "The weights are float32. Answers computed in bf16 are rounded: probabilities, and a few "
    "classes, differ from those in fp32. `alexnet test RUN --precision fp32` measures in fp32."
)
_NORMALIZATION = {
    "std": "minus the channels' mean {mean}, divided by their standard deviation {std}",
    "mean": "minus the channels' mean {mean}",
    "image": "minus the mean image in `mean.safetensors`",
    "centre": "minus the centre of the mean image in `mean.safetensors`",
    "torchvision": "minus 0.485, 0.456, 0.406, divided by 0.229, 0.224, 0.225 (0 to 1)",
}


def write_folder(
    out: Path, weights: bytes, certificate: Certificate, mean_image: Tensor | None
) -> list[Path]:
    """Write a model into a new or empty folder, the certificate last. Returns the files."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder: choose another {option('out')}")
    out.mkdir(parents=True, exist_ok=True)
    names = list(certificate.classes)
    config = {
        "model_type": "alexnet",
        "architectures": [certificate.model],
        "num_labels": len(names),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "alexnet": {
            k: v for k, v in certificate.to_json().items() if k not in ("probes", "sha256")
        },
    }
    write_atomic(out / "model.safetensors", weights)
    if mean_image is not None:
        write_atomic(out / "mean.safetensors", pack_tensors({"mean": mean_image}))
    write_json(out / "config.json", config)
    write_atomic(out / "README.md", model_card(certificate))
    write_json(out / CERTIFICATE_FILE, certificate)
    return sorted(out.iterdir())


def model_card(certificate: Certificate) -> str:
    """The model card of a certificate. It states nothing else."""
    images, recipe, data = certificate.preprocessing, certificate.recipe, certificate.data
    is_imported = data.kind == "imported"
    names = list(certificate.classes)
    colours = "grey" if images.channels == 1 else "RGB"
    rounded = {
        key: ", ".join(f"{number:.2f}" for number in numbers)
        for key, numbers in (("mean", images.mean), ("std", images.std))
    }
    counts = ", ".join(f"{split} {n:,}" for split, n in (data.counts or {}).items())
    return _CARD.format(
        model=certificate.model,
        name=recipe["name"],
        origin="Imported, not trained here." if is_imported else "Trained by `alexnet train`.",
        classes=len(names),
        class_list=", ".join(map(escape_markdown, names[:50]))
        + (f" and {len(names) - 50:,} more, in `config.json`" if len(names) > 50 else ""),
        data=f"{data.kind}: {counts or 'not known'}; digest `{data.digest}`. "
        f"{escape_markdown(data.splits or '')}",
        training=_import_text(certificate) if is_imported else _training_text(certificate),
        preprocessing=f"{colours}, {_ORIENTATION[recipe.get('orient', 'ignore')]}, the shorter "
        f"side to {images.size} pixels, the centre {images.crop} x {images.crop} of the centre "
        "square, on 0 to 255 " + _NORMALIZATION[images.normalize].format(**rounded) + ".",
        metrics=_metrics_table(certificate.metrics, len(names)),
    )


def _import_text(certificate: Certificate) -> str:
    training = certificate.training
    init = (training and training.init) or RunInit(path="a file", sha256="not known")
    revision = f" at revision `{init.revision}`" if init.revision else ""
    return (
        f"Only the maker of these weights knows: they were imported from "
        f"{escape_markdown(init.path)}{revision}, sha256 `{init.sha256}`."
    )


def _training_text(certificate: Certificate) -> str:
    """The recipe, the command that trains it again, and the result of that command."""
    recipe, training, data = certificate.recipe, certificate.training, certificate.data
    assert training is not None
    assert training.call is not None  # only certificates of 0.1.0 have none
    length = f"{recipe['steps']:,} steps" if recipe["steps"] else f"{recipe['epochs']:g} epochs"
    call, init = training.call, training.init
    command = train_command(
        ["FOLDER/certificate.json"], call, data=training.data or "IMAGES",
        init="WEIGHTS" if init else "", run=f"runs/{recipe['name']}-again",
    )  # fmt: skip
    weights = (
        f"The sha256 of `checkpoints/step-{certificate.step}/model.safetensors` is "
        f"`{training.weights}`."
    )
    sentences = conditions(
        f"`{certificate.recipe_digest}`", weights, call,
        RecordedEnvironment(training.machine or {}), f"`{data.digest}`", training.changed or (),
    )  # fmt: skip
    placeholders = [] if training.data else ["`IMAGES` is the folder of the images."]
    if init:
        placeholders.append(
            f"`WEIGHTS` are the initial weights: {escape_markdown(init.path)}, a run or a file, "
            f"whose weights have the sha256 `{init.sha256}`."
        )
    return "\n\n".join(
        (
            f"Recipe `{recipe['name']}`, digest `{certificate.recipe_digest}`, step "
            f"{certificate.step:,}; every field is in `certificate.json`. {length} of batches "
            f"of {recipe['batch_size']} with {recipe['opt']}, learning rate {recipe['lr']:g}, "
            f"schedule {recipe['schedule']}, seed {recipe['seed']}. To train it again:",
            f"```\n{command}\n```",
            " ".join([*placeholders, *sentences]),
        )
    )


def escape_markdown(text: str) -> str:
    """Escape text, so that Markdown shows it literally and on one line."""
    text = html.escape(escaped(text), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", text)


def _metrics_table(metrics: Mapping[str, ClaimedFigures], classes: int) -> str:
    shown = {"top1": "top-1"} | ({"top5": "top-5"} if shows_top5(classes) else {})
    heads = ["split", "images", *(f"{name} (95 %)" for name in shown.values()), "computed in"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    remarks = {
        "seen": "seen in training left out",
        "near_seen": "or more look like copies of images seen in training",
        "repeated": "repeat another",
    }
    for split, figures in metrics.items():
        cells = [
            f"{percent(getattr(figures, key))} ({' to '.join(map(percent, ci95))})"
            if (ci95 := getattr(figures, f"{key}_ci95", None))
            else "-"
            for key in shown
        ]
        precision = figures.precision or "fp32 or bf16, not recorded"
        counts = [
            f"{count:,} {remark}"
            for key, remark in remarks.items()
            if (count := getattr(figures, key, None))
        ]
        images = f"{figures.n:,}" + (f" ({'; '.join(counts)})" if counts else "")
        rows.append(f"| {' | '.join([split, images, *cells, precision])} |")
    return "\n".join(rows) + f"\n\n{_PRECISION}" if metrics else "Nothing was measured."


def push(folder: Path, repository: str) -> str:
    """Upload a folder to OWNER/NAME on the hub, with the login of huggingface_hub. Returns its
    address."""
    hub = import_hub()
    try:
        hub.create_repo(repository, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=str(folder)))
    except Exception as error:  # the network, the hub and names raise errors of many classes
        raise _hub_error("push to", repository, error) from None


def pull(repository: str, folder: Path) -> tuple[Path, str]:
    """Download OWNER/NAME into a folder: weights, JSON files and the card. Returns the folder and
    the commit of the download, "" where huggingface_hub does not record it."""
    hub = import_hub()
    try:
        patterns = ["*.safetensors", "*.json", "README.md"]
        download = Path(
            hub.snapshot_download(repository, local_dir=folder, allow_patterns=patterns)
        )
    except Exception as error:
        raise _hub_error("pull", repository, error) from None
    # huggingface_hub writes the commit of each downloaded file here.
    metadata = download / ".cache/huggingface/download/model.safetensors.metadata"
    commit = metadata.read_text().split("\n")[0] if metadata.is_file() else ""
    return download, commit if re.fullmatch(r"[0-9a-f]{40}", commit) else ""


def import_hub() -> Any:
    """Import huggingface_hub. Raises Unavailable, with the command that installs it."""
    try:
        import huggingface_hub
    except ImportError:
        raise missing_package("huggingface_hub", "hub") from None
    return huggingface_hub


def _hub_error(verb: str, repository: str, error: Exception) -> Unavailable:
    why = " ".join(str(error).split())[:200]
    return Unavailable(
        f"cannot {verb} {repository!r} ({why}): check the name, the network and `hf auth login`"
    )
