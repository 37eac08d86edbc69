"""What the parts of a run's JSON must look like: somebody may have edited them, or means harm.

Each function gives "" or what is wrong, in words.
"""

import math
from collections.abc import Mapping
from typing import Any

LONGEST_NAME = 4096  # letters of a class name, which is a folder's
LARGEST = 2**63  # beyond which neither numpy nor a float takes every integer


def odd_data(data: Any, channels: int) -> str:
    """Of what recipe.json says of the data that a run was trained on, whose images have so many
    channels."""
    if not isinstance(data, dict):
        return f"data is {data!r:.40}, expected an object"
    if missing := [key for key in ("classes", "mean", "std", "digest") if key not in data]:
        return f"data lacks {missing[0]!r}"
    for key in ("kind", "path", "digest", "listing", "splits", "mean_image"):
        value = data.get(key, "")
        if not isinstance(value, str) and not (key == "mean_image" and value is None):
            return f"{key} is {value!r:.40}, expected text"
    if (orient := data.get("orient", "ignore")) not in ("apply", "ignore"):
        return f"orient is {orient!r:.40}, expected apply or ignore"
    left_out = data.get("left_out", [])
    if not isinstance(left_out, list) or not all(
        isinstance(one, dict)
        and all(isinstance(one.get(key), str) for key in ("path", "split", "reason"))
        for one in left_out
    ):
        return f"left_out is {left_out!r:.40}, expected a path, a split and a reason each"
    classes = data["classes"]
    named = isinstance(classes, list | tuple) and all(
        isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in classes
    )
    if not named or len(set(classes)) < max(2, len(classes)):
        return f"classes are {classes!r:.40}, expected two names or more, each once"
    # Grey of a colour set: the mean of the three.
    lengths = (1, 3) if channels == 1 else (channels,)
    for key in ("mean", "std"):
        if not _are_numbers(data[key], lengths) or not all(map(math.isfinite, data[key])):
            return f"{key} is {data[key]!r:.40}, expected {channels} numbers"
    rows = data.get("covariance", [])
    if not isinstance(rows, list | tuple) or not all(
        _are_numbers(row, (len(rows),)) for row in rows
    ):
        return f"covariance is {rows!r:.40}, expected a square of numbers"
    groups = data.get("groups", [])
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(type(name) in (str, int) for name in group)
        for group in groups
    ):
        return f"groups are {groups!r:.40}, expected lists of names"
    for key, kind in (("counts", int), ("titles", str)):
        table = data.get(key) or {}
        if not isinstance(table, dict) or not all(type(x) is kind for x in table.values()):
            return f"{key} is {table!r:.40}, expected an object"
    return ""


_COUNTS = ("processes", "hosts", "towers", "threads")


def odd_start(saved: Mapping[str, Any]) -> str:
    """Of what recipe.json says of how a run was begun: the call, and the weights given to it."""
    for part, texts, counts in (("call", ("doctor",), _COUNTS), ("init", ("path", "sha256"), ())):
        table = saved.get(part)
        if table is None:
            continue
        if not isinstance(table, dict):
            return f"{part} is {table!r:.40}, expected an object"
        for key in texts:
            if not isinstance(table.get(key), str):
                return f"{key} of {part} is {table.get(key)!r:.40}, expected text"
        for key in counts:
            least = key != "threads"
            if not (type(n := table.get(key)) is int and least <= n < LARGEST):
                return f"{key} of {part} is {n!r:.40}, expected a count"
    return ""


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def _are_numbers(values: Any, lengths: tuple[int, ...]) -> bool:
    return (
        isinstance(values, list | tuple) and len(values) in lengths and all(map(_is_number, values))
    )
