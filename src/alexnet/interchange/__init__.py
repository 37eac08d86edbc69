"""Export and import of weights in other formats, and certificates that prove their content.

These names are stable. The modules they come from are not.
"""

from alexnet.interchange.export_check import OnnxNet, check_export
from alexnet.interchange.foreign_layers import (
    match_layers,
    read_caffe_mean,
    read_caffemodel,
    read_onnx,
)
from alexnet.interchange.formats import Exportable, build_onnx, to_onnx, to_torchvision
from alexnet.interchange.quantise import quantise
from alexnet.interchange.runtimes import OpenVino, Runtime, check_runtime, with_engine
from alexnet.interchange.untrained_weights import detect_untrained

__all__ = [
    "Exportable",
    "OnnxNet",
    "OpenVino",
    "Runtime",
    "build_onnx",
    "check_export",
    "check_runtime",
    "detect_untrained",
    "match_layers",
    "quantise",
    "read_caffe_mean",
    "read_caffemodel",
    "read_onnx",
    "to_onnx",
    "to_torchvision",
    "with_engine",
]
