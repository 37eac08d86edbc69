"""Randomness without state: every draw is a function of what it is for.

A counter-based generator (SplitMix64's finaliser, Steele et al. 2014, chained over the key) maps
(seed, epoch, image index, purpose) to a number. Nobody holds a generator, so a resumed run, a
different number of workers or another rank meets the same numbers.
"""

import numpy as np
from numpy.typing import NDArray

# Purposes. New ones go at the end: a number here is part of every recorded result.
ORDER, CROP_Y, CROP_X, FLIP, ANGLE, ZOOM_Y, ZOOM_X, CUT_Y, CUT_X, SPLIT, NET, INIT = range(12)
RED, GREEN, BLUE, AREA, RATIO, MIX, MIX_SHARE, MIX_Y, MIX_X, PROBE = range(12, 22)

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def bits(
    seed: int, epoch: int, index: NDArray[np.integer] | int, purpose: int
) -> NDArray[np.uint64]:
    """64 random bits per index. Shapes: index (N,) -> (N,)."""
    state = np.zeros(np.shape(index), dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        for word in (seed, epoch, index, purpose):
            state = state + np.asarray(word).astype(np.uint64) * _MIX1 + _GAMMA
            state = (state ^ (state >> np.uint64(30))) * _MIX1
            state = (state ^ (state >> np.uint64(27))) * _MIX2
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(seed: int, epoch: int, index: NDArray[np.integer], purpose: int) -> NDArray[np.float64]:
    """Uniform on [0, 1), 53 bits. Shapes: (N,) -> (N,)."""
    return (bits(seed, epoch, index, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, epoch: int, index: NDArray[np.integer], purpose: int) -> NDArray[np.float64]:
    """N(0, 1), by Box and Muller's transform of two 32-bit halves. Shapes: (N,) -> (N,)."""
    both = bits(seed, epoch, index, purpose)
    first = ((both >> np.uint64(32)).astype(np.float64) + 1) * 2.0**-32
    second = (both & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
    found: NDArray[np.float64] = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return found


def permutation(seed: int, epoch: int, n: int, purpose: int = ORDER) -> NDArray[np.intp]:
    """A shuffle of range(n)."""
    return np.argsort(bits(seed, epoch, np.arange(n), purpose), kind="stable")


def net_seed(seed: int, step: int, purpose: int = NET) -> int:
    """The seed of torch's own generator (dropout masks) for one step; INIT for the weights."""
    return int(bits(seed, step, 0, purpose) >> np.uint64(1))
