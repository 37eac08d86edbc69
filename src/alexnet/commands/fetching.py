"""alexnet data: data sets fetched into the cache."""

from typing import Any

from alexnet.data import fetch
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
