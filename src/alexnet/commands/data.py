"""alexnet data: data sets fetched, and checked."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.data import check, fetch
from alexnet.data.examine import Orient
from alexnet.data.images import MAX_PIXELS
from alexnet.errors import UsageError
from alexnet.recipe import nearest
from alexnet.terminal import progress


def data_get(name: str, *, offline: bool = False) -> dict[str, Any]:
    """Fetches a data set into the cache, checksum verified; returns where it is."""
    if name not in fetch.NAMES:
        raise UsageError(f"no data set {name!r} to fetch{nearest(name, fetch.NAMES)}")
    total = sum(file.size for file in fetch.NAMES[name].files)
    with progress(f"fetching {name}", total, "bytes") as bar:
        path = fetch.fetch(
            name, offline=offline, progress=lambda done, _: bar.advance(done - bar.done)
        )
    return {"name": name, "path": str(path)}


def data_check(
    path: str | Path,
    *,
    orient: Orient = "ignore",
    max_pixels: int = MAX_PIXELS,
    workers: int = 2,
) -> dict[str, Any]:
    """Decodes every image of a folder, tar, zip or folder of archives, and says what is odd.

    Returns `ok` (a count), `repairable` and `refused` (lists of path and reason), `duplicates`
    within a split and `across` splits (lists of paths with the same bytes), `classes` (empty, tiny,
    in one split only) and `counts` of readable images by split and class.
    """
    if max_pixels < 1 or workers < 0:
        raise UsageError(
            f"max_pixels {max_pixels} must be at least 1, workers {workers} at least 0"
        )
    began = time.monotonic()
    report = check.check(
        Path(path).expanduser(), orient=orient, max_pixels=max_pixels, workers=workers
    )
    wall = time.monotonic() - began
    speed = {"images_per_s": round(report.images / max(wall, 1e-9), 1), "wall_s": round(wall, 2)}
    return {**asdict(report), **speed}
