"""Weights in the formats of others, out and in, and proof of what a file computes."""
