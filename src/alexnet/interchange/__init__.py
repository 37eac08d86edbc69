"""Weights in the formats of others, out and in, and proof of what a file computes."""

from alexnet.interchange.runtimes import with_engine

__all__ = ["with_engine"]
