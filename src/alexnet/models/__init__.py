"""Networks: the AlexNet family, the parts they are made of, and response normalisation.

These names are stable. The modules they come from are not.
"""

from alexnet.models.family import FAMILY
from alexnet.models.layers import BatchNorm, Conv, Dropout, Linear, Local, Pool, ReLU, ResponseNorm
from alexnet.models.net import Net, Spec, summarize, training_operations
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
    "Linear",
    "Local",
    "Net",
    "Pool",
    "ReLU",
    "ResponseNorm",
    "ResponseNormLayer",
    "Spec",
    "build_model",
    "find_model",
    "model_spec",
    "narrowed",
    "response_norm",
    "summarize",
    "training_operations",
]
