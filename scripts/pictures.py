"""The drawings of docs/: the diagram of verbs, the comparison of AlexNets, and the demo's
picture."""

import html
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from alexnet.models.layers import Conv, Dropout, Linear, Part, Pool, ReLU
from alexnet.models.net import LayerRow, named_parts, summarize
from alexnet.models.zoo import find_model, model_spec

INK, SOFT, LINE, MARK = "#1c2733", "#5b6875", "#9aa7b3", "#ffe2b8"
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"

# The artefacts of the diagram: position (x, y), name, and description.
BOXES: dict[str, tuple[int, int, str, str]] = {
    "mirrors": (20, 40, "mirrors", "on the network"),
    "raw": (20, 170, "raw images", "folders, archives, IDX, CIFAR"),
    "packed": (290, 170, "packed set", "manifest.json, memory map"),
    "foreign": (290, 300, "weights of others", "torch, Caffe, ONNX"),
    "run": (560, 170, "run directory", "recipe, weights, metrics"),
    "page": (830, 170, "report", "pages and pictures"),
    "answers": (830, 40, "answers", "of files and over HTTP"),
    "file": (830, 300, "other formats", "ONNX, safetensors, torch"),
}
WIDE, HIGH = 184, 62
PRESETS = ("alexnet-2012", "alexnet-2012-code", "alexnet-caffe", "caffenet", "alexnet-2014",
           "alexnet-one-column", "alexnet-bn")  # fmt: skip


def text(
    x: float, y: float, content: str, size: int = 13, colour: str = INK, **attributes: str
) -> str:
    """An SVG text element."""
    extra = "".join(f" {k.replace('_', '-')}='{v}'" for k, v in attributes.items())
    fixed = f"x='{x}' y='{y}' font-size='{size}' fill='{colour}'"
    return f"<text {fixed}{extra}>{html.escape(content)}</text>"


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """An SVG picture of these elements."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {FONT} role='img' "
        f"aria-label='{html.escape(title, quote=True)}'>"
    )
    tip = (
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='8' refY='4' markerWidth='8' "
        f"markerHeight='8' orient='auto'><path d='M0,0 L8,4 L0,8 z' fill='{SOFT}'/></marker></defs>"
    )
    ground = f"<rect width='{width}' height='{height}' fill='#ffffff'/>"
    return "\n".join([head, tip, ground, *parts, "</svg>"]) + "\n"


def flow(arrows: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """The diagram: artefacts as boxes, and verbs on the arrows between them."""
    parts = []
    for (start, end), verbs in arrows.items():
        words = [name.replace("_", " ").replace("import weights", "import") for name in verbs]
        if not start:
            parts.append(text(20, 400, f"beside them: {', '.join(words)}", 14, SOFT))
            continue
        (x, y, *_), (to_x, to_y, *_) = BOXES[start], BOXES[end]
        if start == end:
            middle = x + WIDE / 2
            path = f"M{middle - 40},{y + HIGH} c0,46 80,46 80,2"
            label = text(middle, y + HIGH + 50, ", ".join(words), 13, text_anchor="middle")
        elif x == to_x:
            path = f"M{x + 60},{y + HIGH} L{x + 60},{to_y - 2}"
            label = text(x + 70, (y + HIGH + to_y) / 2 + 4, ", ".join(words))
        else:
            from_y, at_y = y + HIGH / 2, to_y + HIGH / 2
            path = f"M{x + WIDE},{from_y} L{to_x - 2},{at_y}"
            level = from_y == at_y
            middle, height = (x + WIDE + to_x) / 2, (from_y + at_y) / 2
            middle += -4 if level else 36
            height += -8 - 16 * (len(words) - 1) if level else 12 * (at_y < from_y) - 4
            label = "".join(
                text(middle, height + 16 * i, word, 13, text_anchor="middle")
                for i, word in enumerate(words)
            )
        parts.append(
            f"<path d='{path}' fill='none' stroke='{SOFT}' marker-end='url(#tip)'/>{label}"
        )
    for x, y, name, about in BOXES.values():
        parts.append(
            f"<rect x='{x}' y='{y}' width='{WIDE}' height='{HIGH}' rx='8' fill='#eef3f8' "
            f"stroke='{LINE}'/>"
            + text(x + WIDE / 2, y + 27, name, 15, text_anchor="middle", font_weight="bold")
            + text(x + WIDE / 2, y + 47, about, 11, SOFT, text_anchor="middle")
        )
    title = "; ".join(f"{a} to {b}: {', '.join(v)}" for (a, b), v in arrows.items() if a)
    return svg(1050, 420, title, parts)


def stages(model: str) -> list[str]:
    """A line for each stage: a layer with weights, and the parts that follow it."""
    spec, preset = model_spec(model, 1000, (3, *2 * (find_model(model).size,))), find_model(model)
    rows = summarize(spec, (3, preset.size, preset.size))
    lines: list[str] = []
    for (name, part), row in zip(named_parts(spec), rows, strict=True):
        if isinstance(part, Conv):
            groups = f", {part.groups} towers" if part.groups > 1 else ""
            every = f"/{part.stride}" if part.stride > 1 else ""
            shape = f"{part.out} of {part.kernel}x{part.kernel}{every}, padding {part.padding}"
            lines.append(f"{name}: {shape} > {initial_weights(row)}{groups}")
        elif isinstance(part, Linear):
            lines.append(f"{name}: {part.out:,} > {initial_weights(row)}")
        else:
            lines[-1 if lines else 0] += f" > {short_name(part, row.shape[-1])}"
    return lines


def initial_weights(row: LayerRow) -> str:
    bias = "drawn too" if row.bias is None else f"{row.bias:g}"
    return f"std {row.std:.2g}, bias {bias}"


def short_name(part: Part, side: int) -> str:
    if isinstance(part, Pool):
        return f"pool to {side}"
    names = {ReLU: "ReLU", Dropout: "drop"}
    return names.get(type(part), type(part).__name__.replace("ResponseNorm", "LRN")
                     .replace("BatchNorm", "BN"))  # fmt: skip


def presets() -> str:
    """The comparison of AlexNets: a column for each; differences from the paper's text are
    marked."""
    columns = {name: stages(name) for name in PRESETS}
    wide, top, high = 250, 60, 74
    parts = []
    for i, (name, lines) in enumerate(columns.items()):
        x = 10 + i * wide
        parts.append(text(x + 8, 36, name, 15, font_weight="bold"))
        for j, (line, first) in enumerate(zip_longest(lines, columns[PRESETS[0]], fillvalue="")):
            y, fill = top + j * high, MARK if line != first else "#eef3f8"
            head, *rest = (line or "").split(" > ")
            parts.append(
                f"<rect x='{x}' y='{y}' width='{wide - 12}' height='{high - 10}' rx='6' "
                f"fill='{fill}' stroke='{LINE}'/>" + text(x + 8, y + 20, head, 12)
            )
            below = [" > ".join(rest[:1]), " > ".join(rest[1:5])]
            for k, line_below in enumerate(below):
                parts.append(text(x + 8, y + 37 + 16 * k, line_below, 11, SOFT))
    height = top + high * max(map(len, columns.values())) + 10
    title = "Seven AlexNets, layer by layer; what differs from the text of the paper is marked"
    return svg(10 + wide * len(columns), height, title, parts)


def side_by_side(run: Path, out: Path, height: int = 430) -> None:
    """The README's picture: curves, confusion matrix and filters of a tested run, in a row."""
    names = ("curves", "confusion-test", "filters-conv1")
    figures = [Image.open(run / "figures" / f"{name}.png").convert("RGB") for name in names]
    scaled = [im.resize((im.width * height // im.height, height), Image.LANCZOS) for im in figures]
    picture = Image.new("RGB", (sum(im.width for im in scaled), height), "white")
    left = 0
    for image in scaled:
        picture.paste(image, (left, 0))
        left += image.width
    picture.quantize(128).save(out, optimize=True)


if __name__ == "__main__":  # python -m scripts.pictures RUN OUT.png
    side_by_side(Path(sys.argv[1]), Path(sys.argv[2]))
