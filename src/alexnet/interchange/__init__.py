"""Weights in the formats of others, out and in, and proof of what a file computes.

These names are stable. The modules they come from are not.
"""

from alexnet.interchange.chain import OnnxNet, check_export
from alexnet.interchange.foreign import match_layers, read_caffe_mean, read_caffemodel, read_onnx
from alexnet.interchange.formats import Exportable, make_onnx, to_onnx, to_torchvision
from alexnet.interchange.quantise import quantise
from alexnet.interchange.runtimes import OpenVino, Runtime, check_runtime, with_engine
from alexnet.interchange.untrained_weights import detect_untrained

__all__ = [
    "Exportable",
    "OnnxNet",
    "OpenVino",
    "Runtime",
    "check_export",
    "check_runtime",
    "detect_untrained",
    "make_onnx",
    "match_layers",
    "quantise",
    "read_caffe_mean",
    "read_caffemodel",
    "read_onnx",
    "to_onnx",
    "to_torchvision",
    "with_engine",
]
