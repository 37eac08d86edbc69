"""The folder layout of Hugging Face's hub: config, weights, a card, a certificate."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet.errors import Unavailable, UsageError
from alexnet.files import write_atomic, write_json
from alexnet.interchange.certificate import NAME
from alexnet.interchange.chain import missing_package
from alexnet.options import option
from alexnet.recipebook.again import Call, conditions, train_command
from alexnet.runs.checkpoint import pack_tensors
from alexnet.runs.records import Certificate, Claimed, RunInit
from alexnet.terminal import escaped, percent, shows_top5

_CARD = """---
library_name: alexnet
pipeline_tag: image-classification
tags:
- alexnet
- image-classification
---

# {model}, {classes} classes

{made} To use it, with this folder as `FOLDER`:

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

It gives one of these {classes} classes to every image, also to one that shows none of them. The
figures hold for images like those above; how it does on others was not measured, nor how its
mistakes fall on groups of people. A probability is what the softmax gives and was not calibrated.

## Licence

None is stated for these weights: who publishes them chooses one that the terms of the images allow.
The program `alexnet` is MIT.

## Proof

`alexnet test FOLDER --certificate` holds the weights against `certificate.json`: their sha256, and
the logits of four drawn images.
"""

_TURNED = {
    "apply": "turned upright by the EXIF orientation of its file",
    "ignore": "as its file has it (EXIF orientation is ignored)",
}
_PRECISION = (
    "The weights are float32. Answers computed in bf16 are rounded: probabilities, and a few "
    "names, differ from those in fp32. `alexnet test RUN --precision fp32` measures in fp32."
)
_RULES = {
    "std": "less the channels' mean {mean}, divided by their deviation {std}",
    "mean": "less the channels' mean {mean}",
    "image": "less the mean image in `mean.safetensors`",
    "centre": "less the centre of the mean image in `mean.safetensors`",
    "torchvision": "less 0.485, 0.456, 0.406 and divided by 0.229, 0.224, 0.225, of 0 to 1",
}


def write_folder(
    out: Path, weights: bytes, certificate: Certificate, mean_image: Tensor | None
) -> list[Path]:
    """Puts a model into a new or empty folder; the certificate comes last. Returns its files."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out} is there and not an empty folder: choose another {option('out')}")
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
    write_atomic(out / "README.md", card(certificate))
    write_json(out / NAME, certificate)
    return sorted(out.iterdir())


def card(certificate: Certificate) -> str:
    """A model card, made of what a certificate says and nothing else."""
    said, recipe, data = certificate.preprocessing, certificate.recipe, certificate.data
    imported = data.kind == "imported"
    names = list(certificate.classes)
    colours = "grey" if said.channels == 1 else "RGB"
    rounded = {
        key: ", ".join(f"{x:.2f}" for x in numbers)
        for key, numbers in (("mean", said.mean), ("std", said.std))
    }
    counts = ", ".join(f"{split} {n:,}" for split, n in (data.counts or {}).items())
    return _CARD.format(
        model=certificate.model,
        name=recipe["name"],
        made="Imported, not trained here." if imported else "Trained by `alexnet train`.",
        classes=len(names),
        class_list=", ".join(map(escape_markdown, names[:50]))
        + (f" and {len(names) - 50:,} more, in `config.json`" if len(names) > 50 else ""),
        data=f"{data.kind}: {counts or 'not known'}; digest `{data.digest}`. "
        f"{escape_markdown(data.splits or '')}",
        training=_origin(certificate) if imported else _training(certificate),
        preprocessing=f"{colours}, {_TURNED[recipe.get('orient', 'ignore')]}, the shorter side to "
        f"{said.size} pixels, the centre {said.crop} x {said.crop} of the centre square, "
        "on 0 to 255 " + _RULES[said.normalize].format(**rounded) + ".",
        metrics=_metrics(certificate.metrics, len(names)),
    )


def _origin(certificate: Certificate) -> str:
    made = certificate.training
    init = (made and made.init) or RunInit(path="a file", sha256="not known")
    at = f" at revision `{init.revision}`" if init.revision else ""
    return (
        f"That is for the maker of these weights to say: they were imported from "
        f"{escape_markdown(init.path)}{at}, sha256 `{init.sha256}`."
    )


def _training(certificate: Certificate) -> str:
    """Recipe, the command that trains it again, and what that gives."""
    recipe, made, data = certificate.recipe, certificate.training, certificate.data
    assert made is not None
    assert made.call is not None  # of a certificate that is made now
    length = f"{recipe['steps']:,} steps" if recipe["steps"] else f"{recipe['epochs']:g} epochs"
    call, init = Call(**made.call.by_field()), made.init
    line = train_command(
        ["FOLDER/certificate.json"], call, data=made.data or "IMAGES",
        init="WEIGHTS" if init else "", run=f"runs/{recipe['name']}-again",
    )  # fmt: skip
    weights = (
        f"The sha256 of `checkpoints/step-{certificate.step}/model.safetensors` is "
        f"`{made.weights}`."
    )
    said = conditions(
        f"`{certificate.recipe_digest}`", weights, call, made.machine or {}, f"`{data.digest}`",
        made.changed or (),
    )  # fmt: skip
    where = [] if made.data else ["`IMAGES` is the folder of the images."]
    if init:
        where.append(
            f"`WEIGHTS` is what it began with: {escape_markdown(init.path)}, a run or a file, "
            f"whose weights have the sha256 `{init.sha256}`."
        )
    return "\n\n".join(
        (
            f"Recipe `{recipe['name']}`, digest `{certificate.recipe_digest}`, step "
            f"{certificate.step:,}; every field is in `certificate.json`. {length} of batches "
            f"of {recipe['batch_size']} with {recipe['opt']}, learning rate {recipe['lr']:g}, "
            f"schedule {recipe['schedule']}, seed {recipe['seed']}. To train it again:",
            f"```\n{line}\n```",
            " ".join([*where, *said]),
        )
    )


def escape_markdown(text: str) -> str:
    """Text that Markdown, and HTML in it, leaves as it is, on one line."""
    text = html.escape(escaped(text), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", text)


def _metrics(metrics: Mapping[str, Claimed], classes: int) -> str:
    shown = {"top1": "top-1"} | ({"top5": "top-5"} if shows_top5(classes) else {})
    heads = ["split", "images", *(f"{name} (95 %)" for name in shown.values()), "computed in"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for split, m in metrics.items():
        cells = [
            f"{percent(getattr(m, key))} ({' to '.join(map(percent, ci95))})"
            if (ci95 := getattr(m, f"{key}_ci95", None))
            else "-"
            for key in shown
        ]
        kind = m.precision or "fp32 or bf16, not noted"
        words = {
            "seen": "that it learnt from left out",
            "near_seen": "or more look like copies of what it learnt from",
            "repeated": "repeat another",
        }
        odd = [
            f"{count:,} {said}" for key, said in words.items() if (count := getattr(m, key, None))
        ]
        images = f"{m.n:,}" + (f" ({'; '.join(odd)})" if odd else "")
        rows.append(f"| {' | '.join([split, images, *cells, kind])} |")
    return "\n".join(rows) + f"\n\n{_PRECISION}" if metrics else "Nothing was measured."


def push(folder: Path, repository: str) -> str:
    """Uploads a written folder to OWNER/NAME on the hub, with the login of huggingface_hub."""
    hub = library()
    try:
        hub.create_repo(repository, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=str(folder)))
    except Exception as error:  # of HTTP, of the hub, of a name
        raise _failed("push to", repository, error) from None


def pull(repository: str, folder: Path) -> tuple[Path, str]:
    """Downloads OWNER/NAME into a folder: weights, JSON and cards alone. The folder, and the commit
    that it was at, or "" where the library does not say."""
    hub = library()
    try:
        kept = ["*.safetensors", "*.json", "README.md"]
        place = Path(hub.snapshot_download(repository, local_dir=folder, allow_patterns=kept))
    except Exception as error:
        raise _failed("pull", repository, error) from None
    # Where the library notes the commit of each file that it put into a folder.
    note = place / ".cache/huggingface/download/model.safetensors.metadata"
    commit = note.read_text().split("\n")[0] if note.is_file() else ""
    return place, commit if re.fullmatch(r"[0-9a-f]{40}", commit) else ""


def library() -> Any:
    """huggingface_hub, or Unavailable with the command that installs it."""
    try:
        import huggingface_hub
    except ImportError:
        raise missing_package("huggingface_hub", "hub") from None
    return huggingface_hub


def _failed(verb: str, repository: str, error: Exception) -> Unavailable:
    why = " ".join(str(error).split())[:200]
    return Unavailable(
        f"cannot {verb} {repository!r} ({why}): check the name, the network and `hf auth login`"
    )
