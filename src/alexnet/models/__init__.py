"""Networks: the AlexNet family, the parts they are made of, and response normalisation.

These names are stable. The modules they come from are not.
"""

from alexnet.models.family import FAMILY
from alexnet.models.integers import has_int8
from alexnet.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    Local,
    MeanTo,
    Pool,
    ReLU,
    ResponseNorm,
    Tanh,
)
from alexnet.models.net import LayerRow, Net, Spec, summarize, training_operations
from alexnet.models.norm import ResponseNormLayer, response_norm
from alexnet.models.small import SMALL
from alexnet.models.zoo import MODELS, build_model, find_model, model_spec, narrowed

__all__ = [
    "FAMILY",
    "MODELS",
    "SMALL",
    "BatchNorm",
    "Conv",
    "Dropout",
    "LayerRow",
    "Linear",
    "Local",
    "MeanTo",
    "Net",
    "Pool",
    "ReLU",
    "ResponseNorm",
    "ResponseNormLayer",
    "Spec",
    "Tanh",
    "build_model",
    "find_model",
    "has_int8",
    "model_spec",
    "narrowed",
    "response_norm",
    "summarize",
    "training_operations",
]
