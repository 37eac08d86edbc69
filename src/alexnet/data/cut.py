"""How many images of a class go to a split, where some must not be separated."""

import numpy as np
from numpy.typing import NDArray


def take_whole(units: NDArray[np.intp], count: int, left: int) -> NDArray[np.bool_]:
    """Which of a class's images, in their drawn order, a split takes. (N,) -> (N,).

    `units` are equal of those that must stay together, -1 of those that must not be taken. The
    first ones are, `count` of them or, where groups do not fit, fewer. At least one unit is, and
    each of the `left` splits that come after keeps one, as far as there are enough.
    """
    sizes: dict[int, int] = {}  # in the order of their first images
    for unit in units.tolist():
        sizes[unit] = sizes.get(unit, 0) + 1
    held = int(-1 in sizes)
    sizes.pop(-1, None)
    if len(sizes) == len(units):  # no groups
        return np.arange(len(units)) < count
    spare = max(len(sizes) + held - left, min(len(sizes) + held - 1, 1), 0)
    chosen: set[int] = set()
    free = count
    for unit, size in sizes.items():
        if size <= free and len(chosen) < spare:
            chosen.add(unit)
            free -= size
    if not chosen and count > 0 and spare and sizes:
        chosen.add(min(sizes, key=lambda unit: sizes[unit]))
    return np.isin(units, list(chosen))
