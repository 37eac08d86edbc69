"""Export and import of weights in other formats, and certificates that prove their content.

These names are stable. The modules they come from are not.
"""

from alexnet.interchange.export_check import check_export
from alexnet.interchange.foreign_layers import (
    match_layers,
    read_caffe_mean,
    read_caffemodel,
    read_onnx,
)
from alexnet.interchange.formats import Exportable, to_onnx, to_torchvision
from alexnet.interchange.runtimes import with_engine
from alexnet.interchange.untrained_weights import detect_untrained

__all__ = [
    "Exportable",
    "check_export",
    "detect_untrained",
    "match_layers",
    "read_caffe_mean",
    "read_caffemodel",
    "read_onnx",
    "to_onnx",
    "to_torchvision",
    "with_engine",
]
