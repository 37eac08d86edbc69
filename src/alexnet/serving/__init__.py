"""A run behind HTTP: images in, classes out, and a page to try it.

These names are stable. The modules they come from are not.
"""

from alexnet.serving.index import Index, open_index

__all__ = ["Index", "open_index"]
