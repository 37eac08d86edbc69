"""A run behind HTTP: images in, classes out, and a page to try it.

These names are stable. The modules they come from are not.
"""

from alexnet.serving.index import Index, open_index
from alexnet.serving.protocol import choose_protocol

__all__ = ["Index", "choose_protocol", "open_index"]
