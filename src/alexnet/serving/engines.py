"""What computes a server's answers: the network of a run, in int8, or on another runtime."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Stored images to probabilities: uint8 (N, size, size, C) -> float32 (N, K)."""
